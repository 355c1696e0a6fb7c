"""Histories of metrics: all values of one metric in the order of steps, for curves while it trains and long after.

`history` and `histories` give points as records; `points` and `latest` give plain tuples, for those who pass on very many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from instar.core.database import Transaction, fetch, moment, stream
from instar.core.store import Store
from instar.train.pages import Page, read_token, write_token
from instar.train.run_pages import chosen
from instar.train.run_records import Metric, require

PointRow = tuple[int, int, float | None]  # step, microseconds since 1970, value; None where it is no number
LatestRow = tuple[int, str, float | None, int, int]  # run, name, value as above, step, microseconds since 1970

POINT = "step, at, CASE WHEN nan = 0 THEN value END"  # columns of a point
_AFTER = " AND (step, at, value, nan) > (?, ?, ?, ?)"
_ORDER = " ORDER BY step, at, value, nan"


def metric_history(store: Store, run: str, name: str) -> list[Metric]:
    """All values of one metric, in the order of steps."""
    return list(history(store, run, name).items)


def history(store: Store, run: str, name: str, *, limit: int | None = None, token: str | None = None) -> Page[Metric]:
    """Values of one metric in the order of steps, then of moments, then of values; a page of them, given a limit.

    Raises:
        NotFound: There is no such run.
        BadInput: The token is not of this history.
    """
    found = points(store, run, name, limit=limit, token=token)
    return Page([_metric(name, row) for row in found.items], found.token)


def points(store: Store, run: str, name: str, *, limit: int | None = None, token: str | None = None) -> Page[PointRow]:
    """The same as plain tuples: step, microseconds since 1970, value; None where the value is no number.

    Raises:
        NotFound: There is no such run.
        BadInput: The token is not of this history.
    """
    if "\0" in name:
        return Page([])
    with store.database.read() as tx:
        key = require(tx, run)
        values: list[object] = [key, name]
        after = ""
        if token:
            after = _AFTER
            values += read_token([key, name], token, 4)
        end = f" LIMIT {limit + 1}" if limit is not None else ""
        query = f"SELECT {POINT} FROM run_metric WHERE run = ? AND name = ?{after}{_ORDER}{end}"
        rows = fetch(tx, query, values)
    if limit is None or len(rows) <= limit:
        return Page(rows)
    step, at, value = rows[limit - 1]
    place = (step, at, 0.0, 1) if value is None else (step, at, value, 0)
    return Page(rows[:limit], write_token([key, name], place))


def every_point(tx: Transaction, run: int, name: str) -> Iterable[PointRow]:
    """All points of the run of that key, one by one while the transaction is open, so that a long history costs no memory."""
    if "\0" in name:
        return ()
    return stream(tx, f"SELECT {POINT} FROM run_metric WHERE run = ? AND name = ?{_ORDER}", (run, name))


def histories(store: Store, runs: Sequence[str], name: str, *, limit: int) -> dict[str, list[Metric]]:
    """The first `limit` values of one metric of each run, by the id that was asked for.

    Raises:
        NotFound: One of the runs is not there.
    """
    with store.database.read() as tx:
        query = f"SELECT {POINT} FROM run_metric WHERE run = ? AND name = ?{_ORDER} LIMIT ?"
        return {run: [_metric(name, row) for row in fetch(tx, query, (require(tx, run), name, limit))] for run in runs}


def latest(tx: Transaction, keys: Sequence[int]) -> Iterable[LatestRow]:
    """The latest value of each metric of runs, one by one while the transaction is open; those of one run together, by name."""
    if not keys:
        return ()
    columns = "run, name, CASE WHEN nan = 0 THEN value END, step, at"
    return stream(tx, f"SELECT {columns} FROM run_latest WHERE run IN ({chosen(keys)}) ORDER BY run, name")


def _metric(name: str, row: PointRow) -> Metric:
    step, at, value = row
    return Metric(name, math.nan if value is None else value, step, moment(at))
