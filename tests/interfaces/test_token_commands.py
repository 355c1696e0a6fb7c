"""`instar token` and `instar whoami` on the store's files and over a server; and what a server keeps beside its answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import instar
from instar.app import open_store
from instar.core import credentials, errors, refusals, tokens
from instar.core.errors import Unauthenticated
from instar.core.identity import Role, local_caller, local_user
from instar.core.settings import Settings
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.interfaces.api.doorkeeper import Doorkeeper
from instar.interfaces.cli.main import cli
from instar.interfaces.keeping import Keeping
from instar.serve.access import granting
from instar.serve.access.callers import read_callers
from instar.serve.access.keyring import Keyring
from instar.serve.access.visits import Visits, visits_folder
from instar.serve.root.process import ServerTree
from tests.serve.conftest import wait_for

Tell = Callable[..., Result]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("strict") / ".instar"
    with ServerTree.start(folder, environment={"INSTAR_LOOPBACK": "token", "INSTAR_CONTROLLERS": "off"}) as server:
        yield server


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Run a command in an empty folder, or with settings."""
    for name in list(os.environ):
        if name.startswith("INSTAR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, fails: type[Exception] | None = None, **settings: str) -> Result:
        done = CliRunner().invoke(cli, list(words), env=settings)
        if fails is not None:
            assert isinstance(done.exception, fails), done.output
        else:
            assert done.exit_code == 0, (done.output, done.exception)
        return done

    return run


def made(tell: Tell, *words: str, **settings: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tell("token", "create", *words, "--json", **settings).stdout)
    return found


def test_a_token_is_made_changed_listed_and_revoked_by_the_owner(tell: Tell, tmp_path: Path) -> None:
    done = tell("token", "create", "ada", "--role", "admin", "--all-projects", "--expires", "never")
    secret = done.stdout.splitlines()[0]
    assert credentials.is_secret(secret)
    web = made(
        tell, "web", "--role", "caller", "--service", "--endpoint", "delay", "--rate", "600/m", "--expires", "12h"
    )
    assert (web["kind"], web["endpoints"], web["rate"], web["roles"]) == (
        "service",
        ["delay"],
        10.0,
        {"default": ["caller"]},
    )
    assert {grant.name for grant in read_callers(tmp_path / ".instar").grants} == {"ada", "web"}
    tell("token", "change", "web", "--role", "reader", "--role", "operator", "--project", "flights")
    listed = json.loads(tell("token", "ls", "--json").stdout)
    assert [(one["name"], one["roles"]) for one in listed] == [
        ("web", {"flights": ["operator", "reader"]}), ("ada", {"*": ["admin"]}),
    ]  # fmt: skip
    assert "web  service  operator, reader in flights at delay  never used" in tell("token", "ls").stdout
    tell("token", "revoke", "web")
    tell("token", "revoke", "ada")  # the owner may take away the last administrator
    assert read_callers(tmp_path / ".instar").grants == ()
    assert tell("token", "ls").stdout.startswith("no token yet")
    assert "(revoked)" in tell("token", "ls", "--all").stdout
    assert secret not in tell("token", "ls", "--all", "--json").stdout
    assert f"{local_user().name}, user: admin in all projects" in tell("whoami").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--role", "king"], ["--role", "reader", "--expires", "soon"], ["--role", "reader", "--rate", "0/s"],
        ["--role", "reader", "--all-projects", "--project", "x"], ["--role", "reader", "--expires", "0d"],
    ],
)  # fmt: skip
def test_a_senseless_token_is_refused_with_the_reason(tell: Tell, words: list[str]) -> None:
    tell("token", "create", "x", *words, fails=errors.BadInput)


def test_an_unknown_token_is_not_revoked(tell: Tell) -> None:
    tell("token", "revoke", "x", fails=errors.NotFound)


def test_over_a_server_a_token_says_what_one_may(tell: Tell, strict: ServerTree) -> None:
    store = Path(strict.log).parents[1]
    boss = made(tell, "boss", "--role", "admin", "--all-projects", INSTAR_STORE=str(store))["secret"]
    there = {"INSTAR_URL": strict.url, "INSTAR_TOKEN": boss}
    wait_for(lambda: CliRunner().invoke(cli, ["whoami"], env=there).exit_code == 0)
    assert json.loads(tell("whoami", "--json", **there).stdout)["roles"] == {"*": ["admin"]}
    reader = made(tell, "reader", "--role", "reader", **there)["secret"]
    assert {one["name"] for one in json.loads(tell("token", "ls", "--json", **there).stdout)} >= {"boss", "reader"}
    less = {"INSTAR_URL": strict.url, "INSTAR_TOKEN": reader}
    tell("token", "create", "more", "--role", "reader", fails=errors.NotAllowed, **less)
    tell("token", "ls", fails=errors.NotAllowed, **less)
    tell("whoami", fails=Unauthenticated, INSTAR_URL=strict.url)

    def refused() -> list[Any]:
        found = json.loads(tell("token", "refused", "--caller", "reader", "--json", **there).stdout)
        return [(one["route"], one["status"]) for one in found]

    wait_for(lambda: ("POST /api/tokens", 403) in refused())
    assert "POST /api/tokens" in tell("token", "refused", **there).stdout
    tell("token", "revoke", "reader", **less)  # one's own
    tell("whoami", fails=Unauthenticated, **less)


