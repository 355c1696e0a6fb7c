"""Runs as records: their tables, and the queries that find them again at any later moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import NotFound
from instar.core.store import Store

RUNNING, FINISHED, FAILED, ABANDONED = "running", "finished", "failed", "abandoned"

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
    sa.Column("conditions", sa.String(80)),
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
        conditions: Digest of hardware, threads, seeds and what else it was made under (see `conditions.Conditions`).
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
    conditions: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return (self.ended - self.started).total_seconds() if self.ended else None


def get_run(store: Store, run: str) -> Run:
    """A run with its latest metrics and its artifacts; `run` may be the beginning of an id, if it is the only one.

    Raises:
        NotFound: There is no such run, or more than one.
    """
    with store.database.read() as tx:
        return complete(tx, [require(tx, run)])[0]


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
        return complete(tx, [Run(**row._mapping) for row in rows])


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
        "conditions": run.conditions,
        "artifacts": dict(run.artifacts),
        "cause": run.cause,
        "actor": run.actor,
        "event_at": run.event_at.isoformat(),
        "started": run.started.isoformat(),
        "ended": run.ended.isoformat() if run.ended else None,
        "seconds": run.seconds,
    }


def require(tx: Transaction, run: str) -> Run:
    """The run of that id, or the only one whose id begins so, without its metrics.

    Raises:
        NotFound: There is none, or more than one.
    """
    found = tx.execute(sa.select(run_table).where(run_table.c.id == run)).all()
    if not found and run.startswith("run_"):
        found = tx.execute(sa.select(run_table).where(run_table.c.id.startswith(run, autoescape=True)).limit(2)).all()
    if len(found) != 1:
        raise NotFound(
            "more than one run begins so" if found else "there is no such run", subject=f"run {run}",
            next_step="List the runs with: instar runs ls",
        )  # fmt: skip
    return Run(**found[0]._mapping)


def complete(tx: Transaction, found: list[Run]) -> list[Run]:
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
