"""Runs as records: what one is, and how its rows are read at any later moment, one or ten thousand at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from instar.core.database import Transaction, fetch, microseconds, moment
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.train.run_values import from_text, number
from instar.train.tracking_tables import ACTIVE, DELETED, artifact_table, metric_table, run_table

__all__ = [
    "ABANDONED", "ACTIVE", "DELETED", "FAILED", "FINISHED", "KILLED", "RUNNING", "SCHEDULED", "STATES", "Columns", "Metric",
    "Run", "artifact_table", "document", "get_run", "load", "metric_table", "put_run", "require", "run_table",
]  # fmt: skip

SCHEDULED, RUNNING, FINISHED, FAILED, KILLED = "scheduled", "running", "finished", "failed", "killed"
ABANDONED = "abandoned"
STATES = (SCHEDULED, RUNNING, FINISHED, FAILED, KILLED, ABANDONED)


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of one metric: `step` counts within the run, `at` is when it was logged."""

    name: str
    value: float
    step: int
    at: datetime


@dataclass(frozen=True)
class Columns:
    """Which metrics, parameters and tags of a run to fetch: None is all of them, an empty sequence is none."""

    metrics: Sequence[str] | None = None
    parameters: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    artifacts: bool = True


@dataclass(frozen=True)
class Run:
    """One trial on the record.

    Attributes:
        key: Its number within the store; rows of what it logged have it.
        experiment: Name of the group it belongs to.
        experiment_id: Id of that group: stays when the group is renamed or moved.
        name: What people call it; may be empty.
        step: The pipeline's step; None for ad hoc work.
        execution: The execution in which it ran; None for ad hoc work and refits.
        state: One of `STATES`; `"abandoned"`: its process died.
        lifecycle: `"active"`, or `"deleted"`: hidden until it is restored or collected.
        inputs: Table versions it read.
        code: Commit, difference and content (see `code.Code`); None when none was given.
        environment: Digest of the environment's description; None for a run of another machine.
        conditions: Digest of hardware, threads, seeds and what else it was made under (see `conditions.Conditions`).
        cause: Who or which action wanted it.
        actor: Who wrote the record.
        user: Whom a remote client names as the run's user; None when it names nobody.
        metrics: Latest value by name.
        artifacts: Digest of the blob by path.
    """

    key: int
    id: str
    project: str
    experiment: str
    experiment_id: str
    name: str
    step: str | None
    execution: str | None
    state: str
    lifecycle: str
    error: str | None
    inputs: Sequence[str]
    code: Mapping[str, Any] | None
    environment: str | None
    cause: str
    actor: str
    user: str | None
    process: int
    event_at: datetime
    started: datetime
    ended: datetime | None = None
    deleted_at: datetime | None = None
    conditions: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return (self.ended - self.started).total_seconds() if self.ended else None


_COLUMNS = (
    "r.key, r.id, r.project, e.name, r.experiment_id, r.name, r.step, r.execution, r.state, r.lifecycle, r.error, r.inputs,"
    " r.code, r.environment, r.cause, r.actor, r.user_name, r.process, r.event_at, r.started, r.ended, r.deleted_at,"
    " r.conditions"
)


def get_run(store: Store, run: str, columns: Columns | None = None) -> Run:
    """A run with its latest metrics and its artifacts; `run` may be the beginning of an id, if it is the only one.

    Raises:
        NotFound: There is no such run, or more than one.
    """
    with store.database.read() as tx:
        return load(tx, [require(tx, run)], columns)[0]


def require(tx: Transaction, run: str) -> int:
    """The key of the run of that id, or of the only one whose id begins so.

    Raises:
        NotFound: There is none, or more than one.
    """
    found = fetch(tx, "SELECT key FROM run WHERE id = ?", (run,)) if "\0" not in run else []
    if not found and run.startswith("run_") and run.isprintable():
        found = fetch(tx, "SELECT key FROM run WHERE substr(id, 1, ?) = ? LIMIT 2", (len(run), run))
    if len(found) != 1:
        raise NotFound(
            "more than one run begins so" if found else "there is no such run", subject=f"run {run}",
            next_step="List the runs with: instar runs ls",
        )  # fmt: skip
    return int(found[0][0])


