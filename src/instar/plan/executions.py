"""Executions: the record of each attempt of a step, kept while the pipeline runs and asked afterwards for its causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core.database import Instant, Json, Transaction, at_driver, metadata

RUNNING, DONE, FAILED, ABANDONED = "running", "done", "failed", "abandoned"

execution = sa.Table(
    "execution",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("pipe", sa.String(60), nullable=False, index=True),
    sa.Column("step", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("ingredients", Json, nullable=False),
    sa.Column("reasons", Json, nullable=False),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("started", Instant, nullable=False),
    sa.Column("ended", Instant),
    sa.Column("ref", sa.String(120)),
    sa.Column("digest", sa.String(80)),
    sa.Column("error", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("partition", sa.String(200)),
    sa.Column("log", sa.String(80)),
    sa.Index("ix_execution_step", "project", "step", "id"),
    sa.Index("ix_execution_key", "project", "key"),
)
pipeline_run = sa.Table(
    "pipeline_run",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False, index=True),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("contract", sa.String(80), nullable=False),
    sa.Column("targets", Json),
    sa.Column("steps", Json, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("started", Instant, nullable=False),
    sa.Column("ended", Instant),
    sa.Column("resumes", sa.String(60)),
)


@dataclass(frozen=True)
class Execution:
    """One attempt of one step, or of one partition of a step that is declared `by` partitions.

    Attributes:
        id: `exec_…`.
        project: Name of the project.
        pipe: The pipeline run that it is part of.
        step: The step's name.
        kind: The step's kind.
        key: Digest of all that the output depends on.
        state: `"running"`, `"done"`, `"failed"`, or `"abandoned"` when its process died.
        cause: Who or which action wanted it.
        actor: In whose name it ran.
        ingredients: What the key is made of, by name: see `keys.Ingredients`.
        reasons: Why it ran and was not taken from the record.
        parameters: Values the function was called with, besides tables.
        event_at: Event time at its start.
        started: Wall time.
        ended: Wall time; None while it runs.
        ref: The record it made: a table version or a bundle.
        digest: Content digest of that.
        error: Why it failed.
        attempt: 1, or more when earlier attempts of the same walk failed and it was tried again.
        partition: The partition that it is for; None for the step as a whole.
        log: Blob of what the function printed and logged; None when it was silent.
    """

    id: str
    project: str
    pipe: str
    step: str
    kind: str
    key: str
    state: str
    cause: str
    actor: str
    event_at: datetime
    started: datetime
    ingredients: Mapping[str, Any] = field(default_factory=dict)
    reasons: list[dict[str, Any]] = field(default_factory=list)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ended: datetime | None = None
    ref: str | None = None
    digest: str | None = None
    error: str | None = None
    attempt: int = 1
    partition: str | None = None
    log: str | None = None

    @property
    def inputs(self) -> Mapping[str, str]:
        """Content digest of each input, by its name."""
        found: Mapping[str, str] = self.ingredients.get("inputs", {})
        return found


@dataclass(frozen=True)
class PipelineRun:
    """One walk of the pipeline.

    Attributes:
        steps: Name, state and execution of each step, in the order in which they were settled.
        targets: Steps that were asked for; None: all.
        resumes: The walk before, which did not reach its end and which this one goes on from.
    """

    id: str
    project: str
    state: str
    cause: str
    actor: str
    contract: str
    targets: list[str] | None
    steps: list[dict[str, Any]]
    event_at: datetime
    started: datetime
    ended: datetime | None = None
    resumes: str | None = None


_RESULT = (
    "SELECT id, step, key, ref, digest FROM execution WHERE project = ? AND key = ? AND state = 'done'"
    ' AND "partition" IS NULL ORDER BY id DESC'
)


@dataclass(frozen=True)
class Result:
    """What an execution made that ended well, without all that its record holds."""

    id: str
    step: str
    key: str
    ref: str
    digest: str


def get(tx: Transaction, id_: str) -> Execution | None:
    """The execution of that id."""
    return _first(tx, sa.select(execution).where(execution.c.id == id_))


def last(tx: Transaction, project: str, step: str, state: str | None = None) -> Execution | None:
    """The newest execution of a step, optionally in one state."""
    query = sa.select(execution).where(_whole(project), execution.c.step == step)
    if state is not None:
        query = query.where(execution.c.state == state)
    return _first(tx, query.order_by(execution.c.id.desc()).limit(1))


def newest(tx: Transaction, project: str, steps: Iterable[str], state: str | None = None) -> dict[str, Execution]:
    """The newest execution of each of many steps, optionally in one state."""
    query = (
        'SELECT id FROM execution WHERE project = ? AND step = ? AND "partition" IS NULL'
        + (" AND state = ?" if state else "")
        + " ORDER BY id DESC LIMIT 1"
    )
    wanted = ((project, step, state) if state else (project, step) for step in steps)
    ids = [rows[0][0] for values in wanted if (rows := at_driver(tx, query, values).rows)]
    found = {}
    for some in _chunks(ids):
        for row in tx.execute(sa.select(execution).where(execution.c.id.in_(some))):
            found[row.step] = Execution(**row._mapping)
    return found


def results(tx: Transaction, project: str, keys: Iterable[str], steps: Iterable[str] = ()) -> dict[str, list[Result]]:
    """What executions made which ended well with one of those keys, by key, the newest first.

    Args:
        steps: Only parts of these steps: executions of single partitions. None given: only of whole steps.
    """
    parts = list(steps)
    of = sa.and_(execution.c.project == project, execution.c.state == DONE)
    of = sa.and_(of, execution.c.partition.isnot(None) if parts else execution.c.partition.is_(None))
    if parts:
        of = sa.and_(of, execution.c.step.in_(parts))
    columns = (execution.c.id, execution.c.step, execution.c.key, execution.c.ref, execution.c.digest)
    found: dict[str, list[Result]] = {}
    wanted = list(keys)
    if len(wanted) == 1 and not parts:  # as a walk asks once a step
        single = [Result(*row) for row in at_driver(tx, _RESULT, (project, wanted[0])).rows]
        return {wanted[0]: single} if single else {}
    for some in _chunks(wanted):
        query = sa.select(*columns).where(of, execution.c.key.in_(some)).order_by(execution.c.id.desc())
        for row in tx.execute(query):
            found.setdefault(row.key, []).append(Result(*row))
    return found


def listed(
    tx: Transaction, project: str, *, step: str | None = None, pipe: str | None = None, limit: int = 100
) -> list[Execution]:
    """Executions of a project, the newest first, optionally of one step or one walk."""
    query = sa.select(execution).where(execution.c.project == project)
    for column, value in ((execution.c.step, step), (execution.c.pipe, pipe)):
        if value is not None:
            query = query.where(column == value)
    return [Execution(**row._mapping) for row in tx.execute(query.order_by(execution.c.id.desc()).limit(limit))]


def of_walk(tx: Transaction, pipe: str, states: Iterable[str] | None = None) -> list[Execution]:
    """Executions of one walk, in order, optionally in some states."""
    query = sa.select(execution).where(execution.c.pipe == pipe)
    if states is not None:
        query = query.where(execution.c.state.in_(list(states)))
    return [Execution(**row._mapping) for row in tx.execute(query.order_by(execution.c.id))]


def pipeline_runs(tx: Transaction, project: str, limit: int = 20) -> list[PipelineRun]:
    """The newest walks of a project's pipeline."""
    query = sa.select(pipeline_run).where(pipeline_run.c.project == project)
    return [PipelineRun(**row._mapping) for row in tx.execute(query.order_by(pipeline_run.c.id.desc()).limit(limit))]


def _chunks(values: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _whole(project: str) -> sa.ColumnElement[bool]:
    """Executions of whole steps; those of single partitions are asked for by their own names."""
    return sa.and_(execution.c.project == project, execution.c.partition.is_(None))


def _first(tx: Transaction, query: sa.Select[Any]) -> Execution | None:
    row = tx.execute(query).first()
    return None if row is None else Execution(**row._mapping)
