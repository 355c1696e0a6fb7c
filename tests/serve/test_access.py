"""Who may, on a real server: strict, beyond loopback, with gateways that hear of revocations, and secrets without a trace."""

from __future__ import annotations

import base64
import inspect
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from instar.app import open_store
from instar.core import credentials, refusals, tokens
from instar.core.errors import NotAllowed, Unauthenticated, Unavailable
from instar.core.identity import EVERYWHERE, MAY, Caller, Permission, Role, local_caller, local_user
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.interfaces.sdk.client import Client
from instar.interfaces.sdk.proof import authorization
from instar.serve.access import granting
from instar.serve.access.entrance import GRPC_METHODS, RULES
from instar.serve.clients.client import Ask, InferClient
from instar.serve.gateway import grpc_port
from instar.serve.protocol.grpc_messages import message
from instar.serve.root.process import ServerTree
from instar.serve.root.supervisor import Root
from tests.serve import fakes
from tests.serve.conftest import start, wait_for

INFER = "/v2/models/delay/infer"
INPUTS = {c.name: c.datatype for c in fakes.COLUMNS}
ROW = {"distance": 1000.0, "hour": 8, "carrier": "UA", "wind": None, "holiday": False}


class World:
    """A strict server with two gateways and a control process, on a store with tokens."""

    def __init__(self, folder: Path, server: ServerTree, store: Store) -> None:
        self.folder, self.server, self.store = folder, server, store
        self.secrets: dict[str, str] = {}

    def token(
        self, name: str, *roles: Role, project: str = "flights", caller: Caller | None = None, **more: object
    ) -> str:
        wish = Wish(name, {project: list(roles)}, **more)  # type: ignore[arg-type]
        _, secret = tokens.create(self.store, "flights", wish, caller or local_caller())
        granting.publish(self.store)
        self.secrets[name] = secret
        self.wait_until_known(secret)
        return secret

    def wait_until_known(self, secret: str) -> None:
        for _ in range(4):  # connections go to either gateway
            wait_for(lambda: self.get("/v2", secret).status_code == 200)

    def get(self, path: str, secret: str | None = None, **headers: str) -> httpx2.Response:
        return httpx2.get(self.server.url + path, headers={**_bearer(secret), **headers}, timeout=30)

    def infer(self, secret: str | None, **headers: str) -> httpx2.Response:
        return httpx2.post(
            self.server.url + INFER, json=fakes.body(), headers={**_bearer(secret), **headers}, timeout=30
        )