def load(tx: Transaction, keys: Sequence[int], columns: Columns | None = None) -> list[Run]:
    """The runs of those keys in that order, each with what `columns` asks for: five queries however many they are."""
    if not keys:
        return []
    columns = columns or Columns()
    chosen = f"({','.join(map(str, keys))})"  # our own numbers: safe to write out, and quicker than to bind
    rows = fetch(
        tx, f"SELECT {_COLUMNS} FROM run AS r JOIN experiment AS e ON e.id = r.experiment_id WHERE r.key IN {chosen}"
    )
    parameters = _parameters(tx, chosen, columns.parameters)
    tags = _tags(tx, chosen, columns.tags)
    metrics = _metrics(tx, chosen, columns.metrics)
    artifacts = _artifacts(tx, chosen) if columns.artifacts else {}
    found = {}
    for row in rows:
        key, name = row[0], row[1]
        code = json.loads(row[12]) if row[12] else None
        found[key] = Run(
            key, name, row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10],
            [] if row[11] == "[]" else json.loads(row[11]), code, row[13], row[14], row[15], row[16], row[17],
            moment(row[18]), moment(row[19]), _moment(row[20]), _moment(row[21]), row[22],
            parameters.get(key, {}), tags.get(key, {}), metrics.get(key, {}), artifacts.get(name, {}),
        )  # fmt: skip
    return [found[key] for key in keys if key in found]


def put_run(tx: Transaction, run: Run) -> Run:
    """Put a new run on the record, without what it logs; returns it with its key."""
    code = json.dumps(dict(run.code), sort_keys=True, separators=(",", ":"), ensure_ascii=False) if run.code else None
    values = (
        run.id, run.project, run.experiment_id, run.name, run.step, run.execution, run.state, run.lifecycle, run.error,
        json.dumps(list(run.inputs), separators=(",", ":")), code, run.environment, run.conditions, run.cause, run.actor,
        run.user, run.process, microseconds(run.event_at), microseconds(run.started),
        microseconds(run.ended) if run.ended else None,
    )  # fmt: skip
    ((key,),) = fetch(tx, _INSERT, values)
    return replace(run, key=key)


_INSERT = (
    "INSERT INTO run (id, project, experiment_id, name, step, execution, state, lifecycle, error, inputs, code, environment,"
    f" conditions, cause, actor, user_name, process, event_at, started, ended) VALUES ({', '.join('?' * 20)}) RETURNING key"
)


def _moment(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


def _only(names: Sequence[str] | None) -> tuple[str, Sequence[str]]:
    return ("", ()) if names is None else (f" AND name IN ({','.join('?' * len(names))})", names)


def _parameters(tx: Transaction, chosen: str, names: Sequence[str] | None) -> dict[int, dict[str, Any]]:
    if names is not None and not names:
        return {}
    only, values = _only(names)
    found: dict[int, dict[str, Any]] = {}
    query = f"SELECT run, name, value, rest, kind FROM run_parameter WHERE run IN {chosen}{only} ORDER BY run, name"
    for run, name, value, rest, kind in fetch(tx, query, values):
        text = value if rest is None else value + rest
        found.setdefault(run, {})[name] = text if kind == "text" else from_text(text, kind)
    return found


def _tags(tx: Transaction, chosen: str, names: Sequence[str] | None) -> dict[int, dict[str, str]]:
    if names is not None and not names:
        return {}
    only, values = _only(names)
    found: dict[int, dict[str, str]] = {}
    query = f"SELECT run, name, value, rest FROM run_tag WHERE run IN {chosen}{only} ORDER BY run, name"
    for run, name, value, rest in fetch(tx, query, values):
        found.setdefault(run, {})[name] = value if rest is None else value + rest
    return found


def _metrics(tx: Transaction, chosen: str, names: Sequence[str] | None) -> dict[int, dict[str, float]]:
    if names is not None and not names:
        return {}
    only, values = _only(names)
    found: dict[int, dict[str, float]] = {}
    query = f"SELECT run, name, value, nan FROM run_latest WHERE run IN {chosen}{only} ORDER BY run, name"
    for run, name, value, nan in fetch(tx, query, values):
        found.setdefault(run, {})[name] = number(value, nan) if nan else value
    return found


def _artifacts(tx: Transaction, chosen: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    owners = f"SELECT id FROM run WHERE key IN {chosen}"
    query = f"SELECT owner, path, blob FROM artifact WHERE owner IN ({owners}) ORDER BY owner, path"
    for owner, path, blob in fetch(tx, query):
        found.setdefault(owner, {})[path] = blob
    return found


def document(run: Run) -> dict[str, Any]:
    """A run as JSON: times in ISO 8601, metrics that are no number as null."""
    return {
        "id": run.id,
        "project": run.project,
        "experiment": run.experiment,
        "experiment_id": run.experiment_id,
        "name": run.name,
        "step": run.step,
        "execution": run.execution,
        "state": run.state,
        "lifecycle": run.lifecycle,
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
        "user": run.user,
        "event_at": run.event_at.isoformat(),
        "started": run.started.isoformat(),
        "ended": run.ended.isoformat() if run.ended else None,
        "seconds": run.seconds,
    }
