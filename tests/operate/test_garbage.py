from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from instar.app import open_store
from instar.core import ids, journal, notes
from instar.core.clock import SystemClock
from instar.core.errors import BadInput, NotFound
from instar.core.store import Store
from instar.data import tables, versions
from instar.operate import garbage, references
from instar.operate.reproduce import reproduce
from instar.release import packing, registered_models, registry
from instar.train import artifacts, bundles, environment, experiments, logged_models, model_links, runs
from tests.operate import again
from tests.train import folders

OLD = timedelta(days=3)


class MovedClock(SystemClock):
    """The machine's clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def wall(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def store(tmp_path: Path, clock: MovedClock) -> Iterator[Store]:
    folder = tmp_path / "store"
    opened = open_store(folder, f"sqlite:///{folder / 'instar.db'}", clock)
    yield opened
    opened.database.close()


def kinds(report: garbage.Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in report.gone:
        found.setdefault(item.kind, []).append(item.name)
    return found


def later(store: Store, clock: MovedClock, by: timedelta = OLD) -> None:
    """Time goes by; what is put from now on is put then."""
    clock.ahead += by


def collect(store: Store, *, dry_run: bool = False) -> garbage.Report:
    return garbage.collect(store, "lamps", dry_run=dry_run)


def test_what_no_record_names_goes_after_the_grace(store: Store, clock: MovedClock) -> None:
    run = runs.start(store, "lamps", experiment="e")
    kept = runs.log_artifact(store, run.id, "plot.png", b"a picture")
    lost = store.blobs.put(b"put before a crash, and never recorded")
    assert collect(store).gone == ()
    later(store, clock)
    fresh = store.blobs.put(b"put a moment ago")
    moment = clock.wall().timestamp()
    os.utime(store.blobs.path(fresh), (moment, moment))
    half = store.folder / "blobs" / "tmp_of_a_killed_writer"
    half.write_bytes(b"half a blob")
    planned = collect(store, dry_run=True)
    assert store.blobs.has(lost)
    assert half.exists()
    report = collect(store)
    assert kinds(planned) == kinds(report) == {"blob": [lost, half.name]}
    assert not half.exists()
    assert report.gone[0].size == len(b"put before a crash, and never recorded")
    assert [store.blobs.has(one) for one in (kept, lost, fresh)] == [True, False, True]
    with store.database.read() as tx:
        (entry,) = journal.entries(tx, "lamps", kind="garbage collected")
        assert entry.body["blobs"] == 1
        assert journal.verify(tx, "lamps").consistent


def test_what_a_kept_blob_names_is_kept_to_the_last_link(store: Store, clock: MovedClock, tmp_path: Path) -> None:
    root = again.write(tmp_path / "lamps")
    version = again.land(store, again.seen())
    run = again.fit(store, root, "declared")
    made = runs.get_run(store, run)
    later(store, clock)
    assert collect(store).gone == ()
    (root / "settings.txt").unlink()
    assert reproduce(store, None, run).verdict == "identical"
    assert tables.scan(store, versions.get(store, "lamps", version)).collect().height == 240
    assert made.environment is not None
    assert environment.load(store.blobs, made.environment).python


def test_a_deleted_run_goes_with_all_that_is_its_own(store: Store, clock: MovedClock) -> None:
    gone, stays = (runs.start(store, "lamps", experiment="e", parameters={"a": 1}, tags={"b": "c"}) for _ in range(2))
    for run in (gone, stays):
        runs.log_metrics(store, run.id, {"loss": 0.5})
        runs.log_artifact(store, run.id, "shared.txt", b"both have it")
    own = runs.log_artifact(store, gone.id, "own.txt", b"one has it")
    both = ids.digest(b"both have it")
    notes.add(store, "lamps", gone.id, "no good")
    runs.delete(store, gone.id)
    assert kinds(collect(store)) == {}
    later(store, clock)
    assert kinds(collect(store, dry_run=True)) == {"run": [gone.id], "blob": [own]}
    assert runs.get_run(store, gone.id).lifecycle == "deleted"
    assert kinds(collect(store)) == {"run": [gone.id], "blob": [own]}
    with pytest.raises(NotFound):
        runs.get_run(store, gone.id)
    assert runs.get_run(store, stays.id).metrics == {"loss": 0.5}
    assert store.blobs.has(both)
    with store.database.read() as tx:
        present = {name: len(tx.execute(table.select()).all()) for name, table in _tables().items()}
        (entry,) = journal.entries(tx, "lamps", kind="deleted for good")
    assert present == {"run": 1, "run_parameter": 1, "run_tag": 1, "run_metric": 1, "run_latest": 1, "note": 0}
    assert entry.body["runs"] == [gone.id]


def _tables() -> dict[str, object]:
    from instar.core.database import metadata

    names = ("run", "run_parameter", "run_tag", "run_metric", "run_latest", "note")
    return {name: metadata.tables[name] for name in names}


def test_a_deleted_experiment_goes_with_its_runs_and_gives_nothing_back(store: Store, clock: MovedClock) -> None:
    group = experiments.create(store, "lamps", "old ideas", {"team": "lights"})
    run = runs.start(store, "lamps", experiment=group.id)
    runs.finish(store, run.id)
    experiments.delete(store, group.id)
    later(store, clock)
    report = kinds(collect(store))
    assert report["run"] == [run.id]
    assert report["experiment"] == [group.id]
    with pytest.raises(NotFound):
        experiments.get(store, group.id)


def test_a_run_stays_when_its_model_was_registered_and_the_reason_is_said(
    store: Store, clock: MovedClock, tmp_path: Path
) -> None:
    root = again.write(tmp_path / "lamps")
    again.land(store, again.seen())
    registered, present = again.fit(store, root, "steady"), again.fit(store, root, "steady", {"noise": 0.7})
    with store.database.read() as tx:
        (bundle,) = bundles.of_run(tx, registered)
    version = registry.register(store, "lamps", "fails", bundle=bundle, origin="ad hoc", cause="test")
    for run in (registered, present):
        runs.delete(store, run)
    later(store, clock)
    report = collect(store)
    assert kinds(report).keys() <= {"blob"}
    why = {item.name: item.reason for item in report.kept}
    assert version.id in why[registered]
    assert "registered version" in why[registered]
    assert "present output of its step" in why[present]
    assert reproduce_needs(store, bundle)
    # Once another fit is its step's output, the one that nobody registered may go.
    again.fit(store, root, "steady", {"noise": 0.1})
    later(store, clock)
    report = collect(store)
    assert kinds(report)["run"] == [present]
    assert len(kinds(report)["bundle"]) == 1
    with store.database.read() as tx:
        assert bundles.of_run(tx, present) == []


def reproduce_needs(store: Store, bundle: str) -> bool:
    from instar.train.bundle import load_manifest, parts

    return all(store.blobs.has(part) for part in parts(load_manifest(store.blobs, bundle)).values())


def test_a_run_stays_while_what_came_of_it_stays(store: Store, clock: MovedClock, tmp_path: Path) -> None:
    root = again.write(tmp_path / "lamps")
    again.land(store, again.seen())
    run = again.fit(store, root, "steady")
    repetition = reproduce(store, root, run).repetition
    again.fit(store, root, "steady", {"noise": 0.9})
    runs.delete(store, run)
    later(store, clock)
    (item,) = collect(store).kept
    assert (item.name, item.reason) == (run, f"it was reproduced as {repetition}, which stays")
    runs.delete(store, repetition)
    later(store, clock)
    assert set(kinds(collect(store))["run"]) == {run, repetition}


def test_a_logged_model_goes_with_its_run_unless_another_run_reads_it(store: Store, clock: MovedClock) -> None:
    owner, reader = (runs.start(store, "lamps", experiment="e") for _ in range(2))
    model = logged_models.create(store, "lamps", experiment=owner.experiment_id, name="net", run=owner.id)
    model_links.link(store, reader.id, model_links.READ, [(model.id, 0)])
    runs.delete(store, owner.id)
    later(store, clock)
    (kept,) = collect(store).kept
    assert reader.id in kept.reason
    runs.delete(store, reader.id)
    later(store, clock)
    found = kinds(collect(store))
    assert set(found["run"]) == {owner.id, reader.id}
    assert found["model"] == [model.id]


def logged(store: Store, run: runs.Run, text: bytes) -> logged_models.LoggedModel:
    """A model that was logged, ready, with two files of its own."""
    made = logged_models.create(store, "lamps", experiment=run.experiment_id, name="net", run=run.id, tags={"a": "b"})
    files = {"MLmodel": folders.mlmodel({"python_function": folders.pyfunc("own")}), "weights.bin": text}
    for path, data in files.items():
        artifacts.log_artifact(store, made.id, path, data)
    return packing.pack_logged(store, made)


def test_a_deleted_logged_model_goes_alone_and_its_run_stays(store: Store, clock: MovedClock) -> None:
    run = runs.start(store, "lamps", experiment="e")
    gone, stays = logged(store, run, b"one"), logged(store, run, b"two")
    notes.add(store, "lamps", run.id, "look at the first one")
    logged_models.delete(store, gone.id)
    assert kinds(collect(store)) == {}
    later(store, clock)
    listed = kinds(collect(store, dry_run=True))
    assert (listed["model"], listed["bundle"]) == ([gone.id], [gone.bundle])
    assert ids.digest(b"one") in listed["blob"]
    assert ids.digest(b"two") not in listed["blob"]
    assert logged_models.get(store, gone.id, deleted=True).id == gone.id  # a dry run removes nothing
    assert kinds(collect(store)) == listed
    with pytest.raises(NotFound):
        logged_models.get(store, gone.id, deleted=True)
    assert not store.blobs.has(ids.digest(b"one"))
    assert store.blobs.has(ids.digest(b"two"))
    assert runs.get_run(store, run.id).lifecycle == "active"
    assert logged_models.get(store, stays.id).tags == {"a": "b"}
    with store.database.read() as tx:
        assert bundles.of_run(tx, run.id) == [stays.bundle]
        (entry,) = journal.entries(tx, "lamps", kind="deleted for good")
        assert (entry.body["models"], entry.body["bundles"], entry.body["count"]) == ([gone.id], [gone.bundle], 0)
        assert journal.verify(tx, "lamps").consistent
    assert kinds(collect(store)) == {}


def test_a_deleted_logged_model_stays_while_something_refers_to_it(store: Store, clock: MovedClock) -> None:
    run, reader = (runs.start(store, "lamps", experiment="e") for _ in range(2))
    registered, read = logged(store, run, b"registered"), logged(store, run, b"read")
    registered_models.create(store, "lamps", "net")
    version = registry.register_logged(
        store, "lamps", "net", bundle=str(registered.bundle), source="models:/m", logged_model=registered.id
    )
    model_links.link(store, reader.id, model_links.READ, [(read.id, 0)])
    for one in (registered, read):
        logged_models.delete(store, one.id)
    later(store, clock)
    for dry_run in (True, False):
        report = collect(store, dry_run=dry_run)
        assert "model" not in kinds(report)
        why = {item.name: (item.kind, item.reason) for item in report.kept}
        assert why[registered.id] == ("model", f"the registered version {version.id} refers to it")
        assert why[read.id] == ("model", f"it was read by {reader.id}, which stays")
    # With the run that read it, and only then, it goes.
    runs.delete(store, reader.id)
    later(store, clock)
    assert kinds(collect(store))["model"] == [read.id]


def test_two_logged_models_that_are_the_same_bundle_keep_it_for_each_other(store: Store, clock: MovedClock) -> None:
    run = runs.start(store, "lamps", experiment="e")
    gone, stays = logged(store, run, b"same"), logged(store, run, b"same")
    assert gone.bundle == stays.bundle
    logged_models.delete(store, gone.id)
    later(store, clock)
    found = kinds(collect(store))
    assert (found["model"], found.get("bundle")) == ([gone.id], None)
    assert store.blobs.has(str(stays.bundle))


def test_a_run_of_a_logged_model_goes_though_its_bundle_is_the_newest(store: Store, clock: MovedClock) -> None:
    run = runs.start(store, "lamps", experiment="e")
    model = logged(store, run, b"newest")
    runs.delete(store, run.id)
    later(store, clock)
    report = collect(store)
    assert (kinds(report)["run"], report.kept) == ([run.id], ())
    assert kinds(report)["model"] == [model.id]


def test_a_restored_run_is_not_purged(store: Store, clock: MovedClock) -> None:
    run = runs.start(store, "lamps", experiment="e")
    runs.delete(store, run.id)
    later(store, clock)
    runs.restore(store, run.id)
    assert collect(store).gone == ()


def test_a_grace_that_writers_may_outlast_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="shorter than a writer"):
        garbage.collect(store, "lamps", grace=timedelta(seconds=30))


def test_a_writer_who_puts_the_same_again_meanwhile_loses_nothing(store: Store) -> None:
    """Every blob is old; a writer puts each again while a collector removes each: what was put is there."""
    data = [f"bytes {number}".encode() for number in range(300)]
    digests = [store.blobs.put(one) for one in data]
    for digest in digests:
        os.utime(store.blobs.path(digest), (1e9, 1e9))
    before = datetime.now(UTC) - timedelta(hours=1)
    missed: list[str] = []

    def write() -> None:
        for one in data:
            digest = store.blobs.put(one)
            if not store.blobs.has(digest):
                missed.append(digest)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    removed = [digest for digest in reversed(digests) if store.blobs.collect(digest, before) is not None]
    for writer in writers:
        writer.join()
    assert missed == []
    assert all(store.blobs.get(digest) == one for digest, one in zip(digests, data, strict=True))
    assert removed  # or nothing was tried


def test_records_of_every_table_count_as_names(store: Store) -> None:
    digest = store.blobs.put(b"named by a table that this program does not know")

    def work(tx: sa.Connection) -> set[str]:
        tx.execute(sa.text("CREATE TABLE of_tomorrow (id VARCHAR(20) PRIMARY KEY, about TEXT)"))
        tx.execute(sa.text("INSERT INTO of_tomorrow VALUES ('one', :text)"), {"text": f'{{"file": "{digest}"}}'})
        return references.digests_named(tx)

    assert digest in store.database.write(work)


def test_on_postgresql_as_well(postgres_database: str, tmp_path: Path, clock: MovedClock) -> None:
    store = open_store(tmp_path / "store", postgres_database, clock)
    try:
        run = runs.start(store, "lamps", experiment="e", parameters={"a": 1})
        own = runs.log_artifact(store, run.id, "own.txt", b"one has it")
        runs.delete(store, run.id)
        later(store, clock)
        assert kinds(collect(store, dry_run=True))["run"] == [run.id]
        assert runs.get_run(store, run.id).id == run.id
        assert own in kinds(collect(store))["blob"]
        other = runs.start(store, "lamps", experiment="e")
        model = logged(store, other, b"one")
        logged_models.delete(store, model.id)
        later(store, clock)
        assert kinds(collect(store))["model"] == [model.id]
        with pytest.raises(NotFound):
            runs.get_run(store, run.id)
    finally:
        store.database.close()
