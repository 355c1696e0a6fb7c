"""Logging to a run: metrics, parameters and tags in one transaction, all or nothing, while it trains and after.

Logging the same again changes nothing, so a client may repeat what it is not sure of. A parameter never changes. Metrics
may still arrive after the run has ended, as they do from a spool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from instar.core.database import Transaction, command, fetch, insert, microseconds, row_lock
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.train.run_records import Metric, require
from instar.train.run_values import (
    MetricRow,
    Point,
    check_key,
    check_name,
    latest,
    metric_rows,
    parameter_rows,
    tag_rows,
)
from instar.train.tracking_tables import ACTIVE

_POINTS_SQLITE = "INSERT OR IGNORE INTO run_metric (run, name, step, at, value, nan) VALUES (?, ?, ?, ?, ?, ?)"
_POINTS_POSTGRES = (
    "INSERT INTO run_metric (run, name, step, at, value, nan) SELECT ?::int, p.* FROM unnest(?::text[], ?::bigint[],"
    " ?::bigint[], ?::float8[], ?::smallint[]) AS p ON CONFLICT DO NOTHING"
)
_NEWER = (
    " ON CONFLICT (run, name) DO UPDATE SET step = excluded.step, at = excluded.at, value = excluded.value, nan = excluded.nan"
    " WHERE (excluded.step, excluded.at, -excluded.nan, excluded.value)"
    " > (run_latest.step, run_latest.at, -run_latest.nan, run_latest.value)"
)
_LATEST_SQLITE = f"INSERT INTO run_latest (run, name, step, at, value, nan) VALUES (?, ?, ?, ?, ?, ?){_NEWER}"
_LATEST_POSTGRES = (
    "INSERT INTO run_latest (run, name, step, at, value, nan) SELECT ?::int, p.* FROM unnest(?::text[], ?::bigint[],"
    f" ?::bigint[], ?::float8[], ?::smallint[]) AS p{_NEWER}"
)


def log(
    store: Store,
    run: str,
    *,
    metrics: Sequence[Metric] = (),
    points: Sequence[Point] = (),
    parameters: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    project: str | None = None,
    also: Callable[[Transaction], None] | None = None,
) -> None:
    """Log to a run, all or nothing; what is there already is left as it is.

    Args:
        metrics: Values of metrics. Equal points are kept once; different values at one step and moment are all kept.
        points: The same as plain tuples of name, value, step and microseconds since 1970, for those who have many.
        parameters: Values that never change: the same again is accepted.
        tags: Texts that replace those of the same name.
        name: What the run is to be called from now on.
        project: The run must be of this project, and `run` its whole id: for callers from elsewhere.
        also: What else belongs to the same transaction.

    Raises:
        BadInput: A name or value cannot be kept.
        NotFound: There is no such run, or not in `project`.
        Conflict: The run is deleted, or a parameter has another value already.
    """
    named = [(metric.name, metric.value, metric.step, microseconds(metric.at)) for metric in metrics]
    rows = metric_rows([*named, *points] if named else points)
    newest = latest(rows)
    given, marks = parameter_rows(parameters or {}), tag_rows(tags or {})
    check_name(name or "")

    def work(tx: Transaction) -> None:
        key = writable(tx, run, project)
        put_parameters(tx, run, key, given)
        put_tags(tx, key, marks)
        put_points(tx, key, rows, newest)
        if name is not None:
            insert(tx, "UPDATE run SET name = ? WHERE key = ?", [(name, key)])
        if also is not None:
            also(tx)

    if rows or given or marks or name is not None:
        # What else is written may hang on other rows than the run's.
        store.database.write(work, shared=also is None)
    else:
        with store.database.read() as tx:
            writable(tx, run, project, lock=False)


def log_metrics(
    store: Store, run: str, metrics: Mapping[str, float], step: int = 0, at: datetime | None = None
) -> None:
    """Log one value of each metric, all at one step and moment: now, unless `at` says otherwise."""
    moment = microseconds(at or store.clock.wall())
    log(store, run, points=[(name, value, step, moment) for name, value in metrics.items()])


def set_tags(store: Store, run: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run, or change them."""
    log(store, run, tags=tags)


def change_tag(store: Store, run: str, key: str, change: Callable[[str | None], str]) -> None:
    """Make a tag's value of the one before (None where there is none): two who do so at once both count.

    Args:
        change: May be called more than once; what it returns is the new value.

    Raises:
        BadInput: The name or the value cannot be kept.
        NotFound: There is no such run.
        Conflict: The run is deleted.
    """

    def work(tx: Transaction) -> None:
        number = writable(tx, run)
        known = fetch(tx, "SELECT value, rest FROM run_tag WHERE run = ? AND name = ?", (number, key))
        put_tags(tx, number, tag_rows({key: change(known[0][0] + (known[0][1] or "") if known else None)}))

    check_key(key, "tag")
    store.database.write(work, shared=True)


