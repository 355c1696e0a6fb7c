"""Calls without an entry of their own are counted on the record, and found there before and after sealing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from instar.core import journal
from instar.core.store import Store
from instar.serve.log import record, sealing, skipped, verification
from instar.serve.log.calls import CallLog
from instar.serve.log.record import Skipped
from instar.serve.log.searching import Query, search
from instar.serve.traffic import routing
from tests.serve.filled import BUNDLE
from tests.serve.writing import BEGIN, Segment

MOMENT = datetime(2023, 11, 14, 22, tzinfo=UTC)


def _skip(
    segment: Segment, minute: int, *, refused: int = 0, answered: int = 0, reason: str = "Overloaded: 9 wait"
) -> None:
    since = int(MOMENT.timestamp() + 60 * minute) * 1_000_000
    segment.put(record.encode_entry(Skipped(since, since + 5_000_000, answered, refused, reason)))


def _route(store: Store) -> None:
    routing.set_policy(store, "flights", "delay", champion=3, bundles={3: BUNDLE}, cause="test")


def test_what_is_counted_is_found_before_and_after_it_is_sealed(store: Store) -> None:
    _route(store)
    segment = Segment(store.folder)
    segment.schema()
    segment.call(BEGIN)
    _skip(segment, 0, refused=7)
    _skip(segment, 3, refused=5, reason="Overloaded: 12 wait")
    _skip(segment, 4, answered=2, reason="OSError: no room")
    log = CallLog(store)
    before = search(store, log, "flights", Query()).counted
    assert [(one.refused, one.answered, one.reason) for one in before] == [
        (12, 0, "Overloaded: 9 wait"),
        (0, 2, "OSError: no room"),
    ]
    assert (before[0].since, before[0].until) == (MOMENT, MOMENT + timedelta(seconds=185))
    assert "12 refused" in str(before[0])
    segment.end()
    sealing.seal(store)
    assert search(store, log, "flights", Query()).counted == before
    assert search(store, CallLog(store), "flights", Query(endpoint="delay")).counted == before
    assert verification.verify(store) == []


def test_a_segment_that_only_counts_goes_and_its_count_stays(store: Store) -> None:
    _route(store)
    segment = Segment(store.folder)
    _skip(segment, 0, refused=3)
    segment.end()
    assert sealing.seal(store) == []
    assert not segment.path.exists()
    (found,) = skipped.search(store, CallLog(store), "flights")
    assert (found.endpoint, found.refused) == ("delay", 3)
    with store.database.read() as tx:
        assert len(journal.entries(tx, "flights", kind=skipped.KIND)) == 1


def test_a_time_that_is_asked_for_bounds_what_is_told(store: Store) -> None:
    _route(store)
    segment = Segment(store.folder)
    _skip(segment, 10, refused=3)
    log = CallLog(store)
    told = [
        len(skipped.search(store, log, "flights", "delay", since, until))
        for since, until in ((None, MOMENT), (MOMENT + timedelta(hours=1), None), (MOMENT, MOMENT + timedelta(hours=1)))
    ]
    assert told == [0, 0, 1]
