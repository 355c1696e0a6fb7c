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
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.train import code, environment

RUNNING, FINISHED, FAILED, ABANDONED = "running", "finished", "failed", "abandoned"
LONGEST_ERROR = 4000  # characters; the rest of a message has rarely helped anybody

run_table = sa.Table(
    "run",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False, index=True),
    sa.Column("experiment", sa.String(200), nullable=False, index=True),
    sa.Column("step", sa.String(200)),
    sa.Column("execution", sa.String(60), index=True),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("tags", Json, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("inputs", Json, nullable=False),
    sa.Column("code", Json),
    sa.Column("environment", sa.String(80)),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("process", sa.Integer, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("started", Instant, nullable=False),
    sa.Column("ended", Instant),
)
metric_table = sa.Table(
    "run_metric",
    metadata,
    sa.Column("run", sa.String(60), sa.ForeignKey("run.id"), primary_key=True),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, primary_key=True),
    sa.Column("value", sa.Float(53)),  # NULL is NaN, which SQLite cannot hold
)
artifact_table = sa.Table(
    "run_artifact",
    metadata,
    sa.Column("run", sa.String(60), sa.ForeignKey("run.id"), primary_key=True),
    sa.Column("path", sa.String(500), primary_key=True),
    sa.Column("blob", sa.String(80), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Metric:
    """One value of one metric: `step` counts within the run, `at` is when it was logged."""

    name: str
    value: float
    step: int
    at: datetime


@dataclass(frozen=True)
class Run:
    """One trial on the record.

    Attributes:
        experiment: The group it belongs to.
        step: The pipeline's step; None for ad hoc work.
        execution: The execution in which it ran; None for ad hoc work and refits.
        state: `"running"`, `"finished"`, `"failed"` or `"abandoned"` (its process died).
        inputs: Table versions it read.
        code: Commit, difference and content (see `code.Code`); None when none was given.
        environment: Digest of the environment's description.
        cause: Who or which action wanted it.
        metrics: Latest value by name.
        artifacts: Digest of the blob by path.
    """

    id: str
    project: str
    experiment: str
    step: str | None
    execution: str | None
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    state: str
    error: str | None
    inputs: Sequence[str]
    code: Mapping[str, Any] | None
    environment: str | None
    cause: str
    actor: str
    process: int
    event_at: datetime
    started: datetime
    ended: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return (self.ended - self.started).total_seconds() if self.ended else None


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
) -> Run:
    """Put a run on the record, with its environment and, given the project's folder `root`, its code."""
    # Blobs first, record second: what the record names is there.
    described = environment.save(store.blobs, environment.capture(root), root)
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
        _require(tx, run)
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
        _require(tx, run)
        tx.execute(artifact_table.delete().where(artifact_table.c.run == run, artifact_table.c.path == path))
        tx.execute(artifact_table.insert().values(run=run, path=path, blob=digest, size=size))

    store.database.write(work)
    return digest


def set_tags(store: Store, run: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run, or change them."""

    def work(tx: Transaction) -> None:
        known = _require(tx, run)
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
    """Mark runs of a step as abandoned whose process died before it could; returns how many there were.

    For the holder of the project's lease: nobody else can be running the step.
    """
    dead = sa.and_(run_table.c.project == project, run_table.c.step == step, run_table.c.state == RUNNING)

    def work(tx: Transaction) -> int:
        values = {"state": ABANDONED, "error": "its process ended before the run did", "ended": store.clock.wall()}
        return tx.execute(run_table.update().where(dead).values(values)).rowcount

    return store.database.write(work)


def get_run(store: Store, run: str) -> Run:
    """A run with its latest metrics and its artifacts; `run` may be the beginning of an id, if it is the only one.

    Raises:
        NotFound: There is no such run, or more than one.
    """
    with store.database.read() as tx:
        return _complete(tx, [_require(tx, run)])[0]


def list_runs(
    store: Store,
    project: str,
    *,
    experiment: str | None = None,
    step: str | None = None,
    state: str | None = None,
    limit: int = 100,
) -> list[Run]:
    """Runs of a project, the newest first."""
    query = sa.select(run_table).where(run_table.c.project == project)
    for column, value in ((run_table.c.experiment, experiment), (run_table.c.step, step), (run_table.c.state, state)):
        if value is not None:
            query = query.where(column == value)
    with store.database.read() as tx:
        rows = tx.execute(query.order_by(run_table.c.id.desc()).limit(limit))
        return _complete(tx, [Run(**row._mapping) for row in rows])


def metric_history(store: Store, run: str, name: str) -> list[Metric]:
    """All values of one metric, in the order of steps."""
    query = sa.select(metric_table).where(metric_table.c.run == run, metric_table.c.name == name)
    with store.database.read() as tx:
        rows = tx.execute(query.order_by(metric_table.c.step, metric_table.c.at))
        return [Metric(row.name, _number(row.value), row.step, row.at) for row in rows]


def document(run: Run) -> dict[str, Any]:
    """A run as JSON: times in ISO 8601, metrics that are no number as null."""
    return {
        "id": run.id,
        "project": run.project,
        "experiment": run.experiment,
        "step": run.step,
        "execution": run.execution,
        "state": run.state,
        "error": run.error,
        "parameters": dict(run.parameters),
        "metrics": {name: value if value == value else None for name, value in run.metrics.items()},
        "tags": dict(run.tags),
        "inputs": list(run.inputs),
        "code": dict(run.code) if run.code else None,
        "environment": run.environment,
        "artifacts": dict(run.artifacts),
        "cause": run.cause,
        "actor": run.actor,
        "event_at": run.event_at.isoformat(),
        "started": run.started.isoformat(),
        "ended": run.ended.isoformat() if run.ended else None,
        "seconds": run.seconds,
    }


def _end(store: Store, run: str, state: str, error: str | None) -> Run:
    def work(tx: Transaction) -> Run:
        known = _require(tx, run)
        if known.state == state:
            return known
        if known.state != RUNNING:
            raise Conflict("the run has ended", subject=f"run {run}", found=known.state, asked=state)
        values = {"state": state, "error": error, "ended": store.clock.wall()}
        tx.execute(run_table.update().where(run_table.c.id == run).values(values))
        (ended,) = _complete(tx, [_require(tx, run)])
        body = {"experiment": ended.experiment, "step": ended.step, "state": state, "error": error}
        journal.append(tx, store.clock, store.actor, ended.project, "run ended", run, body)
        return ended

    return store.database.write(work, durable=True)


def _require(tx: Transaction, run: str) -> Run:
    found = tx.execute(sa.select(run_table).where(run_table.c.id == run)).all()
    if not found and run.startswith("run_"):
        found = tx.execute(sa.select(run_table).where(run_table.c.id.startswith(run, autoescape=True)).limit(2)).all()
    if len(found) != 1:
        raise NotFound(
            "more than one run begins so" if found else "there is no such run", subject=f"run {run}",
            next_step="List the runs with: instar runs ls",
        )  # fmt: skip
    return Run(**found[0]._mapping)


def _complete(tx: Transaction, found: list[Run]) -> list[Run]:
    """The runs with metrics and artifacts, in two queries however many they are."""
    names = [run.id for run in found]
    metrics: dict[str, dict[str, float]] = {}
    for row in tx.execute(
        sa.select(metric_table)
        .where(metric_table.c.run.in_(names))
        .order_by(metric_table.c.name, metric_table.c.step, metric_table.c.at)
    ):
        metrics.setdefault(row.run, {})[row.name] = _number(row.value)
    artifacts: dict[str, dict[str, str]] = {}
    for row in tx.execute(
        sa.select(artifact_table).where(artifact_table.c.run.in_(names)).order_by(artifact_table.c.path)
    ):
        artifacts.setdefault(row.run, {})[row.path] = row.blob
    return [_with(run, metrics.get(run.id, {}), artifacts.get(run.id, {})) for run in found]


def _with(run: Run, metrics: dict[str, float], artifacts: dict[str, str]) -> Run:
    return Run(**{**vars(run), "metrics": metrics, "artifacts": artifacts})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
