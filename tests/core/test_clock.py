"""Event time moves only forward, and only with a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from instar.core.clock import EventClock, SystemClock

NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)


def test_event_time_is_moved_by_hand_and_never_back() -> None:
    clock = EventClock(NEW_YEAR)
    clock.advance_to(NEW_YEAR + timedelta(days=1))
    clock.advance_to(NEW_YEAR)
    assert clock.event() == NEW_YEAR + timedelta(days=1)
    assert clock.wall() > NEW_YEAR + timedelta(days=365)


def test_event_time_is_utc() -> None:
    clock = EventClock(datetime(2013, 1, 1, tzinfo=timezone(timedelta(hours=-5))))
    assert clock.event() == NEW_YEAR + timedelta(hours=5)
    assert clock.event().tzinfo == UTC


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        EventClock(datetime(2013, 1, 1))


def test_the_machine_s_clock_counts_up() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.event().tzinfo == UTC
