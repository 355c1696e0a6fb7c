from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.core import journal, lineage
from instar.core.errors import BadInput, Blocked
from instar.core.store import Store
from instar.data import tables, versions
from instar.operate.reproduce import Reproduction, reproduce
from instar.train import bundles, conditions, environment, runs
from instar.train.tracking_tables import run_table
from tests.operate import again

Make = Callable[..., Reproduction]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return again.write(tmp_path / "lamps")


@pytest.fixture
def ready(store: Store, root: Path) -> str:
    return again.land(store, again.seen())


def test_it_is_identical_after_everything_has_moved_on(store: Store, root: Path, ready: str) -> None:
    run = again.fit(store, root, "steady", {"noise": 0.4})
    again.land(store, again.seen(failing=2))
    for name in ("pipeline.py", "shares.py", "instar.toml", "settings.txt"):
        (root / name).write_text("nothing as it was")
    made = reproduce(store, None, run)
    assert (made.verdict, made.causes, made.comparison.predictions) == ("identical", (), 0.0)
    assert made.environment is None  # its environment is the one that runs


def test_the_repetition_is_on_the_record_with_its_verdict(store: Store, root: Path, ready: str) -> None:
    run = again.fit(store, root, "steady")
    made = reproduce(store, root, run)
    kept = runs.get_run(store, made.repetition)
    assert (kept.state, kept.cause, kept.step) == ("finished", f"reproduces {run}", "steady")
    assert (kept.tags["instar.verdict"], kept.tags["instar.reproduces"]) == ("identical", run)
    assert kept.inputs == [ready]
    assert kept.metrics["cost"] == runs.get_run(store, run).metrics["cost"]
    assert json.loads(store.blobs.get(kept.artifacts["reproduction.json"]))["verdict"] == "identical"
    with store.database.read() as tx:
        assert (run, "was reproduced as") in [(edge.source, edge.relation) for edge in lineage.up(tx, kept.id)]
        (entry,) = journal.entries(tx, "lamps", kind="run reproduced")
        assert (entry.subject, entry.body["verdict"], entry.body["repetition"]) == (run, "identical", kept.id)
        # Nothing was made that could be mistaken for a model of the project.
        assert bundles.of_run(tx, kept.id) == []


def test_every_table_that_a_step_read_is_the_one_of_then(store: Store, root: Path, ready: str) -> None:
    furnished = again.furnish(store, 3)
    run = again.fit(store, root, "in_rooms")
    assert runs.get_run(store, run).inputs == [ready, furnished]
    again.furnish(store, 30)
    assert reproduce(store, root, run).verdict == "identical"
    newest = reproduce(store, root, run, newest=True)
    assert newest.verdict == "different"
    assert newest.causes[0].text == "the input rooms was rooms@1 and is rooms@2"


def test_what_no_seed_sets_is_found_by_doing_it_twice(store: Store, root: Path, ready: str) -> None:
    made = reproduce(store, root, again.fit(store, root, "chancy"))
    assert made.verdict == "different"
    assert made.causes[0].kind == "chance"
    assert "two repetitions differ from each other" in made.causes[0].text


def test_equal_is_within_the_tolerance_that_is_stated(store: Store, root: Path, ready: str) -> None:
    run = again.fit(store, root, "nearly")
    near = reproduce(store, root, run)
    assert (near.verdict, near.causes) == ("equal", ())
    assert near.comparison.predictions is not None
    assert 0.0 < near.comparison.predictions < 1e-8
    assert reproduce(store, root, run, tolerance=0.0).verdict == "different"


def test_todays_data_is_the_first_cause_when_it_is_asked_for(store: Store, root: Path, ready: str) -> None:
    run = again.fit(store, root, "steady")
    again.land(store, again.seen(failing=2))
    made = reproduce(store, root, run, newest=True)
    assert made.verdict == "different"
    assert (made.causes[0].kind, made.causes[0].text) == ("input", "the input lamps was lamps@1 and is lamps@2")
    assert "brier" in made.comparison.metrics


def test_data_that_was_changed_in_the_store_is_found_out(store: Store, root: Path, ready: str) -> None:
    run = again.fit(store, root, "steady")
    version = versions.get(store, "lamps", ready)
    (file,) = versions.files(store, version)
    place = versions.folder(store, "lamps", "lamps") / file.path
    again.seen(failing=2).write_parquet(place)
    made = reproduce(store, root, run)
    assert made.verdict == "different"
    assert made.causes[0].kind == "input"
    assert "was changed after it was recorded" in made.causes[0].text
    place.unlink()
    with pytest.raises(Blocked, match="gone from the store"):
        reproduce(store, root, run)
    # The same rows under another number are as good.
    tables.write_version(store, "lamps", "lamps", "gold", again.seen(failing=2), key=["lamp"], order=["seen"])
    again.land(store, again.seen())
    assert reproduce(store, root, run).verdict == "identical"


