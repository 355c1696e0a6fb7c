"""Time, handed in: event time drives windows, schedules and rollouts; wall and monotonic time drive ids, leases, latency.

On a running platform both are the same clock. A replay hands in an `EventClock`, and a year passes in minutes.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a stage may ask about time. All datetimes are aware, in UTC."""

    def wall(self) -> datetime:
        """The time at which a record is written."""

    def event(self) -> datetime:
        """The time at which things happen in the world that is served."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""


class SystemClock:
    """The machine's clock: event time is wall time."""

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def event(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class EventClock(SystemClock):
    """A clock whose event time is moved by hand, for replays and tests; it never runs backwards."""

    def __init__(self, start: datetime) -> None:
        self._now = _utc(start)

    def event(self) -> datetime:
        return self._now

    def advance_to(self, moment: datetime) -> None:
        """Move event time forward; a moment in the past changes nothing."""
        self._now = max(self._now, _utc(moment))


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"naive time {moment.isoformat()}: give a time zone")
    return moment.astimezone(UTC)
