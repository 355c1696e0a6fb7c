"""Runs: the record of each training or ad hoc trial, written before its first user line runs and closed when it ends.

    run = start(store, "flights", experiment="delay", step="delay_trees", parameters={...}, root=project.root)
    log_metrics(store, run.id, {"cost": 0.51})
    finish(store, run.id)                                  # or fail(store, run.id, error)

An experiment is a named group of runs; a model step's runs have the name of its problem.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal, lineage, processes
from instar.core.database import Transaction, fetch
from instar.core.errors import BadInput, Conflict
from instar.core.store import Store
from instar.train import code, environment, experiments
from instar.train import conditions as conditioning
from instar.train.artifacts import log_artifact
from instar.train.conditions import Conditions
from instar.train.histories import metric_history
from instar.train.run_log import (
    change_tag,
    delete_tag,
    log,
    log_metrics,
    put_parameters,
    put_tags,
    set_tags,
    writable,
)
from instar.train.run_records import (
    ABANDONED,
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    SCHEDULED,
    STATES,
    Columns,
    Metric,
    Run,
    document,
    get_run,
    load,
    put_run,
    require,
)
from instar.train.run_values import check_name, parameter_rows, tag_rows
from instar.train.tracking_tables import ACTIVE, DELETED, experiment_table, run_table

__all__ = [
    "ABANDONED", "ACTIVE", "DELETED", "FAILED", "FINISHED", "KILLED", "RUNNING", "SCHEDULED", "Columns", "Metric", "Run",
    "abandon", "change_tag", "delete", "delete_tag", "document", "fail", "finish", "get_run", "list_runs", "load", "log",
    "log_artifact", "log_metrics", "metric_history", "restore", "running", "set_tags", "start", "update",
]  # fmt: skip

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
    name: str = "",
    user: str | None = None,
    started: datetime | None = None,
    state: str = RUNNING,
    capture: bool = True,
    id: str | None = None,
) -> Run:
    """Put a run on the record, with its environment and, given the project's folder `root`, its code.

    Args:
        conditions: What it is made under; default this process's hardware, threads and chance, and no more.
        experiment: Its name, or its id; one of that name is made when there is none.
        started: When it began; now, unless it is told of later.
        capture: False for the run of another machine: this process's environment and code are not its own.
        id: An id that the caller chose (`run_…`), so that starting it again finds the run instead of making a second one.

    Raises:
        BadInput: A name, parameter or tag cannot be kept.
        NotFound: There is no experiment of that id.
        Conflict: The experiment is deleted.
    """
    _check_run(name, state, id)
    rows, marks = parameter_rows(parameters or {}), tag_rows(tags or {})
    if not experiments.is_id(experiment):
        experiments.check_name(experiment)
    # Blobs first, record second: what the record names is there.
    described = environment.save(store.blobs, environment.capture(root), root) if capture else None
    kept = (
        conditioning.save(store.blobs, conditions or conditioning.capture(root=root)) if capture or conditions else None
    )
    about = code.describe(code.capture(store.blobs, root)) if capture and root is not None else None
    run = Run(
        key=0,
        id=id or ids.new_id("run"),
        project=project,
        experiment=experiment,
        experiment_id="",
        name=name,
        step=step,
        execution=execution,
        state=state,
        lifecycle=ACTIVE,
        error=None,
        inputs=list(inputs),
        code=about,
        environment=described,
        conditions=kept,
        cause=cause,
        actor=store.actor.name,
        user=user,
        process=os.getpid() if capture else 0,
        event_at=store.clock.event(),
        started=started or store.clock.wall(),
        parameters=dict(parameters or {}),
        tags=dict(tags or {}),
    )

    def work(tx: Transaction) -> Run:
        if id is not None:
            known = fetch(tx, "SELECT key FROM run WHERE id = ?", (id,))
            if known:
                return load(tx, [known[0][0]])[0]
        group = _group(tx, store, project, experiment)
        made = put_run(tx, replace(run, project=group.project, experiment=group.name, experiment_id=group.id))
        put_parameters(tx, made.id, made.key, rows)
        put_tags(tx, made.key, marks)
        for version in made.inputs:
            lineage.link(tx, made.project, version, "was read by", made.id)
        if execution is not None:
            lineage.link(tx, made.project, execution, "ran", made.id)
        return made

    return store.database.write(work)


def list_runs(
    store: Store,
    project: str,
    *,
    experiment: str | None = None,
    step: str | None = None,
    state: str | None = None,
    limit: int = 100,
) -> list[Run]:
    """Active runs of a project, the newest first."""
    at = run_table.c
    query = sa.select(at.key).where(at.project == project, at.lifecycle == ACTIVE)
    if experiment is not None:
        named = sa.select(experiment_table.c.id).where(
            experiment_table.c.project == project, experiment_table.c.name == experiment
        )
        query = query.where(at.experiment_id.in_(named))
    for column, value in ((at.step, step), (at.state, state)):
        if value is not None:
            query = query.where(column == value)
    with store.database.read() as tx:
        return load(tx, list(tx.execute(query.order_by(at.started.desc(), at.id.desc()).limit(limit)).scalars()))


def finish(store: Store, run: str) -> Run:
    """End a run well.

    Raises:
        NotFound: There is no such run.
        Conflict: It has ended otherwise, or is deleted.
    """
    return _end(store, run, FINISHED, None)


def fail(store: Store, run: str, error: BaseException | str) -> Run:
    """End a run with the error that stopped it."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return _end(store, run, FAILED, text[:LONGEST_ERROR].replace("\0", "\\0"))


