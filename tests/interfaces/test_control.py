"""The control API's rim: permissions, strangers, errors as statuses, the table of routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core import errors, identity, tokens
from instar.core.identity import EVERYWHERE, Permission, Role
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.interfaces import all_routes
from instar.interfaces import control as server
from instar.interfaces.api import bodies
from instar.interfaces.api.routes import Bound, Reply, Request, Route
from instar.interfaces.api.status import status_of
from instar.interfaces.mlflow.frame import VOICE
from instar.serve.access import granting


def _echo(request: Request) -> Reply:
    return Reply(
        {"who": request.actor.name, "path": dict(request.path), "query": dict(request.query), "n": len(request.body)}
    )


def _typed(request: Request) -> Reply:
    return Reply(request.json(dict[str, int]))


def _missing(request: Request) -> Reply:
    raise errors.NotFound("nothing has that name", subject="table x", next_step="List them.")


READS = ("/search", "/search-datasets", "/get-latest-versions", "/presigned-download-url")
ROUTES = [
    Route("GET", "/api/echo/{name}", Permission.READ, _echo, bound=Bound.STORE),
    Route("POST", "/api/echo/{name}", Permission.OPERATE, _echo, bound=Bound.STORE),
    Route("POST", "/api/typed", Permission.OPERATE, _typed, bound=Bound.STORE),
    Route("GET", "/api/missing", Permission.READ, _missing, bound=Bound.STORE),
]


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(server.build(App(store, tmp_path), ROUTES), base_url="http://127.0.0.1:5000") as client:
        yield client


def test_a_handler_gets_path_query_body_and_actor(client: TestClient) -> None:
    reply = client.post("/api/echo/delay?a=1&b=2", content=b'{"x":1}')
    assert reply.json() == {
        "who": identity.local_user().name,
        "path": {"name": "delay"},
        "query": {"a": "1", "b": "2"},
        "n": 7,
    }


def test_a_caller_without_the_permission_is_refused(client: TestClient, store: Store) -> None:
    _, secret = tokens.create(store, "x", Wish("ravi", {EVERYWHERE: [Role.READER]}), identity.local_caller())
    granting.publish(store)
    client.headers["authorization"] = f"Bearer {secret}"
    assert client.get("/api/echo/x").json()["who"] == "ravi"
    refused = client.post("/api/echo/x")
    assert refused.status_code == 403
    assert refused.json()["type"] == "NotAllowed"
    assert secret not in refused.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:5000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:5000"}, 200),
        ({"content-type": "application/x-www-form-urlencoded"}, 400),
        ({"content-type": "text/plain; charset=utf-8"}, 400),
    ],
)
def test_pages_of_other_sites_cannot_act(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.post("/api/echo/x", headers=headers).status_code == status


def test_a_body_of_another_form_names_the_place(client: TestClient) -> None:
    reply = client.post("/api/typed", content=b'{"a": "one"}')
    assert reply.status_code == 400
    assert "$[...]" in reply.json()["found"]


def test_an_error_carries_its_facts(client: TestClient) -> None:
    reply = client.get("/api/missing")
    assert reply.status_code == 404
    assert reply.json() == {
        "error": "table x: nothing has that name.\nNext: List them.",
        "type": "NotFound",
        "subject": "table x",
        "next": "List them.",
    }


def test_a_body_over_the_limit_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_LIMIT_BYTES", 10)
    assert client.post("/api/echo/x", content=b"x" * 11).status_code == 413


def test_every_error_has_the_status_that_its_branch_promises() -> None:
    assert status_of(errors.TooLarge("x")) == 413
    assert status_of(errors.MissingColumn("x")) == 400
    assert status_of(errors.UnsafeModel("x")) == 422
    assert status_of(errors.Damaged("x")) == 500
    assert status_of(errors.StoreBusy("x")) == 503


def test_every_route_is_registered_once_with_a_permission_and_described() -> None:
    table = all_routes.all_routes()
    assert len({(route.method, route.path) for route in table}) == len(table)
    for route in table:
        assert isinstance(route.permission, Permission)
        assert (route.handler.__doc__ or "").strip(), f"{route.method} {route.path} has no description"
        # MLflow's protocol searches, and asks for an address to read from, by POST.
        if route.method != "GET" and not (route.voice is VOICE and route.path.endswith(READS)):
            assert route.permission is not Permission.READ, f"{route.method} {route.path} changes something"
