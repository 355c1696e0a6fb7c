"""Schedules: when the contract asks for the next retraining (`schedule:…`) or run (`cron`), in event time.

>>> from datetime import datetime, UTC
>>> due("monthly", datetime(2013, 3, 31, 23, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC))
True
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from instar.core.errors import ContractError
from instar.plan.project import SCHEDULES


def period_start(schedule: str, moment: datetime) -> datetime:
    """Beginning of the calendar period (UTC) that `moment` lies in; weeks begin on Monday.

    Raises:
        ContractError: There is no such schedule.
    """
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    match schedule:
        case "hourly":
            return hour
        case "daily":
            return day
        case "weekly":
            return day - timedelta(days=day.weekday())
        case "monthly":
            return day.replace(day=1)
    raise ContractError("there is no such schedule", found=repr(schedule), asked=", ".join(SCHEDULES))


def due(schedule: str, last: datetime | None, now: datetime) -> bool:
    """Has a new calendar period begun since `last`?

    Args:
        schedule: `"hourly"`, `"daily"`, `"weekly"` or `"monthly"`.
        last: When it was done last; None: never, so it is due.
        now: Event time. Periods that were missed are made up for once, not once each.
    """
    start = period_start(schedule, now)
    return last is None or last < start


def next_time(cron: str, zone: str, after: datetime) -> datetime:
    """The first moment after `after` that a cron expression names, read in a time zone.

    >>> next_time("0 3 * * *", "Europe/Berlin", datetime(2026, 7, 1, tzinfo=UTC)).isoformat()
    '2026-07-01T01:00:00+00:00'
    """
    from cronsim import CronSim

    return next(CronSim(cron, after.astimezone(ZoneInfo(zone)))).astimezone(UTC)


def latest_time(cron: str, zone: str, since: datetime, now: datetime) -> datetime | None:
    """The last moment after `since` and not after `now` that a cron expression names: missed ones are made up for once."""
    from cronsim import CronSim

    ahead = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for found in CronSim(cron, ahead.astimezone(ZoneInfo(zone)), reverse=True):
        moment = found.astimezone(UTC)
        if moment <= now:
            return moment if moment > since else None
    return None
