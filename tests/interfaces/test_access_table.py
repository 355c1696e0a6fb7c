"""The table of every route and every role: kept in a golden file, and really asked for, route by route and role by role.

A new route fails the first test until its line is in the file: `INSTAR_RENEW_GOLDEN=1` writes it, for a reader to judge.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.app import App
from instar.core import journal, refusals, tokens
from instar.core.identity import EVERYWHERE, MAY, Caller, Permission, Role, local_caller
from instar.core.settings import DEFAULT_PROJECT, Settings
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.interfaces import all_routes, api
from instar.interfaces.api.application import Application
from instar.interfaces.api.doorkeeper import Doorkeeper
from instar.interfaces.api.routes import Bound, Route
from instar.interfaces.mlflow.frame import VOICE
from instar.serve.access import entrance, granting, visits
from instar.testing import memory_store

GOLDEN = Path(__file__).parent / "golden" / "access.txt"
PROJECT = DEFAULT_PROJECT
ROUTES = all_routes.all_routes()


def canonical(route: Route) -> bool:
    """Of an operation of MLflow's protocol, which has many addresses, the first one below a project stands for all."""
    if route.voice is not VOICE:
        return True
    return re.match(r"/projects/\{project\}/(?!ajax-api|api/3)", route.path) is not None


def bound(route: Route) -> str:
    if route.permission in (Permission.PUBLIC, Permission.KNOWN):
        return "-"
    return route.bound.name.lower() if isinstance(route.bound, Bound) else "project"


def reach(route: Route) -> str:
    """What a token that is limited to some endpoints is told there."""
    if route.permission in (Permission.PUBLIC, Permission.KNOWN):
        return "-"
    return "its endpoints" if route.narrows or "{endpoint}" in route.path or "{model}" in route.path else "refused"


def told(rule: str) -> str:
    """The same of what a gateway answers by itself."""
    if Permission.PUBLIC in entrance.RULES[rule]:
        return "-"
    return "refused" if rule == "GET /metrics" else "its endpoints"  # tests/serve/test_access.py


def line(what: str, permissions: tuple[Permission, ...], where: str, limited: str) -> str:
    roles = [role.value for role in Role if MAY[role].intersection(permissions)]
    who = "anybody" if Permission.PUBLIC in permissions else "all" if len(roles) == len(Role) else ", ".join(roles)
    return f"{what} | {' or '.join(permissions)} | {where} | {limited} | {who}"


def table() -> str:
    routes = [line(f"{r.method} {r.path}", (r.permission,), bound(r), reach(r)) for r in ROUTES if canonical(r)]
    gateway = [line(rule, needed, "project", told(rule)) for rule, needed in entrance.RULES.items()]
    grpc = [
        line(name, entrance.RULES[rule], "project", told(rule)) for name, rule in sorted(entrance.GRPC_METHODS.items())
    ]
    return "\n".join(["# control", *sorted(routes), "# gateway", *sorted(gateway), "# gRPC", *grpc, ""])


def test_the_table_is_the_one_that_was_agreed() -> None:
    if os.environ.get("INSTAR_RENEW_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(table(), "utf-8")
    assert table() == GOLDEN.read_text("utf-8"), "see the first lines of this file"


def test_all_files_of_the_api_are_in_the_table() -> None:
    folder = Path(api.__file__).parent
    modules = [importlib.import_module(f"{api.__name__}.{one.stem}") for one in folder.glob("*.py")]
    written = {
        (r.method, r.path) for one in modules if isinstance(found := vars(one).get("routes"), list) for r in found
    }
    assert len(written) > 50
    assert written <= {(route.method, route.path) for route in ROUTES}


def test_all_addresses_of_an_operation_ask_for_the_same() -> None:
    rules: dict[tuple[str, object], set[object]] = {}
    for route in ROUTES:
        if route.voice is VOICE:
            rules.setdefault((route.method, route.handler), set()).add((route.permission, route.bound, route.proof))
    assert all(len(found) == 1 for found in rules.values())


def test_a_route_without_a_rule_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="does not say in which project"):
        Route("GET", "/api/new", Permission.READ, ROUTES[0].handler)


def test_who_need_not_say_who_it_is_sends_a_few_words_or_proves_the_address() -> None:
    for route in ROUTES:
        if route.permission is Permission.PUBLIC and route.upload:
            assert route.proof is not None, f"anybody may upload to {route.path}"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Application, Store, dict[str, str]]]:
    """A strict application, and the secret of a token for each role; `stranger` administrates another project."""
    store = memory_store(tmp_path_factory.mktemp("access"))
    secrets = {}
    for name, where, role in [
        *((role.value.replace(" ", "-"), PROJECT, role) for role in Role),
        ("stranger", "x", Role.ADMIN),
    ]:
        _, secrets[name] = tokens.create(store, PROJECT, Wish(name, {where: [role]}), local_caller())
    _, secrets["root"] = tokens.create(store, PROJECT, Wish("root", {EVERYWHERE: [Role.ADMIN]}), local_caller())
    granting.publish(store)
    keeper = Doorkeeper(store, Settings(loopback="token"))
    wish = Wish("limited", {PROJECT: [Role.ADMIN]}, endpoints=["mine"])
    _, secrets["limited"] = tokens.create(store, PROJECT, wish, local_caller())
    granting.publish(store)
    yield Application(App(store, None), [r for r in ROUTES if canonical(r)], doorkeeper=keeper), store, secrets
    store.database.close()


