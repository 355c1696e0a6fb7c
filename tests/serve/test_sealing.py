from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from instar.core import journal
from instar.core.store import Store
from instar.serve import calls, routing, sealing, segments
from instar.serve.calls import CallLog
from instar.serve.record import Answer, Personal
from instar.serve.sealing import Fault
from tests.serve.writing import BEGIN, Segment

HOUR = timedelta(hours=1)


@pytest.fixture
def filled(store: Store) -> list[Segment]:
    """Two closed segments of one gateway: many calls, a failure, shadows, a person, two signatures."""
    routing.set_policy(store, "flights", "delay", champion=3, bundles={3: "b3:x"}, cause="test")
    made = []
    for number in range(2):
        segment = Segment(store.folder, number=number)
        segment.schema()
        for n in range(5):
            call = segment.call(BEGIN + (2 * n + number) * HOUR, laters=1)
            segment.later(call, Answer(1, "rule", [0.1], [0], 0.3))
        segment.call(BEGIN + 20 * HOUR, ([1.0, 2.0], None), rows=2, personal=Personal({}, ["E1", "E2"], "key"))
        segment.failed(BEGIN + 21 * HOUR)
        if number:
            segment.schema((("distance", "FP64", False), ("wind", "FP64", False)), 1)
            segment.call(BEGIN + 22 * HOUR, ([1.0], [2.0]), signature=1)
        segment.end()
        made.append(segment)
    return made


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
    table = calls.table_folder(store.folder, "flights", "delay")
    assert pl.read_delta(str(table)).height == CallLog(store).read("delay").height


def test_a_crash_between_the_table_and_the_record_repeats_nothing(store: Store, filled: list[Segment]) -> None:
    before = CallLog(store).read("delay")
    first = sealing.seal(store)
    # As after a crash: the rows are in the table, and the transaction that names them never was.
    store.database.write(lambda tx: tx.execute(sa.delete(calls.segment)))
    again = sealing.seal(store)
    assert [(one.delta_version, one.files, one.root) for one in again] == [
        (o.delta_version, o.files, o.root) for o in first
    ]
    table = calls.table_folder(store.folder, "flights", "delay")
    assert pl.read_delta(str(table)).height == before.height


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
    assert not segment.path.read_bytes().endswith(b"torn")


def test_a_segment_without_a_call_is_only_removed(store: Store) -> None:
    segment = Segment(store.folder)
    segment.end()
    assert sealing.seal(store) == []
    assert not segment.path.exists()


def test_verification_holds_and_chains_follow(store: Store, filled: list[Segment]) -> None:
    one, two = sealing.seal(store)
    assert sealing.verify(store) == sealing.verify(store, "delay") == []
    assert one.chain != two.chain


def change_a_byte(store: Store, one: calls.Sealed) -> None:
    path = table_file(store, one)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def remove_the_file(store: Store, one: calls.Sealed) -> None:
    table_file(store, one).unlink()


def forget_the_segment(store: Store, one: calls.Sealed) -> None:
    store.database.write(lambda tx: tx.execute(sa.delete(calls.segment).where(calls.segment.c.id == one.id)))


def count_it_otherwise(store: Store, one: calls.Sealed) -> None:
    changed = sa.update(calls.segment).where(calls.segment.c.id == one.id).values(calls=99)
    store.database.write(lambda tx: tx.execute(changed))


def table_file(store: Store, one: calls.Sealed) -> Path:
    (file,) = one.files
    return calls.table_folder(store.folder, one.project, one.endpoint) / file


@pytest.mark.parametrize("tamper", [change_a_byte, remove_the_file, forget_the_segment, count_it_otherwise])
def test_verification_names_the_segment_that_was_touched(
    store: Store, filled: list[Segment], tamper: Callable[[Store, calls.Sealed], None]
) -> None:
    one = sealing.seal(store)[0]
    tamper(store, one)
    assert one.id in [fault.segment for fault in sealing.verify(store)]


@pytest.mark.parametrize("change", ["drop", "swap", "edit"])
def test_frames_prove_their_rows_even_where_the_catalogue_was_made_to_fit(
    store: Store, filled: list[Segment], change: str
) -> None:
    """Somebody rewrites a file of the table and its digest in the catalogue: the journal still tells."""
    one = sealing.seal(store)[0]
    path = table_file(store, one)
    rows = pl.read_parquet(path)
    if change == "drop":
        rows = rows.slice(1)
    elif change == "swap":
        rows = rows.reverse()
    else:
        rows = rows.with_columns(pl.lit(0.99).alias("score"))
    rows.write_parquet(path)
    assert sealing.verify(store) == [Fault(one.id, f"its file {path.name} was changed")]