def delete_tag(store: Store, run: str, key: str) -> None:
    """Take a tag away.

    Raises:
        NotFound: There is no such run, or it has no such tag.
        Conflict: The run is deleted.
    """

    def work(tx: Transaction) -> None:
        number = writable(tx, run)
        if not fetch(tx, "SELECT 1 FROM run_tag WHERE run = ? AND name = ?", (number, key)):
            raise NotFound("the run has no such tag", subject=f"run {run}", found=key)
        insert(tx, "DELETE FROM run_tag WHERE run = ? AND name = ?", [(number, key)])

    if "\0" in key:
        raise BadInput("the name of a tag has a NUL character", subject=f"run {run}")
    store.database.write(work, shared=True)


def writable(tx: Transaction, run: str, project: str | None = None, *, lock: bool = True) -> int:
    """The key of an active run, whose row is held until the commit.

    Args:
        project: The run must be of this project, and `run` its whole id.

    Raises:
        NotFound: There is no such run.
        Conflict: It is deleted.
    """
    end = row_lock(tx) if lock else ""
    found = fetch(tx, f"SELECT key, lifecycle, project FROM run WHERE id = ?{end}", (run,)) if "\0" not in run else []
    if project is not None and (not found or found[0][2] != project):
        raise NotFound("there is no such run", subject=f"run {run}")  # do not tell of another project's
    if not found:
        number = require(tx, run)  # the beginning of an id, or an error that says what there is
        found = fetch(tx, f"SELECT key, lifecycle, project FROM run WHERE key = ?{end}", (number,))
    key, lifecycle, _ = found[0]
    if lifecycle != ACTIVE:
        raise Conflict(
            "the run is deleted", subject=f"run {run}", found=lifecycle, asked=ACTIVE, next_step="Restore it first."
        )
    return int(key)


def put_parameters(tx: Transaction, run: str, key: int, rows: Sequence[tuple[str, str, str | None, str]]) -> None:
    """Add parameters to a run whose row is held.

    Raises:
        Conflict: One has another value already.
    """
    if not rows:
        return
    marks = ",".join("?" * len(rows))
    query = f"SELECT name, value, rest FROM run_parameter WHERE run = ? AND name IN ({marks})"
    known = {name: (value, rest) for name, value, rest in fetch(tx, query, (key, *(row[0] for row in rows)))}
    for name, value, rest, _ in rows:
        if name in known and known[name] != (value, rest):
            raise Conflict(
                "the parameter has another value already",
                subject=f"run {run}, parameter {name}",
                found="".join(part or "" for part in known[name]),
                asked=value + (rest or ""),
                next_step="A parameter never changes: start another run, or log it as a metric or tag.",
            )
    fresh = [(key, *row) for row in rows if row[0] not in known]
    if fresh:
        insert(tx, "INSERT INTO run_parameter (run, name, value, rest, kind) VALUES (?, ?, ?, ?, ?)", fresh)


def put_tags(tx: Transaction, key: int, rows: Sequence[tuple[str, str, str | None]]) -> None:
    """Add or change tags of a run whose row is held."""
    if rows:
        statement = (
            "INSERT INTO run_tag (run, name, value, rest) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (run, name) DO UPDATE SET value = excluded.value, rest = excluded.rest"
        )
        insert(tx, statement, [(key, *row) for row in rows])


def put_points(tx: Transaction, key: int, rows: Sequence[MetricRow], newest: Sequence[MetricRow]) -> None:
    """Add points of metrics to a run whose row is held, and move its latest values on.

    Args:
        rows: In order, so that one page of the tree after the other is filled, not all by turns.
    """
    if not rows:
        return
    if tx.dialect.name == "postgresql":
        command(tx, _POINTS_POSTGRES, (key, *_arrays(rows)))
        command(tx, _LATEST_POSTGRES, (key, *_arrays(newest)))
    else:
        insert(tx, _POINTS_SQLITE, [(key, *row) for row in rows])
        insert(tx, _LATEST_SQLITE, [(key, *row) for row in newest])


def _arrays(rows: Sequence[MetricRow]) -> list[str]:
    """The columns of rows as PostgreSQL writes arrays: made here in a fifth of the time that the driver takes."""
    names, *numbers = zip(*rows, strict=True)
    known = {name: '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in set(names)}
    texts = [[known[name] for name in names], *(map(repr, column) for column in numbers)]
    return ["{" + ",".join(column) + "}" for column in texts]
