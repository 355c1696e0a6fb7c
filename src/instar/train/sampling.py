"""Histories made short by the database: some points, or one summary a bucket, of curves too long to draw point by point.

sampled(store, run.id, "loss", buckets=200)          # smallest, largest, mean, first and last value of each bucket
intervals(store, [a, b], "loss", max_results=300)    # points spread evenly over each history, its ends among them
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from instar.core.database import Transaction, fetch, moment
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train.histories import POINT, PointRow
from instar.train.run_records import require
from instar.train.run_values import number

MOST = 25_000  # points or buckets of one run


@dataclass(frozen=True)
class Bucket:
    """What a stretch of a history has: as many points as its neighbours, within one.

    Attributes:
        minimum: Of the values that are numbers, infinities among them; NaN when there is none. So for maximum and mean.
        count: How many values there are.
        nans: How many of them are no number.
        first: The value at the bucket's first step.
    """

    step_from: int
    step_to: int
    at_from: datetime
    at_to: datetime
    minimum: float
    maximum: float
    mean: float
    count: int
    nans: int
    first: float
    last: float


# A share of the smallest numbers is no float any more, which PostgreSQL takes for an error: it counts as 0.
# Bucket b of B has the places from ceil(b n / B) to ceil((b + 1) n / B) - 1, so its ends are known without a second look.
_BUCKETS = """
    WITH place AS (
        SELECT step, at, value, nan, row_number() OVER (ORDER BY step, at, value, nan) - 1 AS number
        FROM run_metric WHERE run = ? AND name = ?{range}
    ), cut AS (
        SELECT step, at, value, nan, number, number * {buckets} / {count} AS bucket FROM place
    )
    SELECT min(step), max(step), min(at), max(at),
        min(CASE WHEN nan = 0 THEN value END), max(CASE WHEN nan = 0 THEN value END),
        sum(CASE WHEN nan = 0 THEN CASE WHEN abs(value) < 1e-290 THEN 0.0 ELSE value / {count} END END),
        count(*), sum(nan),
        max(CASE WHEN number = (bucket * {count} + {buckets} - 1) / {buckets} THEN value END),
        max(CASE WHEN number = (bucket * {count} + {buckets} - 1) / {buckets} THEN nan END),
        max(CASE WHEN number = ((bucket + 1) * {count} + {buckets} - 1) / {buckets} - 1 THEN value END),
        max(CASE WHEN number = ((bucket + 1) * {count} + {buckets} - 1) / {buckets} - 1 THEN nan END)
    FROM cut GROUP BY bucket ORDER BY bucket
"""

# Places that begin one of B stretches, the longer ones first, as SQL's NTILE(B) cuts them; the last stretch gives its end.
_SPREAD = """
    WITH place AS (
        SELECT step, at, value, nan, row_number() OVER (ORDER BY step, at, value, nan) - 1 AS number
        FROM run_metric WHERE run = ? AND name = ?{range}
    )
    SELECT {point} FROM place
    WHERE number = {count} - 1 OR number < {last} AND (
        number < {edge} AND number % ({size} + 1) = 0 OR number >= {edge} AND (number - {edge}) % {size} = 0
    )
    ORDER BY number
"""


def sampled(
    store: Store,
    run: str,
    name: str,
    *,
    buckets: int,
    start_step: int | None = None,
    end_step: int | None = None,
) -> list[Bucket]:
    """A history as at most so many buckets of equally many points, in the order of steps.

    Raises:
        NotFound: There is no such run.
        BadInput: So many buckets cannot be made.
    """
    _check_most(buckets)
    with store.database.read() as tx:
        key = require(tx, run)
        span, values = _span(key, name, start_step, end_step)
        count = _count(tx, span, values)
        if count == 0:
            return []
        query = _BUCKETS.format(range=span, buckets=min(buckets, count), count=count)
        return [_bucket(row, count) for row in fetch(tx, query, values)]


def intervals(
    store: Store,
    runs: Sequence[str],
    name: str,
    *,
    max_results: int,
    start_step: int | None = None,
    end_step: int | None = None,
) -> dict[str, list[PointRow]]:
    """Points of one metric of each run, by the id that was asked for: all, or `max_results` spread evenly over its history.

    The first and the last point are always among them (with one result, the last), as MLflow's bulk interval has it.

    Raises:
        NotFound: One of the runs is not there.
        BadInput: Only one end of the steps is given, or so many results cannot be had.
    """
    _check_most(max_results)
    if (start_step is None) != (end_step is None):
        raise BadInput("a range of steps has two ends", found=f"{start_step} to {end_step}")
    with store.database.read() as tx:
        keys = [(run, require(tx, run)) for run in runs]
        return {run: _spread(tx, *_span(key, name, start_step, end_step), max_results) for run, key in keys}


def document(bucket: Bucket) -> dict[str, Any]:
    """A bucket as JSON: times in ISO 8601, values that JSON does not have as null."""
    values = {name: getattr(bucket, name) for name in ("minimum", "maximum", "mean", "first", "last")}
    return {
        "step_from": bucket.step_from,
        "step_to": bucket.step_to,
        "at_from": bucket.at_from.isoformat(),
        "at_to": bucket.at_to.isoformat(),
        **{name: value if math.isfinite(value) else None for name, value in values.items()},
        "count": bucket.count,
        "nans": bucket.nans,
    }


def _spread(tx: Transaction, span: str, values: Sequence[object], most: int) -> list[PointRow]:
    count = _count(tx, span, values)
    if count <= most:
        query = f"SELECT {POINT} FROM run_metric WHERE run = ? AND name = ?{span} ORDER BY step, at, value, nan"
        return fetch(tx, query, values)
    size, longer = divmod(count, most)
    edge = longer * (size + 1)
    query = _SPREAD.format(point=POINT, range=span, count=count, size=size, edge=edge, last=count - size)
    return fetch(tx, query, values)


def _span(key: int, name: str, start: int | None, end: int | None) -> tuple[str, list[object]]:
    values: list[object] = [key, name.replace("\0", "")]
    span = ""
    for sign, step in ((">=", start), ("<=", end)):
        if step is not None:
            span += f" AND step {sign} ?"
            values.append(max(-(2**63), min(2**63 - 1, step)))
    return span, values


def _count(tx: Transaction, span: str, values: Sequence[object]) -> int:
    return int(fetch(tx, f"SELECT count(*) FROM run_metric WHERE run = ? AND name = ?{span}", values)[0][0])


def _check_most(most: int) -> None:
    if not 1 <= most <= MOST:
        raise BadInput("so many points cannot be had", found=most, asked=f"1 to {MOST}")


def _bucket(row: Sequence[Any], whole: int) -> Bucket:
    minimum, maximum, share = (math.nan if value is None else float(value) for value in row[4:7])
    count, nans, first, first_nan, last, last_nan = row[7:13]
    # Shares of the whole are added up, not the values: the sum of large values is too large for a float.
    mean = share * (whole / (count - nans)) if count > nans else math.nan
    return Bucket(
        row[0], row[1], moment(row[2]), moment(row[3]), minimum, maximum, mean, int(count), int(nans),
        number(first, first_nan), number(last, last_nan),
    )  # fmt: skip