def ask(application: Application, route: Route, secret: str | None, endpoint: str = "nothing") -> int:
    path = re.sub(r"\{project\}", PROJECT, route.path)
    path = re.sub(r"\{(endpoint|model)\}", endpoint, path)
    path = re.sub(r"\{[a-z_]+(:path)?\}", "nothing", path)
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"0")]
    if secret is not None:
        headers.append((b"authorization", f"Bearer {secret}".encode()))
    scope = {"type": "http", "method": route.method, "path": path, "query_string": b"", "headers": headers}
    found: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            found.append(int(message["status"]))  # type: ignore[call-overload]

    asyncio.run(application(scope, receive, send))  # type: ignore[arg-type]
    return found[0]


def callers(route: Route) -> list[tuple[str | None, bool]]:
    """Each role with whether it may; nobody; and an administrator of another project."""
    found = [(role.value.replace(" ", "-"), route.permission in MAY[role]) for role in Role]
    if route.bound is Bound.STORE:
        found = [(name, route.permission in (Permission.PUBLIC, Permission.KNOWN)) for name, _ in found]
    free = route.permission in (Permission.PUBLIC, Permission.KNOWN) or route.bound is Bound.SOMEWHERE
    return [(None, route.permission is Permission.PUBLIC), ("stranger", free), ("root", True), *found]


@pytest.mark.parametrize("route", [r for r in ROUTES if canonical(r)], ids=lambda r: f"{r.method} {r.path}")
def test_every_route_lets_in_whom_the_table_names(
    asked: tuple[Application, Store, dict[str, str]], route: Route
) -> None:
    application, _, secrets = asked
    if route.proof is not None:
        assert ask(application, route, secrets["root"]) == 403  # nobody signed it
        return
    for name, may in callers(route):
        status = ask(application, route, None if name is None else secrets[name])
        if may:
            assert status not in (401, 403, 500), f"{name} may, and is told {status}"
        else:
            assert status == (401 if name is None else 403), f"{name} may not, and is told {status}"


@pytest.mark.parametrize("route", [r for r in ROUTES if canonical(r)], ids=lambda r: f"{r.method} {r.path}")
def test_a_token_of_some_endpoints_comes_to_these_alone(
    asked: tuple[Application, Store, dict[str, str]], route: Route
) -> None:
    application, _, secrets = asked
    named = "{endpoint}" in route.path or "{model}" in route.path
    free = route.permission in (Permission.PUBLIC, Permission.KNOWN)
    if route.proof is None and not free and (named or not route.narrows):
        assert ask(application, route, secrets["limited"]) == 403
    whole = (Permission.ADMIN, Permission.AUDIT, Permission.TRAIN, Permission.WRITE_DATA)
    if named and route.permission not in whole:
        assert ask(application, route, secrets["limited"], "mine") not in (401, 403, 500)


def test_a_token_of_some_endpoints_hands_out_and_audits_nothing() -> None:
    limited = Caller("web", roles={EVERYWHERE: frozenset({Role.ADMIN})}, endpoints=frozenset({"mine"}))
    assert not any(limited.may(one, PROJECT) for one in (Permission.ADMIN, Permission.AUDIT, Permission.TRAIN))
    assert not limited.may_somewhere(Permission.ADMIN)
    assert limited.may_ask("mine", PROJECT)
    assert not limited.may_ask("other", PROJECT)


def test_what_was_refused_is_counted_and_not_journalled(asked: tuple[Application, Store, dict[str, str]]) -> None:
    application, store, secrets = asked
    entries = journal_length(store)
    application.doorkeeper.visits.take([])
    route = next(r for r in ROUTES if r.path == "/api/projects/{project}/tables")
    for _ in range(50):
        ask(application, route, None)
        ask(application, route, secrets["caller"])
    _, refused = application.doorkeeper.visits.take([])
    assert {(one.caller, one.route, one.status, one.project): count for one, count in refused.items()} == {
        ("nobody", "GET /api/projects/{project}/tables", 401, ""): 50,
        ("caller", "GET /api/projects/{project}/tables", 403, PROJECT): 50,
    }
    visits.record(store, {}, refused)
    with store.database.read() as tx:
        assert sum(row["count"] for row in refusals.refusals(tx)) == 100
    assert journal_length(store) == entries


def journal_length(store: Store) -> int:
    with store.database.read() as tx:
        return len(journal.entries(tx, PROJECT))


def test_roles_add_up() -> None:
    both = Caller("ada", roles={PROJECT: frozenset({Role.READER, Role.APPROVER}), EVERYWHERE: frozenset({Role.CALLER})})
    assert both.may(Permission.APPROVE, PROJECT)
    assert both.may(Permission.PREDICT, "other")
    assert not both.may(Permission.READ, "other")
