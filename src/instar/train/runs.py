"""Runs: the record of each training or ad hoc trial, written before its first user line runs and closed when it ends.

    run = start(store, "flights", experiment="delay", step="delay_trees", parameters={...}, root=project.root)
    log_metrics(store, run.id, {"cost": 0.51})
    finish(store, run.id)                                  # or fail(store, run.id, error)

An experiment is a named group of runs; a model step's runs have the name of its problem.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Transaction
from instar.core.errors import BadInput, Conflict
from instar.core.store import Store
from instar.train import code, environment
from instar.train import conditions as conditioning
from instar.train.conditions import Conditions
from instar.train.run_records import (
    ABANDONED,
    FAILED,
    FINISHED,
    RUNNING,
    Metric,
    Run,
    artifact_table,
    complete,
    document,
    get_run,
    list_runs,
    metric_history,
    metric_table,
    require,
    run_table,
)

__all__ = [
    "ABANDONED",
    "FAILED",
    "FINISHED",
    "RUNNING",
    "Metric",
    "Run",
    "abandon",
    "document",
    "fail",
    "finish",
    "get_run",
    "list_runs",
    "log_artifact",
    "log_metrics",
    "metric_history",
    "running",
    "set_tags",
    "start",
]

LONGEST_ERROR = 4000  # characters; the rest of a message has rarely helped anybody


def start(
    store: Store,
    project: str,
    *,
    experiment: str,
    step: str | None = None,
    execution: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    inputs: Sequence[str] = (),
    root: Path | None = None,
    cause: str = "user",
    conditions: Conditions | None = None,
) -> Run:
    """Put a run on the record, with its environment and, given the project's folder `root`, its code.

    Args:
        conditions: What it is made under; default this process's hardware, threads and chance, and no more.
    """
    # Blobs first, record second: what the record names is there.
    described = environment.save(store.blobs, environment.capture(root), root)
    kept = conditioning.save(store.blobs, conditions or conditioning.capture(root=root))
    run = Run(
        id=ids.new_id("run"),
        project=project,
        experiment=experiment,
        step=step,
        execution=execution,
        parameters=dict(parameters or {}),
        tags=dict(tags or {}),
        state=RUNNING,
        error=None,
        inputs=list(inputs),
        code=code.describe(code.capture(store.blobs, root)) if root is not None else None,
        environment=described,
        conditions=kept,
        cause=cause,
        actor=store.actor.name,
        process=os.getpid(),
        event_at=store.clock.event(),
        started=store.clock.wall(),
    )
    values = {column.name: getattr(run, column.name) for column in run_table.columns}

    def work(tx: Transaction) -> None:
        tx.execute(run_table.insert().values(values))
        for version in run.inputs:
            lineage.link(tx, project, version, "was read by", run.id)
        if execution is not None:
            lineage.link(tx, project, execution, "ran", run.id)

    store.database.write(work)
    return run


def log_metrics(store: Store, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log values of metrics. The same name, step and moment again replaces the value."""
    now = store.clock.wall()
    rows = [
        {"run": run, "name": name, "step": step, "at": now, "value": None if math.isnan(value) else float(value)}
        for name, value in metrics.items()
    ]
    keys = [row["name"] for row in rows]

    def work(tx: Transaction) -> None:
        require(tx, run)
        same = (metric_table.c.run == run) & (metric_table.c.step == step) & (metric_table.c.at == now)
        tx.execute(metric_table.delete().where(same, metric_table.c.name.in_(keys)))
        tx.execute(metric_table.insert(), rows)

    if rows:
        store.database.write(work)


def log_artifact(store: Store, run: str, path: str, data: bytes | Path) -> str:
    """Keep a file with a run under a relative path; returns its digest.

    Raises:
        BadInput: `path` is absolute or leaves the run.
    """
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise BadInput(
            "an artifact's path is relative", subject=f"run {run}", found=path, asked="such as plots/roc.png"
        )
    digest = store.blobs.put(data) if isinstance(data, bytes) else store.blobs.put_file(data)
    size = len(data) if isinstance(data, bytes) else data.stat().st_size

    def work(tx: Transaction) -> None:
        require(tx, run)
        tx.execute(artifact_table.delete().where(artifact_table.c.run == run, artifact_table.c.path == path))
        tx.execute(artifact_table.insert().values(run=run, path=path, blob=digest, size=size))

    store.database.write(work)
    return digest


def set_tags(store: Store, run: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run, or change them."""

    def work(tx: Transaction) -> None:
        known = require(tx, run)
        tx.execute(run_table.update().where(run_table.c.id == run).values(tags={**known.tags, **tags}))

    store.database.write(work)


def finish(store: Store, run: str) -> Run:
    """End a run well.

    Raises:
        NotFound: There is no such run.
        Conflict: It has ended otherwise.
    """
    return _end(store, run, FINISHED, None)


def fail(store: Store, run: str, error: BaseException | str) -> Run:
    """End a run with the error that stopped it."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return _end(store, run, FAILED, text[:LONGEST_ERROR])


@contextmanager
def running(store: Store, project: str, **about: Any) -> Iterator[Run]:
    """A run for the time of a `with` block: finished at its end, failed when it raises. Takes what `start` takes."""
    run = start(store, project, **about)
    try:
        yield run
    except BaseException as error:  # also an interrupt: the record must not say that it still runs
        fail(store, run.id, error)
        raise
    finish(store, run.id)


def abandon(store: Store, project: str, step: str) -> int:
    """Mark runs of a step as abandoned whose process on this machine died before it could; returns how many there were."""
    query = sa.select(run_table.c.id, run_table.c.process).where(
        run_table.c.project == project, run_table.c.step == step, run_table.c.state == RUNNING
    )
    with store.database.read() as tx:
        dead = [row.id for row in tx.execute(query) if not _alive(row.process)]

    def work(tx: Transaction) -> int:
        rows = run_table.update().where(run_table.c.id.in_(dead), run_table.c.state == RUNNING)
        values = {"state": ABANDONED, "error": "its process ended before the run did", "ended": store.clock.wall()}
        return tx.execute(rows.values(values)).rowcount

    return store.database.write(work) if dead else 0


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's: alive
        return True
    return True


def _end(store: Store, run: str, state: str, error: str | None) -> Run:
    def work(tx: Transaction) -> Run:
        known = require(tx, run)
        if known.state == state:
            return known
        if known.state != RUNNING:
            raise Conflict("the run has ended", subject=f"run {run}", found=known.state, asked=state)
        values = {"state": state, "error": error, "ended": store.clock.wall()}
        tx.execute(run_table.update().where(run_table.c.id == run).values(values))
        (ended,) = complete(tx, [require(tx, run)])
        body = {"experiment": ended.experiment, "step": ended.step, "state": state, "error": error}
        journal.append(tx, store.clock, store.actor, ended.project, "run ended", run, body)
        return ended

    return store.database.write(work, durable=True)
