"""The console's look at what a run keeps: its pictures, tables, texts and notes, escaped, and nothing in them run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core import notes
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.console import pages
from instar.interfaces.sdk import media
from instar.train import artifacts, runs

from .filled import NASTY

HTML = {"accept": "text/html"}


@pytest.fixture
def run(store: Store) -> str:
    run = runs.start(store, "birds", experiment="songs", name=f"first {NASTY}", capture=False).id
    runs.log(
        store,
        run,
        points=[(name, float(step), step, step) for name in ("loss", "system/cpu_percent") for step in range(5)],
    )
    rows, _ = media.table({"id": list(range(150)), NASTY: [NASTY] * 150}, "rows")
    for path, data in {
        "rows.parquet": rows,
        "broken.parquet": b"PAR1 not really",
        "curve.png": media.png([[0, 255]]),
        "page.html": NASTY.encode(),
        "model.bin": b"\x00\x01",
        f"odd/{NASTY.replace('/', '_')}&?#.txt": b"text",
    }.items():
        artifacts.log_artifact(store, run, path, data)
    notes.add(store, "birds", run, f"{NASTY}\nsecond line")
    return run


@pytest.fixture
def console(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(control.build(App(store, tmp_path), pages.routes), base_url="http://127.0.0.1:5000") as client:
        yield client


def test_the_page_of_a_run_shows_its_notes_files_and_resource_use(console: TestClient, run: str) -> None:
    reply = console.get(f"/console/birds/runs/{run}", headers=HTML)
    assert reply.status_code == 200
    assert NASTY not in reply.text
    assert f'<img src="/api/projects/birds/runs/{run}/artifacts/curve.png"' in reply.text
    assert "second line" in reply.text
    before, _, use = reply.text.partition("<h2>Resource use</h2>")
    assert "system/cpu_percent" in use
    assert "system/cpu_percent" not in before
    twin = console.get(f"/console/birds/runs/{run}.json").json()
    assert [one["kind"] for one in twin["files"]] == ["table", "image", "other", "text", "text", "table"]


def test_each_file_of_a_run_has_a_page_that_runs_nothing(console: TestClient, run: str) -> None:
    here = f"/console/birds/runs/{run}/file"
    for one in console.get(f"/console/birds/runs/{run}.json").json()["files"]:
        reply = console.get(here, params={"path": one["path"]}, headers=HTML)
        assert reply.status_code == 200, one
        assert NASTY not in reply.text
        assert "unsafe" not in reply.headers["content-security-policy"]
    table = console.get(f"{here}.json", params={"path": "rows.parquet"}).json()
    assert (table["count"], len(table["rows"]), table["rows"][1]) == (150, 100, [1, NASTY])
    assert "cannot be read" in console.get(here, params={"path": "broken.parquet"}, headers=HTML).text
    assert console.get(f"{here}.json", params={"path": "page.html"}).json()["text"] == NASTY


@pytest.mark.parametrize("path", ["nothing.txt", "../up", ""])
def test_a_file_that_is_not_there_is_not_found(console: TestClient, run: str, path: str) -> None:
    assert console.get(f"/console/birds/runs/{run}/file", params={"path": path}, headers=HTML).status_code in (400, 404)
    assert console.get(f"/console/other/runs/{run}/file", params={"path": "curve.png"}, headers=HTML).status_code == 404


def test_rows_are_those_that_were_logged(console: TestClient, store: Store, run: str) -> None:
    kept = pl.read_parquet(artifacts.open(store, run, "rows.parquet"))
    assert kept.height == 150