def update(
    store: Store, run: str, *, state: str | None = None, ended: datetime | None = None, name: str | None = None
) -> Run:
    """Change a run's name, state or end, as MLflow's clients do; reopening one that has ended is allowed here.

    Two clients that end a run: the later one wins, and the journal has both.

    Raises:
        BadInput: There is no such state.
        NotFound: There is no such run.
        Conflict: It is deleted.
    """
    _check_run(name or "", state or RUNNING, None)

    def work(tx: Transaction) -> Run:
        key = writable(tx, run)
        ((before, over_at),) = tx.execute(sa.select(run_table.c.state, run_table.c.ended).where(run_table.c.key == key))
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = name
        if state is not None:
            over = state not in (RUNNING, SCHEDULED)
            values |= {"state": state, "ended": (ended or over_at or store.clock.wall()) if over else None}
        elif ended is not None:
            values["ended"] = ended
        if values:
            tx.execute(run_table.update().where(run_table.c.key == key).values(values))
        (changed,) = load(tx, [key])
        if changed.state != before:
            _journal_end(tx, store, changed)
        return changed

    # An end is a decision on the record; a new name, or a heartbeat of "running", is not.
    return store.database.write(work, durable=state is not None and state not in (RUNNING, SCHEDULED))


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
    query = sa.select(run_table.c.id, run_table.c.process, run_table.c.conditions).where(
        run_table.c.project == project, run_table.c.step == step, run_table.c.state == RUNNING, run_table.c.process > 0
    )
    with store.database.read() as tx:
        silent = [row for row in tx.execute(query) if not processes.born(row.process)]
    dead = [row.id for row in silent if _is_of_here(store, row.conditions)]

    def work(tx: Transaction) -> int:
        still = sa.select(run_table.c.key).where(run_table.c.id.in_(dead), run_table.c.state == RUNNING)
        keys = list(tx.execute(still.order_by(run_table.c.id)).scalars())
        values = {"state": ABANDONED, "error": "its process ended before the run did", "ended": store.clock.wall()}
        tx.execute(run_table.update().where(run_table.c.key.in_(keys)).values(values))
        for run in load(tx, keys, Columns((), (), (), False)):
            _journal_end(tx, store, run)
        return len(keys)

    return store.database.write(work, durable=True) if dead else 0


def _is_of_here(store: Store, about: str | None) -> bool:
    """Was a run made on this machine? One of before machines were recorded is taken to be."""
    host = conditioning.load(store.blobs, about).host if about is not None and store.blobs.has(about) else ""
    # After a restart all processes of this machine are dead; another machine has another name.
    return host.split(" ")[0] in ("", processes.host().split(" ")[0])


def delete(store: Store, run: str) -> Run:
    """Hide a run; deleting it again changes nothing.

    Raises:
        NotFound: There is no such run.
    """
    return _hide(store, run, DELETED, "run deleted")


def restore(store: Store, run: str) -> Run:
    """Bring a deleted run back.

    Raises:
        NotFound: There is no such run.
        Conflict: Its experiment is deleted.
    """
    return _hide(store, run, ACTIVE, "run restored")


def _group(tx: Transaction, store: Store, project: str, experiment: str) -> experiments.Experiment:
    if not experiments.is_id(experiment):
        return experiments.ensure_in(tx, store, project, experiment)
    found = experiments.require_experiment(tx, experiment)
    if found.state != ACTIVE:
        raise Conflict(
            "the experiment is deleted", subject=f"experiment {experiment}", found=found.state, asked=ACTIVE,
            next_step="Restore it first.",
        )  # fmt: skip
    return found


def _check_run(name: str, state: str, id: str | None) -> None:
    check_name(name)
    if state not in STATES:
        raise BadInput("a run has no such state", found=state, asked=", ".join(STATES))
    if id is not None and not (id.startswith("run_") and id.isascii() and id[4:].isalnum() and len(id) <= 60):
        raise BadInput("that is no id of a run", found=id[:80], asked="run_ and letters or digits")


def _hide(store: Store, run: str, lifecycle: str, kind: str) -> Run:
    def work(tx: Transaction) -> Run:
        key = require(tx, run)
        (known,) = load(tx, [key])
        if known.lifecycle == lifecycle:
            return known
        if lifecycle == ACTIVE:
            _group(tx, store, known.project, known.experiment_id)
        at = store.clock.wall() if lifecycle == DELETED else None
        values = {"lifecycle": lifecycle, "deleted_at": at, "deleted_with": None}
        tx.execute(run_table.update().where(run_table.c.key == key).values(values))
        journal.append(tx, store.clock, store.actor, known.project, kind, known.id, {"experiment": known.experiment})
        return replace(known, lifecycle=lifecycle, deleted_at=at)

    return store.database.write(work, durable=True)


def _end(store: Store, run: str, state: str, error: str | None) -> Run:
    def work(tx: Transaction) -> Run:
        key = writable(tx, run)
        (known,) = load(tx, [key])
        if known.state == state:
            return known
        if known.state != RUNNING:
            raise Conflict("the run has ended", subject=f"run {run}", found=known.state, asked=state)
        values = {"state": state, "error": error, "ended": store.clock.wall()}
        tx.execute(run_table.update().where(run_table.c.key == key).values(values))
        (ended,) = load(tx, [key])
        _journal_end(tx, store, ended)
        return ended

    return store.database.write(work, durable=True)


def _journal_end(tx: Transaction, store: Store, run: Run) -> None:
    kind = "run reopened" if run.state in (RUNNING, SCHEDULED) else "run ended"
    body = {"experiment": run.experiment, "step": run.step, "state": run.state, "error": run.error}
    journal.append(tx, store.clock, store.actor, run.project, kind, run.id, body)
