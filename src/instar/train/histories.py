"""Histories of metrics: all values of one metric in the order of steps, for curves while it trains and long after.

`history` and `histories` give points as records; `points` gives plain tuples, for those who pass on very many.
"""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.database import fetch, moment
from instar.core.store import Store
from instar.train.pages import Page, read_token, write_token
from instar.train.run_records import Metric, require
from instar.train.run_values import number

PointRow = tuple[int, int, float, int]  # step, microseconds since 1970, value, whether it is no number
LatestRow = tuple[str, float, int, int]  # name, value, step, microseconds since 1970

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
    """The same as plain tuples: step, microseconds since 1970, value, and 1 where the value is no number.

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
        query = f"SELECT step, at, value, nan FROM run_metric WHERE run = ? AND name = ?{after}{_ORDER}{end}"
        rows = fetch(tx, query, values)
    if limit is None or len(rows) <= limit:
        return Page(rows)
    return Page(rows[:limit], write_token([key, name], rows[limit - 1]))


def histories(store: Store, runs: Sequence[str], name: str, *, limit: int) -> dict[str, list[Metric]]:
    """The first `limit` values of one metric of each run, by the id that was asked for.

    Raises:
        NotFound: One of the runs is not there.
    """
    with store.database.read() as tx:
        query = f"SELECT step, at, value, nan FROM run_metric WHERE run = ? AND name = ?{_ORDER} LIMIT ?"
        return {run: [_metric(name, row) for row in fetch(tx, query, (require(tx, run), name, limit))] for run in runs}


def latest(store: Store, keys: Sequence[int]) -> dict[int, list[LatestRow]]:
    """The latest value of each metric of runs, with its step and moment, by the runs' keys, in one query."""
    if not keys:
        return {}
    chosen = ",".join(map(str, keys))  # our own numbers: safe to write out, and quicker than to bind
    query = f"SELECT run, name, value, step, at, nan FROM run_latest WHERE run IN ({chosen}) ORDER BY run, name"
    found: dict[int, list[LatestRow]] = {}
    with store.database.read() as tx:
        for run, name, value, step, at, nan in fetch(tx, query):
            found.setdefault(run, []).append((name, number(value, nan) if nan else value, step, at))
    return found


def _metric(name: str, row: PointRow) -> Metric:
    step, at, value, nan = row
    return Metric(name, number(value, nan), step, moment(at))
