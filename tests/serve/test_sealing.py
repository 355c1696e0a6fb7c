from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
import sqlalchemy as sa

from instar.core import journal
from instar.core.store import Store
from instar.serve import catalogue, sealed_table, sealing, segments
from instar.serve.calls import CallLog
from tests.serve.filled import HOUR, fill
from tests.serve.writing import BEGIN, Segment


@pytest.fixture
def filled(store: Store) -> list[Segment]:
    return fill(store)


def test_the_log_reads_the_same_before_and_after(store: Store, filled: list[Segment]) -> None:
    watching = CallLog(store)
    before = watching.read("delay")
    sealed = sealing.seal(store)
    assert [one.id for one in sealed] == [segment.name.id for segment in filled]
    assert watching.read("delay").equals(before)
    fresh = CallLog(store)
    assert fresh.read("delay").equals(before)
    window = (BEGIN + 3 * HOUR, BEGIN + 21 * HOUR)
    assert fresh.read("delay", *window).equals(watching.read("delay", *window))
    call = before["call"][4]
    assert fresh.find(f"{call}/0") == watching.find(f"{call}/0")
    assert fresh.seen(call)
    assert not fresh.seen(call[:8] + "Z" + call[9:])
    assert fresh.endpoints() == ["delay"]


def test_files_go_after_the_grace_and_nothing_is_sealed_twice(store: Store, filled: list[Segment]) -> None:
    sealing.seal(store)
    before = CallLog(store).read("delay")
    assert sealing.seal(store) == []
    assert all(segment.path.exists() for segment in filled)
    sealing.seal(store, grace_seconds=-1)
    assert not any(segment.path.exists() for segment in filled)
    assert CallLog(store).read("delay").equals(before)
    with store.database.read() as tx:
        kinds = [(entry.kind, entry.subject) for entry in journal.entries(tx, "flights", kind="segment sealed")]
    assert kinds == [("segment sealed", segment.name.id) for segment in filled]


def test_a_reader_that_slept_through_the_sealing_and_the_grace_misses_nothing(store: Store) -> None:
    segment = Segment(store.folder)
    segment.schema()
    segment.call(BEGIN)
    log = CallLog(store)
    assert log.read("delay").height == 1
    segment.call(BEGIN + HOUR)
    segment.end()
    sealing.seal(store)
    sealing.seal(store, grace_seconds=-1)
    assert not segment.path.exists()
    assert log.read("delay").height == 2


def test_sealing_at_once_from_several_processes_appends_once(store: Store, filled: list[Segment]) -> None:
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: sealing.seal(store), range(3)))
    assert sorted(len(sealed) for sealed in done) == [0, 0, 2]
    table = catalogue.table_folder(store.folder, "flights", "delay")
    assert pl.read_delta(str(table)).height == CallLog(store).read("delay").height


def test_a_commit_that_no_record_names_is_taken_back(store: Store, filled: list[Segment]) -> None:
    before = CallLog(store).read("delay")
    sealing.seal(store)
    # As after a crash: the rows are in the table, and the transaction that names them never was.
    tables = (catalogue.segment, catalogue.call_unit, catalogue.call_table)
    store.database.write(lambda tx: [tx.execute(sa.delete(table)) for table in tables])
    again = sealing.seal(store)
    assert [one.id for one in again] == [segment.name.id for segment in filled]
    table = catalogue.table_folder(store.folder, "flights", "delay")
    assert pl.read_delta(str(table)).height == before.height
    assert CallLog(store).read("delay").equals(before)


def test_what_another_program_did_to_the_table_is_put_right_and_journalled(store: Store, filled: list[Segment]) -> None:
    sealing.seal(store)
    table = catalogue.table_folder(store.folder, "flights", "delay")
    before = pl.read_delta(str(table))
    before.head(1).write_delta(str(table), mode="append")
    assert sealed_table.repair(store, "flights", "delay")
    assert not sealed_table.repair(store, "flights", "delay")
    assert pl.read_delta(str(table)).height == before.height
    with store.database.read() as tx:
        (entry,) = journal.entries(tx, "flights", kind="prediction table put right")
    assert len(entry.body["unwanted"]) == 1


def test_an_open_segment_waits_and_a_dead_gateways_is_recovered(store: Store) -> None:
    segment = Segment(store.folder)
    segment.schema()
    segment.call(BEGIN)
    with segment.path.open("ab") as file:
        file.write(b"torn")
    lock = segments.BootLock(store.folder / "calls", segment.name.boot)
    assert sealing.seal(store) == []
    lock.release()
    (sealed,) = sealing.seal(store)
    assert (sealed.calls, sealed.frames) == (1, 3)
    assert sealed.gaps == ()  # a torn tail is no damage: no answer waited for it


def test_a_segment_without_a_call_is_only_removed(store: Store) -> None:
    segment = Segment(store.folder)
    segment.end()
    assert sealing.seal(store) == []
    assert not segment.path.exists()