def _bearer(secret: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"} if secret else {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("access") / ".instar"
    store = open_store(folder, f"sqlite:///{folder}/instar.db")
    fakes.route(folder, [fakes.version(folder, 1)])
    strict = {"INSTAR_LOOPBACK": "token", "INSTAR_CONTROLLERS": "off"}
    with start(folder, control=True, gateways=2, grpc_port=0, environment=strict) as server:
        fakes.route(folder, [fakes.version(folder, 1)])  # the control process published what is on the record: nothing
        yield World(folder, server, store)
    store.database.close()


def test_nobody_comes_in_without_a_token_but_for_health(world: World) -> None:
    for path in ("/v2", "/v2/models/delay", "/metrics", "/api/projects", "/api/whoami", "/api/tokens"):
        refused = world.get(path)
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert world.infer(None).status_code == 401
    for path in ("/v2/health/live", "/health", "/version", "/console/sign-in", "/console/assets/console.css"):
        assert world.get(path).status_code == 200, path


@pytest.fixture(scope="module")
def roles(world: World) -> dict[str, str]:
    """A secret for each role in the endpoint's project."""
    wishes = [Wish(f"role-{role.name.lower()}", {"flights": [role]}) for role in Role]
    secrets = [tokens.create(world.store, "flights", wish, local_caller())[1] for wish in wishes]
    granting.publish(world.store)
    world.secrets.update(zip([wish.name for wish in wishes], secrets, strict=True))
    world.wait_until_known(secrets[-1])
    return dict(zip([role.value for role in Role], secrets, strict=True))


@pytest.mark.parametrize("rule", list(RULES))
def test_every_path_of_a_gateway_lets_in_whom_the_table_names(world: World, roles: dict[str, str], rule: str) -> None:
    method, path = rule.replace("{endpoint}", "delay").replace("{version}", "1").split(" ")
    if not path.startswith("/"):  # gRPC has a port of its own
        return
    found = {}
    for name, secret in {None: None, **roles}.items():
        headers = {"content-type": "application/json", **_bearer(secret)}
        found[name] = httpx2.request(method, world.server.url + path, headers=headers, timeout=30).status_code
    anybody = Permission.PUBLIC in RULES[rule]
    assert (found.pop(None) == 401) is not anybody
    for name, status in found.items():
        may = not MAY[Role(name)].isdisjoint(RULES[rule])
        assert status not in (401, 500), (name, status)
        assert (status == 403) is not may, (name, status)


@pytest.mark.parametrize("rule", list(RULES))
def test_a_token_of_another_endpoint_is_told_nothing_of_this_one(world: World, limited: str, rule: str) -> None:
    method, path = rule.replace("{endpoint}", "delay").replace("{version}", "1").split(" ")
    if not path.startswith("/"):
        return
    headers = {"content-type": "application/json", **_bearer(limited)}
    told = httpx2.request(method, world.server.url + path, headers=headers, timeout=30)
    named = "{endpoint}" in rule or path in ("/invocations", "/metrics")  # with one endpoint, the first means it
    assert (told.status_code == 403) is named
    assert named or "delay" not in told.text


@pytest.fixture(scope="module")
def limited(world: World) -> str:
    """The secret of an administrator of another endpoint of the same project."""
    wish = Wish("limited", {"flights": [Role.ADMIN]}, endpoints=["fares"])
    _, secret = tokens.create(world.store, "flights", wish, local_caller())
    granting.publish(world.store)
    world.wait_until_known(secret)
    return secret


def test_the_table_has_every_method_of_grpcs_port() -> None:
    source = inspect.getsource(grpc_port)
    assert set(re.findall(r'"(\w+)": (?:self\._|_method)|\{"(Check)"', source)) >= {("ModelInfer", "")}
    named = {one or other for one, other in re.findall(r'"(\w+)": (?:self\._|_method)|\{"(Check)"', source)}
    assert named == set(GRPC_METHODS)


@pytest.mark.parametrize("method", list(GRPC_METHODS))
def test_every_method_of_grpc_lets_in_whom_the_table_names(world: World, roles: dict[str, str], method: str) -> None:
    grpc = pytest.importorskip("grpc")
    needed = RULES[GRPC_METHODS[method]]
    name = "HealthCheck" if method == "Check" else method
    service = "grpc.health.v1.Health" if method == "Check" else "inference.GRPCInferenceService"
    fields = {
        "ModelInfer": {"model_name": "delay"},
        "ModelMetadata": {"name": "delay"},
        "ModelReady": {"name": "delay"},
    }
    request = message(f"{name}Request")(**fields.get(method, {}))
    found = {}
    with grpc.insecure_channel(f"127.0.0.1:{world.server.state.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{service}/{method}", message(f"{name}Request").SerializeToString, message(f"{name}Response").FromString
        )
        for role, secret in {None: None, **roles}.items():
            try:
                call(request, timeout=20, metadata=[*_bearer(secret).items()])
                found[role] = None
            except grpc.RpcError as refused:
                found[role] = refused.code()
    anybody = Permission.PUBLIC in needed
    assert (found.pop(None) is grpc.StatusCode.UNAUTHENTICATED) is not anybody
    for role, code in found.items():
        may = not MAY[Role(role)].isdisjoint(needed)
        assert (code is grpc.StatusCode.PERMISSION_DENIED) is not may, (role, code)
        assert code is not grpc.StatusCode.UNAUTHENTICATED


def test_paths_that_are_none_are_told_to_nobody(world: World) -> None:
    for path in (
        "/v2/nothing",
        "/v2/models/delay/nothing",
        "/v2/models/nothing/infer",
        "/v2/models",
        "/v2/models/delay/infer",
    ):
        assert world.get(path).status_code in (401, 405), path


def test_an_application_asks_its_endpoint_and_is_on_the_record(world: World) -> None:
    secret = world.token("web", Role.CALLER, kind="service", endpoints=["delay"])
    answered = world.infer(secret)
    assert answered.status_code == 200
    basic = base64.b64encode(b"anybody:" + secret.encode()).decode()
    assert world.infer(None, authorization=f"Basic {basic}").status_code == 200
    with InferClient(world.server.url, "delay", token=secret) as client:
        assert client.infer(Ask(ROW)).status == 200
    call = answered.headers["instar-call"].encode()
    # The caller of the record is the name of the token.
    frames = b"".join(file.read_bytes() for file in (world.folder / "calls").rglob("*") if file.is_file())
    assert call in frames
    assert b"web" in frames[frames.index(call) : frames.index(call) + 200]
    assert world.get("/api/projects/flights/runs", secret).status_code == 403
    assert world.get("/v2", secret).json()["endpoints"] == ["delay"]


def test_who_may_not_ask_the_endpoint_is_told_and_counted(world: World) -> None:
    reader = world.token("reader", Role.READER)
    other = world.token("other", Role.CALLER, project="fraud")
    narrow = world.token("narrow", Role.CALLER, endpoints=["fraud"])
    for secret in (reader, other, narrow):
        refused = world.infer(secret)
        assert refused.status_code == 403
        assert refused.json()["kind"] == "NotAllowed"
    assert world.get("/v2/models/delay", reader).status_code == 200
    assert world.get("/v2/models/delay", other).status_code == 403
    assert world.get("/v2", other).json()["endpoints"] == []

    def counted() -> bool:
        with world.store.database.read() as tx:
            found = refusals.refusals(tx, limit=1000)
        seen = {(row["caller"], row["route"], row["status"]) for row in found}
        return {(name, "POST /v2/models/{endpoint}/infer", 403) for name in ("reader", "other", "narrow")} <= seen

    wait_for(counted)


def test_a_revoked_token_is_refused_within_a_second_on_every_gateway(world: World) -> None:
    secret = world.token("leaver", Role.CALLER)
    with httpx2.Client(base_url=world.server.url, timeout=30) as kept:
        assert kept.post(INFER, json=fakes.body(), headers=_bearer(secret)).status_code == 200
        tokens.revoke(world.store, "flights", "leaver", local_caller())
        granting.publish(world.store)
        revoked = time.monotonic()
        wait_for(lambda: kept.post(INFER, json=fakes.body(), headers=_bearer(secret)).status_code == 401)
        assert world.get("/api/whoami", secret).status_code == 401
    for _ in range(6):
        wait_for(lambda: world.infer(secret).status_code == 401)
    assert time.monotonic() - revoked < 30  # within a second on a machine that is not busy; here it must only happen


def test_a_rate_is_held_and_says_when_to_come_again(world: World) -> None:
    secret = world.token("eager", Role.CALLER, rate=1.0)
    wait_for(lambda: world.infer(secret).status_code == 200)
    found = [world.infer(secret) for _ in range(12)]
    refused = [one for one in found if one.status_code == 429]
    assert refused
    assert all(one.headers["retry-after"] == "1" for one in refused)


def test_a_rate_holds_over_all_processes_that_answer(world: World) -> None:
    """Calls alternate between connections, so that both gateways and the control process have some."""
    secret = world.token("quick", Role.CALLER, Role.READER, rate=5.0)
    wait_for(lambda: world.infer(secret).status_code == 200)
    began, answered, gateways = time.monotonic(), 0, set()
    clients = [httpx2.Client(base_url=world.server.url, headers=_bearer(secret), timeout=30) for _ in range(12)]
    try:
        for turn in range(60):
            client = clients[turn % len(clients)]
            reply = client.get("/api/whoami") if turn % 5 == 0 else client.post(INFER, json=fakes.body())
            answered += reply.status_code == 200
            assert reply.status_code in (200, 429)
            gateways.add(reply.headers.get("instar-call", "")[15:21])
    finally:
        for client in clients:
            client.close()
    assert answered <= 5 + 5 * (time.monotonic() - began) + 1  # a burst, the rate, and the call that began it
    assert answered  # how many, depends on what was asked until the token was known


def test_the_owner_of_the_files_needs_no_token_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = authorization(world.server.url, world.folder)
    assert world.get("/api/whoami", None, **proof).json()["name"] == local_user().name
    assert authorization("http://elsewhere.example:80", world.folder) == {}
    with Client(world.server.url) as stranger, pytest.raises(Unauthenticated):
        stranger.ask("GET", "/api/whoami")
    monkeypatch.setenv("INSTAR_TOKEN", world.token("ada", Role.READER))
    with Client(world.server.url) as ada:
        assert ada.ask("GET", "/api/whoami")["name"] == "ada"
        with pytest.raises(NotAllowed):
            ada.ask("POST", "/api/tokens", {"name": "x", "roles": {"flights": ["reader"]}})


def test_tokens_are_made_and_revoked_over_the_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTAR_TOKEN", world.token("boss", Role.ADMIN))
    with Client(world.server.url) as boss:
        made = boss.ask(
            "POST", "/api/tokens", {"name": "temp", "roles": {"flights": ["reader"]}, "expires_seconds": 60}
        )
        assert world.get("/api/whoami", made["secret"]).json()["roles"] == {"flights": ["reader"]}
        assert made["secret"] not in str(boss.ask("GET", "/api/tokens"))
        with pytest.raises(NotAllowed):
            boss.ask("POST", "/api/tokens", {"name": "y", "roles": {"*": ["reader"]}})
        boss.ask("DELETE", "/api/tokens/temp")
    assert world.get("/api/whoami", made["secret"]).status_code == 401


def test_a_browser_signs_in_and_out(world: World) -> None:
    secret = world.token("browser", Role.READER, Role.DATA_SCIENTIST)
    page = world.get("/console/flights/runs", None, accept="text/html")
    assert page.status_code == 303
    assert page.headers["location"] == "/console/sign-in?to=%2Fconsole%2Fflights%2Fruns"
    own = {"origin": world.server.url}
    with httpx2.Client(base_url=world.server.url, timeout=30) as browser:
        assert browser.post("/api/session", json={"token": secret + "x"}, headers=own).status_code == 401
        signed = browser.post("/api/session", json={"token": secret}, headers=own)
        assert signed.status_code == 200
        cookie = signed.headers["set-cookie"]
        assert secret not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert browser.get("/console/flights/runs", headers={"accept": "text/html"}).status_code == 200
        access = browser.get("/console/access", headers={"accept": "text/html"})
        assert "browser" in access.text
        experiment = {"name": "by browser"}
        for headers, status in (({}, 403), ({"origin": "https://evil.example"}, 403), (own, 201)):
            made = browser.post("/api/projects/flights/experiments", json=experiment, headers=headers)
            assert made.status_code in (status, 200 if status == 201 else status), made.text
        browser.cookies.clear()
        session = cookie.split("=", 1)[1].split(";")[0]
        middle = len(session) // 2
        other = "A" if session[middle] != "A" else "B"
        browser.cookies.set("instar_session", session[:middle] + other + session[middle + 1 :])
        assert browser.get("/api/whoami").status_code == 401
        browser.cookies.clear()
        browser.post("/api/session", json={"token": secret}, headers=own)
        tokens.revoke(world.store, "flights", "browser", local_caller())
        granting.publish(world.store)
        wait_for(lambda: browser.get("/api/whoami").status_code == 401)
        assert "Max-Age=0" in browser.delete("/api/session", headers=own).headers["set-cookie"]


def test_no_secret_is_left_anywhere(world: World) -> None:
    """After all that was done above: neither in the log, nor in a file of the store, nor in the list of processes."""
    secret = world.token("spilling", Role.READER)  # in another process than the tests above, it is the only one
    world.infer(secret)
    world.get("/api/projects/%00", secret)  # errors, too
    world.get("/v2/models/" + secret, secret)
    with sqlite3.connect(world.folder / "instar.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    secrets = [secret.encode() for secret in world.secrets.values()]
    owners = credentials.local_token(world.folder)
    for file in world.folder.rglob("*"):
        if file.is_file() and file != owners:
            content = file.read_bytes()
            assert not any(secret in content for secret in secrets), file
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines = (process / "cmdline").read_bytes()
        except OSError:
            continue
        assert not any(secret in lines for secret in secrets)


def test_beyond_loopback_an_administrator_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / ".instar"
    with pytest.raises(NotAllowed, match="instar token create NAME --role admin --all-projects"):
        Root(folder, host="0.0.0.0").run()
    store = open_store(folder, f"sqlite:///{folder}/instar.db")
    tokens.create(store, "default", Wish("half", {"flights": [Role.ADMIN]}), local_caller())
    granting.publish(store)
    with pytest.raises(Unavailable, match="before there is an administrator"):
        start(folder, host="0.0.0.0")
    _, secret = tokens.create(store, "default", Wish("root", {EVERYWHERE: [Role.ADMIN]}), local_caller())
    granting.publish(store)
    store.database.close()
    with start(folder, host="0.0.0.0", environment={"INSTAR_HOSTS": "ml.example"}) as server:
        local = f"http://127.0.0.1:{server.port}"
        assert httpx2.get(local + "/v2").status_code == 401
        assert httpx2.get(local + "/v2", headers=_bearer(secret)).status_code == 200
        assert httpx2.get(local + "/v2", headers={**_bearer(secret), "host": "ml.example"}).status_code == 200
        assert httpx2.get(local + "/v2", headers={**_bearer(secret), "host": "evil.example"}).status_code == 403


def test_a_gateway_alone_believes_what_it_knows_or_nobody(tmp_path: Path) -> None:
    """The control process is away: known tokens hold, unless the setting says for how long only."""
    folder = tmp_path / ".instar"
    store = open_store(folder, f"sqlite:///{folder}/instar.db")
    _, secret = tokens.create(store, "flights", Wish("web", {"flights": [Role.CALLER]}), local_caller())
    granting.publish(store)
    store.database.close()
    fakes.route(folder, [fakes.version(folder, 1)])
    with start(folder) as server:
        assert httpx2.post(server.url + INFER, json=fakes.body(), headers=_bearer(secret)).status_code == 200
    with start(folder, environment={"INSTAR_IDENTITY_MAX_STALE": "1s"}) as server:
        wait_for(lambda: httpx2.post(server.url + INFER, json=fakes.body(), headers=_bearer(secret)).status_code == 401)


def test_no_token_is_taken_from_a_command_line() -> None:
    """Other users of a machine may read the list of processes."""
    from instar.interfaces.cli.main import COMMANDS, cli

    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        for one in [command, *getattr(command, "commands", {}).values()]:
            assert one is not None
            assert not any("--token" in parameter.opts for parameter in one.params), f"{name} {one.name}"