def test_declared_files_come_back_and_declared_variables_are_held_to(
    store: Store, root: Path, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMP_COUNTRY", "FI")
    run = again.fit(store, root, "declared")
    kept = runs.get_run(store, run).conditions
    assert kept is not None
    assert b"FI" not in store.blobs.get(kept)  # it may be a secret: nobody said that it is none
    (root / "settings.txt").unlink()
    assert reproduce(store, root, run).verdict == "identical"
    monkeypatch.setenv("LAMP_COUNTRY", "SE")
    made = reproduce(store, root, run)
    assert made.verdict == "different"
    assert (made.causes[0].kind, made.causes[0].name) == ("variable", "LAMP_COUNTRY")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="one processor only")
def test_fewer_processors_are_a_cause_and_more_are_taken_away(store: Store, root: Path, ready: str) -> None:
    whole = os.sched_getaffinity(0)
    two = set(sorted(whole)[:2])
    try:
        os.sched_setaffinity(0, two)
        on_two = again.fit(store, root, "counted")
        os.sched_setaffinity(0, {min(two)})
        made = reproduce(store, root, on_two)
        on_one = again.fit(store, root, "counted")
        os.sched_setaffinity(0, two)
        assert made.verdict == "different"
        assert (made.causes[0].kind, made.causes[0].text) == ("threads", "usable processors was 2 and is 1")
        assert reproduce(store, root, on_one).verdict == "identical"
    finally:
        os.sched_setaffinity(0, whole)


def test_values_of_public_variables_are_kept_and_set_again(
    store: Store, root: Path, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = again.CONTRACT.replace('owner = "ada"', 'owner = "ada"\npublic_variables = ["LAMP_COUNTRY"]')
    (root / "instar.toml").write_text(contract)
    monkeypatch.setenv("LAMP_COUNTRY", "FI")
    run = again.fit(store, root, "declared")
    kept = runs.get_run(store, run).conditions
    assert kept is not None
    assert conditions.load(store.blobs, kept).values == {"LAMP_COUNTRY": "FI"}
    monkeypatch.setenv("LAMP_COUNTRY", "SE")
    assert reproduce(store, root, run).verdict == "identical"
    # One that was not set is known by its digest, and not set again.
    monkeypatch.delenv("LAMP_COUNTRY")
    (root / "instar.toml").write_text(again.CONTRACT)
    unset = again.fit(store, root, "declared")
    monkeypatch.setenv("LAMP_COUNTRY", "FI")
    assert reproduce(store, root, unset).verdict == "identical"


def distribution(folder: Path, version: str, more: float) -> Path:
    """The distribution `noisy`, as installed in a folder."""
    about = folder / f"noisy-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: noisy\nVersion: {version}\n")
    (folder / "noisy.py").write_text(f"MORE = {more}\n")
    return folder


def test_another_version_of_a_library_is_named(
    store: Store, root: Path, ready: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (distribution(tmp_path / v, v, more) for v, more in (("1.0", 0.0), ("2.0", 0.3)))
    inherited = os.environ.get("PYTHONPATH", "")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(old))
        environment._distributions.cache_clear()
        run = again.fit(store, root, "library")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(old), inherited]))
        assert reproduce(store, root, run).verdict == "identical"
    environment._distributions.cache_clear()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(new), inherited]))
    made = reproduce(store, root, run, here=True)
    assert made.verdict == "different"
    assert made.causes[0].text == "noisy was 1.0 and is 2.0"
    # Without it the step cannot even run, which is different as well.
    monkeypatch.setenv("PYTHONPATH", inherited)
    gone = reproduce(store, root, run, here=True)
    assert gone.verdict == "different"
    assert gone.causes[0].text == "noisy 1.0 is not there"
    assert "No module named 'noisy'" in gone.causes[-1].text


def test_runs_that_cannot_be_made_again_say_why(store: Store, root: Path, ready: str) -> None:
    alone = runs.start(store, "lamps", experiment="notes")
    with pytest.raises(Blocked, match="ended well"):
        reproduce(store, root, alone.id)
    runs.finish(store, alone.id)
    with pytest.raises(BadInput, match=r"how it was started .*; its code: it ran neither in a project nor in a git"):
        reproduce(store, root, alone.id)
    notebook = runs.start(store, "lamps", experiment="notes", root=root)
    runs.finish(store, notebook.id)
    with pytest.raises(BadInput, match="how it was started"):
        reproduce(store, root, notebook.id)
    run = again.fit(store, root, "steady")
    code = runs.get_run(store, run).code
    assert code is not None
    store.blobs.delete(code["content"])
    with pytest.raises(Blocked, match="its code is not in the store"):
        reproduce(store, root, run)


def test_a_run_from_before_conditions_were_recorded_is_made_again_too(store: Store, root: Path, ready: str) -> None:
    run = again.fit(store, root, "steady")
    old = run_table.update().where(run_table.c.id == run).values(conditions=None)
    store.database.write(lambda tx: tx.execute(old))
    again.land(store, again.seen(failing=2))
    assert reproduce(store, root, run).verdict == "identical"


def test_a_repetition_that_is_interrupted_is_no_verdict(
    store: Store, root: Path, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = again.fit(store, root, "steady")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce(store, None, run)
    (half,) = [one for one in runs.list_runs(store, "lamps") if one.cause == f"reproduces {run}"]
    assert (half.state, half.tags.get("instar.verdict")) == ("failed", None)
