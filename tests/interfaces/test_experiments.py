"""Experiments over HTTP: made, renamed, moved between projects, tagged, hidden and brought back; the client moves them, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import instar
from instar.app import App
from instar.core import journal
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import experiments as api
from instar.interfaces.api import tracking
from instar.interfaces.sdk.client import Client
from instar.train import experiments, runs

BIRDS = "/api/projects/birds/experiments"


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    application = control.build(App(store, tmp_path), [*api.routes, *tracking.routes])
    with TestClient(application, base_url="http://127.0.0.1:5000") as client:
        yield client


@pytest.fixture
def server(client: TestClient) -> Iterator[Client]:
    with instar.connect("http://127.0.0.1:5000", project="birds", transport=client._transport) as server:
        yield server


def made(client: TestClient, name: str = "songs") -> str:
    reply = client.post(BIRDS, json={"name": name, "tags": {"kind": "a"}})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def test_an_experiment_lives_and_is_seen_by_its_project_only(client: TestClient) -> None:
    one = f"{BIRDS}/{made(client)}"
    assert client.post(f"{one}/rename", json={"name": "calls"}).json()["name"] == "calls"
    assert client.put(f"{one}/tags/kind", json={"value": "b"}).json()["tags"] == {"kind": "b"}
    assert client.delete(f"{one}/tags/kind").json()["tags"] == {}
    assert client.delete(one).json()["state"] == "deleted"
    assert client.post(f"{one}/restore", json={}).json()["state"] == "active"
    assert client.get(one).json()["runs"] == 0
    elsewhere = one.replace("birds", "trains")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/restore")):
        assert client.request(method, elsewhere + path, json={} if method == "POST" else None).status_code == 404
    assert client.post(f"{elsewhere}/move", json={"project": "trains"}).status_code == 404


def test_an_experiment_moves_with_its_runs_and_both_projects_say_so(client: TestClient, store: Store) -> None:
    id = made(client)
    run = runs.start(store, "birds", experiment="songs", capture=False).id
    moved = client.post(f"{BIRDS}/{id}/move", json={"project": "trains", "name": "whistles"}).json()
    assert (moved["id"], moved["project"], moved["name"]) == (id, "trains", "whistles")
    assert (runs.get_run(store, run).project, runs.get_run(store, run).experiment) == ("trains", "whistles")
    assert client.get(f"{BIRDS}/{id}").status_code == 404
    back = client.post(f"/api/projects/trains/experiments/{id}/move", json={"project": "birds"}).json()
    assert (back["project"], back["name"]) == ("birds", "whistles")
    for project in ("birds", "trains"):
        with store.database.read() as tx:
            kinds = [entry.kind for entry in journal.entries(tx, project)]
        assert kinds.count("experiment moved") == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"project": ""}, 400), ({"project": "x" * 300}, 400), ({"project": "trains", "name": ""}, 400), ({}, 400),
        ({"project": 3}, 400), ({"project": "trains", "more": 1}, 400), ({"project": "trains", "name": "taken"}, 409),
    ],
)  # fmt: skip
def test_a_move_to_nowhere_is_refused_and_changes_nothing(
    client: TestClient, store: Store, body: dict[str, Any], status: int
) -> None:
    experiments.ensure(store, "trains", "taken")
    id = made(client)
    assert client.post(f"{BIRDS}/{id}/move", json=body).status_code == status
    assert client.get(f"{BIRDS}/{id}").json()["name"] == "songs"


def test_who_may_only_read_moves_nothing() -> None:
    asked = {route.path.rsplit("/", 1)[-1]: route.permission for route in api.routes if route.method == "POST"}
    assert asked["move"] is Permission.TRAIN


def test_the_client_moves_by_name_or_id(client: TestClient, server: Client, store: Store) -> None:
    first, second = made(client), made(client, "calls")
    assert server.move_experiment("songs", "trains")["id"] == first
    assert server.move_experiment(second, "trains", name="whistles")["name"] == "whistles"
    assert server.experiments() == []
    with pytest.raises(NotFound):
        server.move_experiment("songs", "trains")
    with pytest.raises(NotFound):  # it is another project's by now
        server.move_experiment(first, "birds")
    made(client, "whistles")
    with pytest.raises(Conflict):
        server.move_experiment("whistles", "trains")
    with pytest.raises(BadInput):
        server.move_experiment("whistles", "")
