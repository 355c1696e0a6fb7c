"""Clients that do not agree over MLflow's protocol: about the end of a run, about the time; what would do harm; a full disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from instar.app import App, open_store
from instar.core.database import Transaction
from instar.core.store import Store
from instar.interfaces.api.application import Application
from instar.interfaces.mlflow import routes
from instar.operate import audit
from instar.release import scan_files
from instar.train import artifacts

from .conftest import Api

NOW = 1_700_000_000_000
DAY = 86_400_000
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


def test_two_clients_finish_one_run_at_once(api: Api, store: Store) -> None:
    run = api.run()

    def finish(number: int) -> Any:
        status = ("FINISHED", "FAILED")[number % 2]
        return api.post("runs/update", run_id=run, status=status, end_time=NOW + number)["run_info"]

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(finish, range(16)))
    info = api.get("runs/get", run_id=run)["run"]["info"]
    assert {one["run_id"] for one in told} == {run}
    # One of them was the last, and the record is what that one said, whole.
    assert info["status"] == ("FINISHED", "FAILED")[(info["end_time"] - NOW) % 2]
    found = audit.verify(store, "default")
    assert [check.faults for check in found.checks if check.faults] == []


def test_clocks_that_disagree(api: Api) -> None:
    """What a client says of the time is kept; the order of a history is that of its steps."""
    run = api.run(start_time=NOW + DAY)  # its clock is a day ahead of the one that ends it
    for step, at in enumerate((NOW + DAY, NOW - DAY, NOW)):
        api.post("runs/log-metric", run_id=run, key="loss", value=step, timestamp=at, step=step)
    api.post("runs/log-metric", run_id=run, key="back", value=2, timestamp=NOW + DAY, step=0)
    api.post("runs/log-metric", run_id=run, key="back", value=1, timestamp=NOW, step=0)
    info = api.post("runs/update", run_id=run, status="FINISHED", end_time=NOW)["run_info"]
    assert (info["start_time"], info["end_time"]) == (NOW + DAY, NOW)
    points = api.get("metrics/get-history", run_id=run, metric_key="loss")["metrics"]
    assert [(one["step"], one["timestamp"]) for one in points] == [(0, NOW + DAY), (1, NOW - DAY), (2, NOW)]
    assert api.data(run)["metrics"] == {"loss": 2, "back": 2}  # the last step; of one step, the latest time
    experiment = info["experiment_id"]
    for filter in (f"attributes.end_time = {NOW}", f"attributes.start_time > {NOW}"):
        found = api.post("runs/search", experiment_ids=[experiment], filter=filter)["runs"]
        assert [one["info"]["run_id"] for one in found] == [run]


@pytest.mark.parametrize("kind", ["link", "bomb", "way out"])
def test_an_archive_that_would_do_harm_is_kept_and_flagged(http: TestClient, api: Api, store: Store, kind: str) -> None:
    run = api.run()
    root = api.get("runs/get", run_id=run)["run"]["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    entry, body, words = zipfile.ZipInfo("a"), b"x", ""
    match kind:
        case "link":
            entry.external_attr, body, words = 0o120777 << 16, b"/etc/passwd", "symbolic link"
        case "bomb":
            body, words = bytes(20 * 1024**2), "unpacks to far more"
            entry.compress_type = zipfile.ZIP_DEFLATED
        case "way out":
            entry.filename, words = "../../etc/passwd", "leads out"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(entry, body)
    assert http.put(f"{PROXY}/{root}/data.zip", content=archive.getvalue()).status_code == 200
    assert http.get(f"{PROXY}/{root}/data.zip").content == archive.getvalue()  # as it came, never unpacked
    blob = artifacts.find(store, run, "data.zip").blob or ""
    assert words in scan_files.findings(store, [blob])[blob].refused


def test_on_a_full_disk_a_batch_is_refused_whole(tmp_path: Path) -> None:
    """The code says that trying again does not help, so that a client does not wait; afterwards all goes on."""
    database = f"sqlite:///{tmp_path / 'instar.db'}"
    store = open_store(tmp_path / "store", database)
    application = Application(App(store, None), routes.all_routes())
    with TestClient(application, base_url="http://127.0.0.1:5000", raise_server_exceptions=False) as client:
        api = Api(client)
        run = api.run()
        params = [{"key": f"p{number}", "value": "x" * 50_000} for number in range(20)]
        metrics = [{"key": f"m{number}", "value": 1, "timestamp": NOW} for number in range(900)]
        with limited(store):
            refused = api.refused("runs/log-batch", run_id=run, metrics=metrics, params=params)
        assert (refused[0], refused[1]) == (507, "RESOURCE_LIMIT_EXCEEDED")
        assert "Make room" in refused[2]
        assert api.data(run)["metrics"] == api.data(run)["params"] == {}
        api.post("runs/log-batch", run_id=run, metrics=metrics, params=params)
        assert len(api.data(run)["metrics"]) == 900
    store.database.close()


@contextmanager
def limited(store: Store) -> Iterator[None]:
    """While it lasts, SQLite's file may not grow by more than a few pages."""

    def limit(connection: Any, *_: object) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")

    def lift(tx: Transaction) -> None:
        tx.exec_driver_sql("PRAGMA max_page_count=1073741823")

    sa.event.listen(sa.engine.Engine, "begin", limit)
    try:
        yield
    finally:
        sa.event.remove(sa.engine.Engine, "begin", limit)
        store.database.write(lift)