def test_a_run_is_recorded_over_a_strict_server(
    tell: Tell, strict: ServerTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the owner without a word, since the token is in a file of the store; by others with theirs."""
    store = Path(strict.log).parents[1]
    monkeypatch.setenv("INSTAR_STORE", str(store))
    with instar.run("guarded") as mine:
        mine.log_metric("loss", 0.5)
    monkeypatch.delenv("INSTAR_STORE")
    ravi = made(tell, "ravi", "--role", "data scientist", INSTAR_STORE=str(store))["secret"]
    monkeypatch.setenv("INSTAR_URL", strict.url)
    monkeypatch.setenv("INSTAR_TOKEN", ravi)
    with instar.run("guarded") as theirs:
        theirs.log_metric("loss", 0.25)
    with instar.connect() as server:
        found = {run["id"] for run in server.runs()}
    assert {mine.id, theirs.id} <= found


def test_another_machine_hears_of_a_revocation_by_the_database(postgres_database: str, tmp_path: Path) -> None:
    here, there = (open_store(tmp_path / name, postgres_database) for name in ("here", "there"))
    _, secret = tokens.create(here, "flights", Wish("web", {"flights": [Role.CALLER]}), local_caller())
    keeping = Keeping(there, Doorkeeper(there, Settings()), Settings())
    keeping.begin()
    ring = Keyring(there.folder, Settings())

    def holds() -> bool:
        ring.look()
        try:
            return bool(ring.by_secret(secret))
        except Unauthenticated:
            return False

    try:
        wait_for(holds)
        tokens.revoke(here, "flights", "web", local_caller())
        wait_for(lambda: not holds())
    finally:
        keeping.end()
        here.database.close()
        there.database.close()


def test_what_gateways_saw_comes_on_the_record(store: Store) -> None:
    token, secret = tokens.create(store, "flights", Wish("web", {"flights": [Role.CALLER]}), local_caller())
    granting.publish(store)
    keeper = Doorkeeper(store, Settings())
    keeping = Keeping(store, keeper, Settings())
    gateway, ring = Visits(store.folder, "gateway"), Keyring(store.folder, Settings())
    ring.by_secret(secret).enter(1_800_000_000.0)
    for _ in range(3):
        gateway.refuse("web", "GET /metrics", 403)
    gateway.leave(ring.passes())
    keeper.visits.refuse("nobody", "GET /api/projects", 401)
    keeping.begin()
    keeping.end()
    with store.database.read() as tx:
        found = {(row["caller"], row["route"], row["status"]): row["count"] for row in refusals.refusals(tx)}
        used = tokens.get(tx, token.id).used_at
    assert found == {("web", "GET /metrics", 403): 3, ("nobody", "GET /api/projects", 401): 1}
    assert used is not None
    assert used.timestamp() == 1_800_000_000.0
    assert list(visits_folder(store.folder).iterdir()) == []


def test_what_cannot_be_told_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is said once, not at each turn; a database may be away for a night."""
    keeper = Doorkeeper(store, Settings())
    keeper.visits.refuse("nobody", "GET /api/projects", 401)
    keeping = Keeping(store, keeper, Settings())
    with monkeypatch.context() as broken:
        broken.setattr(refusals, "note", lambda *_: (_ for _ in ()).throw(errors.StoreBusy("it is away")))
        for _ in range(3):
            keeping._turn(False)
    keeping._turn(False)
    said = [one.message for one in caplog.records]
    assert [text.split(":")[0] for text in said] == [
        "what callers did, or may do, is not said for now",
        "what callers did, and may do, is said again",
    ]
    with store.database.read() as tx:
        assert [row["count"] for row in refusals.refusals(tx)] == [1]


def test_kinds_of_refusals_are_bounded(store: Store) -> None:
    seen = Visits(store.folder, "x")
    for number in range(1500):
        seen.refuse(f"caller{number}", "GET /", 403)
    _, refused = seen.take([])
    assert len(refused) == 1001
    assert sum(refused.values()) == 1500
