"""Runs from any script: what is logged reaches the store of the project here, and what is wrong is said at once."""

from __future__ import annotations

import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import instar
from instar.app import open_app
from instar.core import notes
from instar.core.errors import BadInput, Conflict
from instar.core.store import Store
from instar.interfaces.sdk import origin
from instar.interfaces.sdk.run import Run
from instar.train import artifacts, conditions, datasets, intake, spool
from instar.train import runs as records
from tests.interfaces.test_notes import CONTRACT

WAIT = 60.0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and this process in its folder."""
    for name in ("INSTAR_URL", "INSTAR_STORE", "INSTAR_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "instar.toml").write_text(CONTRACT)
    (tmp_path / "work" / "steps.py").write_text("RATE = 1\n")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def store(here: Path) -> Iterator[Store]:
    with open_app(here) as app:
        yield app.store


Begin = Callable[..., Run]


@pytest.fixture
def begin(here: Path) -> Begin:
    def begin(experiment: str = "late", **about: Any) -> Run:
        return instar.run(experiment, **{"resources": False, "wait_seconds": WAIT, **about})

    return begin


def test_a_run_is_on_the_record_with_all_that_was_said(begin: Begin, store: Store, here: Path) -> None:
    with begin("eco/birds/songs", name="first", parameters={"depth": np.int64(6), "net": [3, 3]}, tags={"n": 1}) as run:
        assert run.id.startswith("run_")
        run.log(loss=0.5, accuracy=np.float32(0.25))
        run.log({"loss": 0.25})
        run.log_metric("loss", math.nan, step=10)
        run.log(loss=1)
        run.log_params(late=True)
        run.tag(stage="two", n=2)
        run.note("a <b>good</b> one")
        run.log_text("text", "said/text.txt")
        run.log_json({"a": np.float64(1)}, "said/value.json")
    found = records.get_run(store, run.id)
    assert (found.project, found.experiment, found.name, found.state) == (
        "parcels",
        "eco/birds/songs",
        "first",
        "finished",
    )
    assert found.parameters == {"depth": 6, "net": [3, 3], "late": True}
    assert found.tags == {"n": "2", "stage": "two"}
    history = records.metric_history(store, run.id, "loss")
    assert [(one.step, repr(one.value)) for one in history] == [(0, "0.5"), (1, "0.25"), (10, "nan"), (11, "1.0")]
    assert [note.text for note in notes.of(store, "parcels", run.id)] == ["a <b>good</b> one"]
    assert artifacts.open(store, run.id, "said/text.txt").read_text() == "text"
    assert artifacts.open(store, run.id, "said/value.json").read_text() == '{\n  "a": 1.0\n}'
    assert found.code is not None
    assert found.environment is not None
    assert found.conditions is not None
    assert conditions.load(store.blobs, found.conditions).command
    assert intake.REFUSED not in found.tags


def test_files_folders_images_figures_and_tables_are_kept(begin: Begin, store: Store, tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "a.bin").write_bytes(b"\x00\x01")
    (tmp_path / "out" / "link").symlink_to("/etc/hostname")

    class Figure:
        def savefig(self, buffer: Any, format: str, bbox_inches: str) -> None:
            buffer.write(b"drawn as " + format.encode())

    with begin() as run:
        run.log_artifact(tmp_path / "out")
        run.log_artifact(tmp_path / "out" / "deep" / "a.bin", as_="other/b.bin")
        run.log_image(np.zeros((2, 3)), "images/black")
        run.log_figure(Figure(), "curves")
        run.log_figure(Figure(), "curves.svg")
        run.log_table({"a": [1, 2], "b": ["x", None]}, "tables/rows")
        for wrong in ("../up", "/etc/x", "a//b", ""):
            with pytest.raises(BadInput, match="relative"):
                run.log_text("x", wrong)
        with pytest.raises(BadInput, match="no such file"):
            run.log_artifact(tmp_path / "nothing")
    found = {one.path for one in artifacts.all_artifacts(store, run.id)}
    assert found - {path for path in found if path.startswith("instar/")} == {
        "out/deep/a.bin", "other/b.bin", "images/black.png", "curves.png", "curves.svg", "tables/rows.parquet",
    }  # fmt: skip
    assert artifacts.open(store, run.id, "curves.svg").read_bytes() == b"drawn as svg"
    assert pl.read_parquet(artifacts.open(store, run.id, "tables/rows.parquet")).rows() == [(1, "x"), (2, None)]


def test_inputs_are_tables_files_addresses_and_frames(begin: Begin, store: Store, tmp_path: Path) -> None:
    from instar.data import tables

    version = tables.write_version(store, "parcels", "songs", "gold", pl.DataFrame({"id": [1]}), key=["id"])
    (tmp_path / "in.csv").write_text("a\n1\n")
    frame = pl.DataFrame({"a": [1, 2]})
    with begin(inputs=["songs@1", tmp_path / "in.csv"]) as run:
        run.log_input(frame, name="two", context="training")
        run.log_input(frame.clone(), name="two", context="training")
        run.log_input(frame.to_pandas(), name="panda")
        run.log_input("s3://bucket/rows.parquet")
        with pytest.raises(BadInput, match="no input"):
            run.log_input("no such file")
    used = {one.dataset.name: one for one in datasets.inputs_of(store, run.id)}
    assert set(used) == {"songs@1", "in.csv", "two", "panda", "rows.parquet"}
    assert used["two"].tags == {datasets.CONTEXT: "training"}
    assert records.get_run(store, run.id).inputs == [version.id]


def test_an_error_fails_the_run_an_interrupt_kills_it_and_an_exit_ends_it(begin: Begin, store: Store) -> None:
    ends = {
        ValueError("no rows"): ("failed", "ValueError: no rows"),
        KeyboardInterrupt(): ("killed", "KeyboardInterrupt"),
        SystemExit(3): ("failed", "SystemExit: 3"),
        SystemExit(0): ("finished", None),
    }
    for error, wanted in ends.items():
        with pytest.raises(type(error)), begin() as run:
            raise error
        found = records.get_run(store, run.id)
        assert (found.state, found.error) == wanted


def test_what_is_wrong_is_said_at_once(begin: Begin) -> None:
    for experiment in ("", "a//b", "x" * 600):
        with pytest.raises(BadInput, match="experiment"):
            instar.run(experiment)
    with begin(parameters={"depth": 6}) as run:
        with pytest.raises(BadInput, match="value of a metric"):
            run.log(loss="low")
        with pytest.raises(BadInput, match="name"):
            run.log({"": 1.0})
        with pytest.raises(Conflict, match="set once"):
            run.log_params(depth=7)
        run.log_params(depth=6)
        with pytest.raises(BadInput, match="text of a note"):
            run.note(" ")
    for late in (lambda: run.log(loss=1), lambda: run.tag(a=1), lambda: run.log_text("x", "x")):
        with pytest.raises(Conflict, match="ended"):
            late()
    run.finish()  # again is nothing


def test_runs_within_runs_and_plain_objects(begin: Begin, store: Store) -> None:
    run = begin()
    children = [run.child(f"fold {number}", parameters={"fold": number}) for number in range(2)]
    for number, child in enumerate(children):
        child.log(score=number)
        child.finish()
    run.finish()
    for number, child in enumerate(children):
        found = records.get_run(store, child.id)
        assert found.tags[intake.PARENT] == run.id
        assert (found.experiment, found.parameters, found.metrics) == ("late", {"fold": number}, {"score": number})
        assert found.code == records.get_run(store, run.id).code
        assert found.tags.keys() == {intake.PARENT}
    assert run.id < children[0].id < children[1].id


def test_threads_log_at_once_and_no_point_is_lost(begin: Begin, store: Store) -> None:
    with begin() as run:
        threads = [threading.Thread(target=lambda: [run.log(a=1.0, step=0) for _ in range(200)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(records.metric_history(store, run.id, "a")) == 1600


def test_forked_and_spawned_children_log_to_the_run(begin: Begin, store: Store) -> None:
    with begin() as run:
        child = os.fork()
        if child == 0:
            try:
                run.log(forked=1.0)
                run.log(forked=2.0)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        handed: Run = pickle.loads(pickle.dumps(run))  # as a worker process gets it
        handed.log(spawned=3.0)
        handed.finish()  # its part ends, not the run
        run.log(own=4.0)
    found = records.get_run(store, run.id)
    assert found.metrics == {"forked": 2.0, "spawned": 3.0, "own": 4.0}
    assert found.state == "finished"
    assert len(records.metric_history(store, run.id, "forked")) == 2


def test_resource_use_is_recorded_at_least_once(begin: Begin, store: Store) -> None:
    with begin(resources=3600) as run:
        pass
    assert {"system/cpu_percent", "system/process_memory_mb"} <= records.get_run(store, run.id).metrics.keys()


def test_outside_of_any_project_a_run_stays_in_the_user_s_spool_and_the_way_on_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("INSTAR_URL", "INSTAR_STORE", "INSTAR_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with instar.run("late", resources=False, wait_seconds=0) as run:
        run.log(a=1.0)
    assert "instar runs sync" in capsys.readouterr().err
    (folder,) = spool.runs(tmp_path / "state" / "instar" / "spool")
    assert folder.name == run.id
    assert not spool.is_alive(folder, spool.MAIN)


def test_a_notebook_s_cells_are_kept(
    begin: Begin, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Shell:
        def __init__(self) -> None:
            self.user_ns: dict[str, Any] = {"In": ["", "import instar", "run.log(a=1)"]}

    shell = Shell()
    monkeypatch.setattr(origin, "_shell", lambda: shell)
    with begin() as run:
        shell.user_ns["In"].append("run.finish()")
    cells = artifacts.open(store, run.id, origin.CELLS).read_text()
    assert cells.split("# %%\n")[1:] == ["import instar\n\n", "run.log(a=1)\n\n", "run.finish()\n\n"]
    (tmp_path / "a.ipynb").write_text('{"cells": []}')
    shell.user_ns["__vsc_ipynb_file__"] = str(tmp_path / "a.ipynb")
    assert origin.source() == {origin.NOTEBOOK: b'{"cells": []}'}


def test_nothing_that_cannot_be_described_stops_a_training(
    begin: Begin, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from instar.train import code, environment

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(environment, "capture", broken)
    monkeypatch.setattr(code, "capture", broken)
    with begin() as run:
        run.log(a=1.0)
    found = records.get_run(store, run.id)
    assert (found.environment, found.code, found.metrics) == (None, None, {"a": 1.0})
    assert "the environment of this run cannot be kept" in caplog.text


def test_a_record_that_no_server_would_take_is_lost_alone_and_on_the_record(
    begin: Begin, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with begin() as run:
        run.log_params(huge="x" * 17_000_000)
        run.log_params(small=1)
    found = records.get_run(store, run.id)
    assert found.parameters == {"small": 1}
    assert found.tags[intake.LOST].startswith("1: a record of")
    assert "keep it as a file" in caplog.text


def test_where_no_spool_can_be_made_another_place_is_taken_and_the_training_goes_on(
    begin: Begin, here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (here / ".instar").write_text("a file where the store should be")
    with begin(wait_seconds=0) as run:
        run.log(a=1.0)
    (folder,) = spool.runs(here.parent / "state" / "instar" / "spool")
    assert folder.name == run.id
    assert "no spool can be made" in caplog.text


def test_in_a_folder_for_everybody_only_what_is_ours_is_filled(
    begin: Begin, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared, theirs = tmp_path / "shared", tmp_path / "theirs"
    for folder in (shared, theirs):
        folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    (here / ".instar").write_text("a file where the store should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(here / ".instar"))
    place = shared / f"instar-{os.getuid()}"
    place.symlink_to(theirs)
    with begin(wait_seconds=0) as run:
        run.log(a=1.0)
    assert "is not recorded" in caplog.text
    assert list(theirs.iterdir()) == []
    place.unlink()
    with begin(wait_seconds=0) as run:
        run.log(a=1.0)
    assert [folder.name for folder in spool.runs(place)] == [run.id]
    assert place.stat().st_mode & 0o777 == 0o700


def test_where_there_is_no_room_at_all_the_training_goes_on_unrecorded(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "create", full)
    with begin() as run:
        run.log(a=1.0)
        run.tag(a=1)
        run.log_text("x", "x")
    assert "is not recorded" in caplog.text


def test_a_file_for_which_there_is_no_room_is_lost_and_counted_and_the_training_goes_on(
    begin: Begin, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with begin() as run:
        with monkeypatch.context() as full:

            def no_room(*_: Any, **__: Any) -> None:
                raise OSError(28, "No space left on device")

            full.setattr(Path, "write_bytes", no_room)
            run.log_text("x", "notes/a.txt")
        run.log_text("y", "notes/b.txt")
    assert "loses the file notes/a.txt" in caplog.text
    found = {one.path for one in artifacts.all_artifacts(store, run.id)}
    assert "notes/b.txt" in found
    assert "notes/a.txt" not in found
    assert records.get_run(store, run.id).tags[intake.LOST].startswith("1: the file notes/a.txt")


def test_numbers_of_other_libraries_and_numbers_beyond_64_bits_are_kept(begin: Begin, store: Store) -> None:
    with begin("exp_baseline", parameters={"seed": 2**128 + 1, "vast": 10**9999}) as run:
        run.log(loss=0.5, step=np.int64(3))
        run.log(loss=0.25, step=4.0)  # type: ignore[arg-type]
        for wrong in (1.5, "1", 2**63):
            with pytest.raises(BadInput, match="no step"):
                run.log(loss=0.1, step=wrong)  # type: ignore[arg-type]
    found = records.get_run(store, run.id)
    assert (found.experiment, found.parameters["seed"]) == ("exp_baseline", str(2**128 + 1))
    assert found.parameters["vast"].startswith("0x")
    assert [one.step for one in records.metric_history(store, run.id, "loss")] == [3, 4]
    for wrong_name in ("a\0b", "a//b", ""):
        with pytest.raises(BadInput, match="no experiment"):
            begin(wrong_name)


def test_importing_the_part_that_logs_loads_no_heavy_library() -> None:
    import subprocess

    code = "import sys, instar; instar.run; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"sqlalchemy", "polars", "numpy", "pyarrow", "httpx2", "psutil"}


def test_the_chance_of_the_training_is_left_alone(begin: Begin) -> None:
    import random

    from instar.interfaces.sdk import sender

    random.seed(7)
    before = random.getstate()
    with begin() as run:
        run.log(loss=1)
        assert 0.5 <= sender.pause_seconds(1, ended=False) <= 1.0
    assert random.getstate() == before
