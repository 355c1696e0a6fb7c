"""When a schedule asks for the next retraining."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from instar.core.errors import ContractError
from instar.plan.schedule import due, period_start

NOW = datetime(2013, 4, 3, 10, 30, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("schedule", "start"),
    [
        ("hourly", datetime(2013, 4, 3, 10, tzinfo=UTC)),
        ("daily", datetime(2013, 4, 3, tzinfo=UTC)),
        ("weekly", datetime(2013, 4, 1, tzinfo=UTC)),
        ("monthly", datetime(2013, 4, 1, tzinfo=UTC)),
    ],
)
def test_is_due_once_in_each_period(schedule: str, start: datetime) -> None:
    assert period_start(schedule, NOW) == start
    assert due(schedule, None, NOW)
    assert due(schedule, start - timedelta(seconds=1), NOW)
    assert not due(schedule, start, NOW)
    assert not due(schedule, NOW, NOW)


def test_missed_periods_are_made_up_for_once() -> None:
    assert due("daily", NOW - timedelta(days=9), NOW)
    assert not due("daily", NOW, NOW + timedelta(minutes=1))


def test_periods_are_those_of_utc() -> None:
    east = timezone(timedelta(hours=10))
    assert period_start("daily", datetime(2013, 4, 4, 6, tzinfo=east)) == datetime(2013, 4, 3, tzinfo=UTC)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ContractError, match="fortnightly"):
        due("fortnightly", NOW, NOW)
