from __future__ import annotations

import math
import subprocess
from pathlib import Path

import msgspec
import pytest

from instar.core import journal, lineage
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.train import code, conditions, environment, run_records, runs


def test_a_run_is_on_the_record_before_it_does_anything(store: Store, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pipeline.py").write_text("x = 1\n")
    run = runs.start(
        store,
        "p",
        experiment="delay",
        step="trees",
        parameters={"depth": 3},
        inputs=["tver_1"],
        root=project,
        cause="ada",
    )
    kept = runs.get_run(store, run.id)
    assert (kept.state, kept.parameters, kept.inputs, kept.ended) == ("running", {"depth": 3}, ["tver_1"], None)
    assert kept.environment is not None
    assert "numpy" in environment.load(store.blobs, kept.environment).distributions
    assert kept.code is not None
    assert store.blobs.has(kept.code["content"])
    with store.database.read() as tx:
        assert [edge.source for edge in lineage.up(tx, run.id)] == ["tver_1"]


def test_metrics_keep_their_history_and_show_the_latest(store: Store) -> None:
    run = runs.start(store, "p", experiment="e")
    for step, value in enumerate([0.5, math.nan, 0.25]):
        runs.log_metrics(store, run.id, {"loss": value, "other": step}, step)
    history = runs.metric_history(store, run.id, "loss")
    assert [metric.step for metric in history] == [0, 1, 2]
    assert math.isnan(history[1].value)
    assert runs.get_run(store, run.id).metrics == {"loss": 0.25, "other": 2.0}
    with pytest.raises(NotFound):
        runs.log_metrics(store, "run_none", {"loss": 1.0})


def test_the_end_of_a_run_is_journalled_once_and_is_final(store: Store) -> None:
    run = runs.start(store, "p", experiment="e")
    assert runs.finish(store, run.id).state == "finished"
    assert runs.finish(store, run.id).ended == runs.get_run(store, run.id).ended
    with pytest.raises(Conflict, match="ended"):
        runs.fail(store, run.id, "late")
    with store.database.read() as tx:
        assert [(entry.kind, entry.subject) for entry in journal.entries(tx, "p")] == [("run ended", run.id)]
        assert journal.verify(tx, "p").broken_at is None


def test_a_block_that_raises_fails_its_run_with_the_error(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), runs.running(store, "p", experiment="e") as run:
        raise KeyboardInterrupt
    assert runs.get_run(store, run.id).state == "failed"
    with runs.running(store, "p", experiment="e") as good:
        pass
    assert runs.get_run(store, good.id).state == "finished"


def test_lists_the_newest_first_and_by_what_is_asked(store: Store) -> None:
    first = runs.start(store, "p", experiment="a", step="s")
    second = runs.start(store, "p", experiment="b")
    runs.start(store, "other", experiment="a")
    runs.fail(store, second.id, ValueError("no"))
    assert [run.id for run in runs.list_runs(store, "p")] == [second.id, first.id]
    assert [run.id for run in runs.list_runs(store, "p", experiment="a")] == [first.id]
    assert [run.error for run in runs.list_runs(store, "p", state="failed")] == ["ValueError: no"]


def test_only_runs_of_dead_processes_are_abandoned(store: Store) -> None:
    run = runs.start(store, "p", experiment="a", step="s")
    assert runs.abandon(store, "p", "s") == 0
    gone = subprocess.Popen(["true"])
    gone.wait()
    change = run_records.run_table.update().where(run_records.run_table.c.id == run.id).values(process=gone.pid)
    store.database.write(lambda tx: tx.execute(change))
    assert runs.abandon(store, "p", "s") == 1
    assert runs.abandon(store, "p", "s") == 0
    assert runs.get_run(store, run.id).state == "abandoned"
    with store.database.read() as tx:
        (entry,) = journal.entries(tx, "p", subject=run.id)
    assert (entry.kind, entry.body["state"]) == ("run ended", "abandoned")
    with pytest.raises(Conflict):
        runs.finish(store, run.id)


def test_a_run_of_another_machine_is_not_taken_for_dead(store: Store) -> None:
    here = conditions.capture()
    gone = subprocess.Popen(["true"])
    gone.wait()
    made = {
        name: runs.start(store, "p", experiment="a", step="s", conditions=msgspec.structs.replace(here, host=host)).id
        for name, host in (
            ("ours", here.host),
            ("restarted", f"{here.host.split(' ')[0]} boot"),
            ("theirs", "far boot"),
        )
    }
    change = run_records.run_table.update().values(process=gone.pid)
    store.database.write(lambda tx: tx.execute(change))
    assert runs.abandon(store, "p", "s") == 2
    assert {name: runs.get_run(store, run).state for name, run in made.items()} == {
        "ours": "abandoned", "restarted": "abandoned", "theirs": "running",
    }  # fmt: skip


def test_a_run_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    run = runs.start(store, "p", experiment="e")
    assert runs.get_run(store, run.id[:-4]).id == run.id
    runs.start(store, "p", experiment="e")
    with pytest.raises(NotFound, match="more than one"):
        runs.get_run(store, "run_")
    with pytest.raises(NotFound, match="no such run"):
        runs.get_run(store, "tver_1")


def test_artifacts_stay_within_their_run(store: Store, tmp_path: Path) -> None:
    run = runs.start(store, "p", experiment="e")
    digest = runs.log_artifact(store, run.id, "plots/roc.txt", b"curve")
    assert runs.get_run(store, run.id).artifacts == {"plots/roc.txt": digest}
    (tmp_path / "again.txt").write_bytes(b"better")
    assert store.blobs.get(runs.log_artifact(store, run.id, "plots/roc.txt", tmp_path / "again.txt")) == b"better"
    for path in ("/etc/passwd", "../outside", ""):
        with pytest.raises(BadInput):
            runs.log_artifact(store, run.id, path, b"")


def test_code_is_the_commit_what_differs_and_a_zip_that_depends_on_content_alone(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "p"
    (root / ".venv").mkdir(parents=True)
    (root / ".venv" / "library.py").write_text("secret = 1")
    (root / "pipeline.py").write_text("x = 1\n")
    assert code.capture(store.blobs, root).commit is None
    first = code.digest(root)
    (root / "pipeline.py").touch()
    (root / "notes.md").write_text("not code")
    assert code.digest(root) == first
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "pipeline.py"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    clean = code.capture(store.blobs, root)
    assert clean.commit is not None
    assert clean.diff is None
    (root / "pipeline.py").write_text("x = 2\n")
    dirty = code.capture(store.blobs, root)
    assert dirty.commit == clean.commit
    assert dirty.diff is not None
    assert b"+x = 2" in store.blobs.get(dirty.diff)
    assert dirty.content != clean.content == first


def test_the_lock_belongs_to_the_environment(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "checkout" / "example"
    root.mkdir(parents=True)
    (tmp_path / "checkout" / ".git").mkdir()
    (tmp_path / "uv.lock").write_text("outside the checkout")
    without = environment.capture(root)
    assert without.lock is None
    (tmp_path / "checkout" / "uv.lock").write_text('hash = "sha256:1"')
    found = environment.capture(root)
    assert (found.lock_file, found.hashed) == ("uv.lock", True)
    digest = environment.save(store.blobs, found, root)
    assert environment.load(store.blobs, digest) == found
    assert found.lock is not None
    assert store.blobs.get(found.lock) == b'hash = "sha256:1"'
    assert environment.differences(found, found) == {}
