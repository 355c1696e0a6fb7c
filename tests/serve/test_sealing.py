from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
import sqlalchemy as sa

from instar.core import journal
from instar.core.store import Store
from instar.serve.log import catalogue, erasing, merging, sealed_table, sealing, segments, verification
from instar.serve.log.calls import CallLog
from instar.serve.log.searching import Query, condition, search
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


def test_an_input_whose_type_changed_is_sealed_beside_what_was(store: Store) -> None:
    """A table has one type by column; whole numbers that became text must not stop sealing, nor change what was said."""
    kinds: list[tuple[str, object]] = [("FP64", 1.5), ("INT64", 7), ("BYTES", "far"), ("FP64", 2.5)]
    for number, (kind, value) in enumerate(kinds):
        segment = Segment(store.folder, number=number)
        segment.schema((("distance", kind, False),))
        segment.call(BEGIN + number * HOUR, ([value],))
        segment.end()
    before = CallLog(store).read("delay")
    assert len(sealing.seal(store, grace_seconds=-1)) == 4
    assert CallLog(store).read("delay").equals(before)
    assert verification.verify(store) == []
    table = pl.read_delta(str(catalogue.table_folder(store.folder, "delay", "delay")))
    assert sorted(table["inputs"].struct.field("distance").drop_nulls().to_list()) == [1.5, 2.5]
    for asked, value in (("distance=7", 7), ("distance<2", 1.5)):
        found = search(store, CallLog(store), "delay", Query(inputs=(condition(asked),))).rows
        assert [row["inputs"]["distance"] for row in found] == [value]
    erasing.ask(store, "delay", erasing.Selector("input", "far", "distance"), "request 1")
    assert [one.predictions for one in erasing.carry_out(store)] == [1]
    assert "far" not in CallLog(store).read("delay")["inputs"].struct.field("distance").to_list()
    assert verification.verify(store) == []


def test_the_delta_table_hears_of_a_segment_under_its_id_and_any_reader_skips_by_call(
    store: Store, filled: list[Segment]
) -> None:
    import json

    sealing.seal(store)
    log = catalogue.table_folder(store.folder, "flights", "delay") / "_delta_log"
    actions = [json.loads(line) for file in sorted(log.glob("*.json")) for line in file.read_text().splitlines()]
    assert [one["txn"]["appId"] for one in actions if "txn" in one] == [segment.name.id for segment in filled]
    stats = [json.loads(one["add"]["stats"]) for one in actions if "add" in one]
    assert [(one["minValues"]["call"], one["maxValues"]["call"]) for one in stats] == [
        (one.first_call, one.last_call) for one in catalogue.units(store)
    ]


def test_readers_see_one_log_while_it_is_sealed_merged_and_swept(store: Store) -> None:
    fill(store, 4)
    whole = CallLog(store).read("delay")
    stop = threading.Event()
    seen: list[bool] = []

    def watch() -> None:
        log = CallLog(store)
        while not stop.is_set():
            seen.append(log.read("delay").equals(whole) and CallLog(store).read("delay").equals(whole))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        sealing.seal(store)
        merging.merge(store)
        sealing.seal(store)
        stop.set()
        watching.result()
    assert seen
    assert all(seen)


def test_the_clients_own_id_is_kept_and_a_retried_request_is_a_new_call(store: Store, filled: list[Segment]) -> None:
    sealing.seal(store)
    rows = search(store, CallLog(store), "flights", Query(request_id="mine", limit=1000)).rows
    assert len({row["call"] for row in rows}) == 13
    assert {row["request_id"] for row in rows} == {"mine"}
