"""Cutting a table into rows to fit on, to decide on and to judge on, before any model sees them.

Always by time, and the latest rows judge: a model is used on days that it has not seen, so it is judged on such days. The
`decide` rows choose among trials and set the threshold; the `judge` rows are for the gates alone.

    fit ───────────────────────────────▶│ decide ─────▶│ judge ─────▶│ until
                                        -28 d          -14 d         (excluded)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from instar.core.errors import ContractError
from instar.core.ids import digest_of
from instar.data.content import of_rows

if TYPE_CHECKING:
    from instar.plan.project import Split


@dataclass(frozen=True)
class Part:
    """One part of a cut: its rows, and a digest of where it was cut and of what is in it.

    Attributes:
        name: `"fit"`, `"decide"` or `"judge"`.
        rows: The rows, in the table's order.
        since, until: Event times, from `since` (included; None is the beginning) to `until` (excluded), in UTC.
        digest: Equal when the bounds and the rows are equal.
    """

    name: str
    rows: pl.DataFrame
    since: datetime | None
    until: datetime
    digest: str


@dataclass(frozen=True)
class Cut:
    """The three parts of a table."""

    fit: pl.DataFrame
    decide: pl.DataFrame
    judge: pl.DataFrame
    parts: tuple[Part, Part, Part]

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each part by name."""
        return {part.name: part.digest for part in self.parts}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Bounds, rows and digest of each part, for records."""
        return {
            part.name: {
                "since": part.since.isoformat() if part.since else None,
                "until": part.until.isoformat(),
                "rows": part.rows.height,
                "digest": part.digest,
            }
            for part in self.parts
        }


def cut(frame: pl.DataFrame, split: Split, event_time: str, until: datetime | None = None) -> Cut:
    """Cut `frame` by time into fit, decide and judge rows.

    Args:
        frame: The gold table, one row an example.
        split: The contract's split.
        event_time: The table's column of event time.
        until: Rows at or after this moment are left out; None takes all rows.

    Raises:
        ContractError: The column is missing or holds no times, some rows have none, or a part would be empty.
    """
    times = _times(frame, event_time)
    last = times.max()
    if not isinstance(last, datetime):
        raise _refused("there are no rows to cut", event_time, found=f"{frame.height} rows")
    end = last + timedelta(microseconds=1)
    if until is not None:
        end = until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)
    judged_from = end - split.judge
    decided_from = judged_from - split.decide
    parts = (
        _part("fit", frame, times, None, decided_from),
        _part("decide", frame, times, decided_from, judged_from),
        _part("judge", frame, times, judged_from, end),
    )
    for part in parts:
        if part.rows.height == 0:
            raise _refused(
                f"no row is left to {part.name} on",
                event_time,
                found=f"{frame.height} rows up to {last}",
                asked=f"rows from {part.since or 'the beginning'} to {part.until}",
            )
    return Cut(parts[0].rows, parts[1].rows, parts[2].rows, parts)


def _times(frame: pl.DataFrame, column: str) -> pl.Series:
    if column not in frame.columns:
        raise _refused("the table has no such column", column, found=", ".join(frame.columns))
    times = frame[column]
    if times.dtype == pl.Date:
        times = times.cast(pl.Datetime("us"))
    if not isinstance(times.dtype, pl.Datetime):
        raise _refused("the column holds no times", column, found=str(times.dtype), asked="dates or datetimes")
    if times.null_count():
        raise _refused("rows without a time cannot be cut by it", column, found=f"{times.null_count()} rows with null")
    if times.dtype.time_zone is None:
        times = times.dt.replace_time_zone("UTC")
    return times.dt.convert_time_zone("UTC").dt.cast_time_unit("us")


def _part(name: str, frame: pl.DataFrame, times: pl.Series, since: datetime | None, until: datetime) -> Part:
    inside = times < until
    if since is not None:
        inside = inside & (times >= since)
    rows = frame.filter(inside)
    bounds = [since.isoformat() if since else None, until.isoformat()]
    return Part(name, rows, since, until, digest_of({"bounds": bounds, "rows": of_rows(rows)}))


def _refused(what: str, column: str, found: object = None, asked: object = None) -> ContractError:
    return ContractError(
        what,
        subject=f"split by {column!r}",
        found=found,
        asked=asked,
        next_step="Give the table more history, or shorten `decide` and `judge` in the problem's split.",
    )
