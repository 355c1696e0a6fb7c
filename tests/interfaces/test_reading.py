"""Reading what was tracked: the client against the real API, in one process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient

import instar
from instar.app import App
from instar.core import ids
from instar.core.errors import BadInput, NotFound
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import notes, spool, tracking, train
from instar.interfaces.sdk.client import Client
from instar.train import artifacts, runs
from instar.train.spool_records import Artifact, Points, Start, encode

NOW = 1_767_268_800_000_000


@pytest.fixture
def api(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    routes = [*notes.routes, *spool.routes, *tracking.routes, *train.routes]
    with TestClient(control.build(App(store, tmp_path), routes), base_url="http://127.0.0.1:5000") as client:
        yield client


@pytest.fixture
def server(api: TestClient) -> Iterator[Client]:
    with instar.connect("http://127.0.0.1:5000", project="birds", transport=api._transport) as client:
        yield client


def made(store: Store, loss: float, experiment: str = "songs") -> str:
    run = runs.start(store, "birds", experiment=experiment, parameters={"depth": 6}, capture=False)
    runs.log(store, run.id, points=[("loss", loss + step, step, NOW + step) for step in range(3)])
    return run.id


def test_runs_are_found_by_a_search_in_the_order_that_was_asked_for(
    server: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instar.interfaces.sdk import connection

    names = [made(store, loss) for loss in (0.3, 0.1, 0.2)]
    other = made(store, 0.1, "calls")
    assert {one["id"] for one in server.runs()} == {*names, other}
    found = server.runs(
        experiment="songs", filter="metrics.loss < 2.25 AND params.depth = '6'", order_by=["metrics.loss"]
    )
    assert [one["id"] for one in found] == [names[1], names[2]]
    assert [one["id"] for one in server.runs(order_by=["metrics.loss DESC"], limit=1)] == [names[0]]
    assert server.runs(experiment="nothing", filter="metrics.loss < 9") == []
    assert server.runs(experiment="nothing") == []
    monkeypatch.setattr(connection, "A_PAGE", 2)
    assert [one["id"] for one in server.runs(limit=5000)] == [one["id"] for one in server.runs()]
    assert len(server.runs(limit=3)) == 3
    with pytest.raises(BadInput):
        server.runs(filter="metrics.loss <")
    assert [one["name"] for one in server.experiments(order_by=["name"])] == ["calls", "songs"]
    assert [one["name"] for one in server.experiments(filter="name LIKE 's%'")] == ["songs"]


def test_histories_come_in_pages_and_whole(
    server: Client, store: Store, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instar.interfaces.sdk import connection

    run = made(store, 0.0)
    runs.log(store, run, points=[("loss", math.nan, 3, NOW)])
    monkeypatch.setattr(connection, "A_PAGE", 3)
    assert [(one["step"], one["value"]) for one in server.history(run, "loss")] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
        (3, None),
    ]
    assert server.run(run[:20])["metrics"] == {"loss": None}
    assert server.history(run, "nothing") == []
    for wrong in ("0", "x", "100000"):
        path = f"/api/projects/birds/runs/{run}/history/loss"
        assert api.get(path, params={"limit": wrong}).status_code == 400


def test_files_are_listed_and_downloaded_and_never_act_in_our_name(
    server: Client, store: Store, api: TestClient, tmp_path: Path
) -> None:
    run = made(store, 0.0)
    artifacts.log_artifact(store, run, "plots/a b.png", b"picture")
    artifacts.log_artifact(store, run, "page.html", b"<script>alert(1)</script>")
    assert [(one["path"], one["size"]) for one in server.artifacts(run)] == [("page.html", 25), ("plots/a b.png", 7)]
    assert server.download(run, "plots/a b.png", tmp_path).read_bytes() == b"picture"
    assert server.download(run, "page.html", tmp_path / "x").name == "x"
    with pytest.raises(NotFound):
        server.download(run, "nothing", tmp_path)
    page = api.get(f"/api/projects/birds/runs/{run}/artifacts/page.html")
    assert page.headers["content-disposition"] == "attachment"
    assert "sandbox" in page.headers["content-security-policy"]
    assert (
        api.get(f"/api/projects/birds/runs/{run}/artifacts/plots/a%20b.png").headers["content-disposition"] == "inline"
    )
    assert api.get(f"/api/projects/other/runs/{run}/artifacts").status_code == 404


def test_notes_are_read_and_written(server: Client, store: Store) -> None:
    run = made(store, 0.0)
    note = server.add_note(run, "odd")
    assert server.notes(run) == server.notes() == [note]
    with pytest.raises(NotFound):
        server.add_note("run_NONE", "odd")


def test_a_spool_is_taken_over_http_once(api: TestClient, store: Store, tmp_path: Path) -> None:
    run, digest = ids.new_id("run"), ids.digest(b"text")
    frames = [
        encode(one) for one in (Start("birds", "songs", NOW), Points(NOW, 0, {"a": 1.0}), Artifact("a.txt", digest, 4))
    ]
    put = api.put(f"/api/projects/birds/runs/{run}/blobs/{digest}", content=b"text")
    assert put.json() == {"digest": digest}
    path, body = f"/api/projects/birds/runs/{run}/spool", {"writer": "main", "first": 0, "frames": frames}
    for _ in range(2):
        sent = api.post(path, content=msgspec.msgpack.encode(body), headers={"content-type": "application/msgpack"})
        assert sent.json() == {"applied": 3}
    found = runs.get_run(store, run)
    assert (found.metrics, found.artifacts) == ({"a": 1.0}, {"a.txt": digest})
    assert len(runs.metric_history(store, run, "a")) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\x80",
        msgspec.msgpack.encode({"writer": "main", "first": -1, "frames": []}),
        msgspec.msgpack.encode({"writer": "", "first": 0, "frames": []}),
        msgspec.msgpack.encode({"writer": "x" * 50, "first": 0, "frames": []}),
        msgspec.msgpack.encode({"writer": "main", "first": 0, "frames": "text"}),
        msgspec.msgpack.encode({"writer": "main", "first": 0, "frames": [], "more": 1}),
    ],
)
def test_a_body_that_is_no_batch_is_refused(api: TestClient, body: bytes) -> None:
    sent = api.post(
        "/api/projects/birds/runs/run_1/spool", content=body, headers={"content-type": "application/msgpack"}
    )
    assert sent.status_code == 400


def test_a_run_that_was_never_begun_and_a_wrong_digest_are_refused(api: TestClient, store: Store) -> None:
    body = {"writer": "main", "first": 0, "frames": [encode(Points(NOW, 0, {"a": 1.0}))]}
    path = "/api/projects/birds/runs/run_01J9ZZZZZZ000001000000000A"
    assert api.post(f"{path}/spool", content=msgspec.msgpack.encode(body)).status_code == 404
    assert api.put(f"{path}/blobs/{ids.digest(b'text')}", content=b"tex").status_code == 400
