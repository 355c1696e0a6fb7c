"""The intake of spools: applies what a training process said of its run to the store, each record once, in its order.

A batch and the count of its frames are one transaction. What a store cannot keep (a parameter that changes its value, a file
whose content never came) is refused alone, and counted in a tag of the run: one bad record must not hold up all that follow.

    apply(store, batch)                       # a server, for a client; and a process, for the store on its machine
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from instar.core import journal, notes
from instar.core.database import Transaction, moment
from instar.core.errors import BadInput, Conflict, InstarError, NotFound
from instar.core.settings import DEFAULT_PROJECT
from instar.core.store import Store
from instar.train import artifacts, datasets, logged_models, run_log, runs, spool_position, spool_records
from instar.train.delivery import Batch
from instar.train.run_records import Columns, load
from instar.train.run_values import Point, latest, metric_rows, parameter_rows, tag_rows
from instar.train.runs import ABANDONED, FAILED, FINISHED, KILLED, RUNNING, SCHEDULED
from instar.train.spool_records import (
    Artifact,
    End,
    Input,
    Lost,
    Model,
    Parameters,
    Points,
    Record,
    Remark,
    Start,
    Tags,
)
from instar.train.tracking_tables import run_table, tag_table

PARENT = "mlflow.parentRunId"  # by which MLflow's clients and pages know a run within a run
REFUSED, LOST = "instar.refused", "instar.lost"
DIED = "its process ended before the run did"


@dataclass
class _Work:
    """One batch's transaction: what is held, what is put off to its end, and what was refused."""

    tx: Transaction
    store: Store
    run: str
    key: int
    state: str
    project: str
    points: list[tuple[str, int, int, float, int]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)
    entry: tuple[str, dict[str, Any]] | None = None


Change = Callable[[_Work], None]
# Packs the files of a logged model, given its id, when all of them are there; a later stage inspects what it packs.
CloseModel = Callable[[Store, str], None]


class StoreSink:
    """The store on this machine as the goal of a delivery.

    Args:
        own: It was opened for this delivery, and is closed with it.
        close_model: See `apply`.
    """

    def __init__(self, store: Store, *, own: bool = False, close_model: CloseModel | None = None) -> None:
        self._store, self._own, self._close_model = store, own, close_model

    def apply(self, batch: Batch) -> int:
        return apply(self._store, batch, self._close_model)

    def put(self, project: str, run: str, digest: str, file: Path) -> None:
        self._store.blobs.put_file(file)

    def close(self) -> None:
        if self._own:
            self._store.database.close()


def apply(store: Store, batch: Batch, close_model: CloseModel | None = None, *, bound: bool = False) -> int:
    """Apply the frames of a batch that are new; returns how many of its writer are applied now.

    A number smaller than `batch.first` asks the sender to begin there.

    Args:
        close_model: What makes a bundle of a logged model; without it the model stays open.
        bound: The sender may only write to the batch's project, whatever the frames say.

    Raises:
        NotFound: The run is not there: it was deleted for good.
        Conflict: It is deleted.
    """
    with store.database.read() as tx:
        known = spool_position.applied(tx, batch.run, batch.writer)
    if batch.first > known or (not batch.frames and not known):
        return known
    records = [_read(frame) for frame in batch.frames[known - batch.first :]]
    if bound:
        _refuse_other_projects(store, batch, records)
    changes = [_prepared(store, batch, record, close_model) for record in records]

    def work(tx: Transaction, lightly: bool) -> int | None:
        held = _held(tx, store, batch.run)
        applied = spool_position.applied(tx, batch.run, batch.writer)
        new = changes[applied - known :]  # somebody else may have delivered since we looked
        if new and held.state == ABANDONED and not batch.gone:
            if lightly:  # what is journalled must survive a power failure
                return None
            _turn(held, RUNNING, None, None)  # it was only silent
        for change in new:
            try:
                change(held)
            except InstarError as error:
                held.refused.append(error.what)
        points = sorted(held.points)
        run_log.put_points(tx, held.key, points, latest(points))
        _count(held, REFUSED, len(held.refused), held.refused[-1] if held.refused else "")
        for number, reason in held.lost:
            _count(held, LOST, number, reason)
        if batch.last and held.state == RUNNING:
            _turn(held, ABANDONED, DIED, store.clock.wall())
        applied += len(new)
        spool_position.move(tx, batch.run, batch.writer, applied, store.clock.wall(), batch.place)
        if held.entry is not None:  # the journal's is the last statement of a transaction
            journal.append(tx, store.clock, store.actor, held.project, held.entry[0], batch.run, held.entry[1])
        return applied

    # Writers of different runs need not wait for each other while they only log.
    only_logs = not batch.last and all(isinstance(record, Points | Parameters | Tags) for record in records)
    done = store.database.write(lambda tx: work(tx, True), shared=True) if only_logs else None
    return done if done is not None else store.database.write(lambda tx: work(tx, False) or 0, durable=True)


def _refuse_other_projects(store: Store, batch: Batch, records: Sequence[Record | None]) -> None:
    with store.database.read() as tx:
        owner = tx.execute(sa.select(run_table.c.project).where(run_table.c.id == batch.run)).scalar_one_or_none()
    begun = {record.project for record in records if isinstance(record, Start) and record.project}
    if {batch.project} != {batch.project, *begun, *([owner] if owner is not None else [])}:
        # Do not tell of another project's run.
        raise NotFound("the project has no such run", subject=f"run {batch.run}", asked=f"a run of {batch.project}")


def abandon(store: Store, run: str, error: str) -> bool:
    """Say that a run has no process any more; False when it has ended already."""

    def work(tx: Transaction) -> bool:
        held = _held(tx, store, run)
        if held.state != RUNNING:
            return False
        _turn(held, ABANDONED, error, store.clock.wall())
        if held.entry is not None:
            journal.append(tx, store.clock, store.actor, held.project, held.entry[0], run, held.entry[1])
        return True

    return store.database.write(work, durable=True)


def _held(tx: Transaction, store: Store, run: str) -> _Work:
    try:
        key = run_log.writable(tx, run)
    except NotFound:
        raise NotFound(
            "the run was deleted for good, or was never begun", subject=f"run {run}",
            next_step="Remove its folder from the spool when nobody wants what is in it.",
        ) from None  # fmt: skip
    row = tx.execute(sa.select(run_table.c.state, run_table.c.project).where(run_table.c.key == key)).one()
    return _Work(tx, store, run, key, row.state, row.project)


def _read(frame: bytes) -> Record | None:
    try:
        return spool_records.decode(frame)
    except msgspec.DecodeError:
        return None


def _prepared(store: Store, batch: Batch, record: Record | None, close_model: CloseModel | None) -> Change:
    """What a record changes; all that is slow or may be wrong is done before the transaction."""
    try:
        for digest in spool_records.blobs_of(record) if record is not None else ():
            if not store.blobs.has(digest):
                raise NotFound(f"the content {digest[:15]}… never came")
        match record:
            case Start():
                return _start(store, batch, record)
            case Points():
                values: list[Point] = [(name, value, record.step, record.at) for name, value in record.values.items()]
                rows = metric_rows(values)
                return lambda work: work.points.extend(rows)
            case Parameters():
                return _parameters(parameter_rows(record.values))
            case Tags():
                marks = tag_rows(record.values)
                return lambda work: run_log.put_tags(work.tx, work.key, marks)
            case Artifact():
                return _artifact(record)
            case Model():
                _log_model(store, batch.run, record, close_model)
                return lambda work: None
            case Input():
                return _input(store, batch.project, record)
            case Remark():
                note = notes.Note(
                    record.id, batch.project, batch.run, store.actor.name, notes.checked(record.text), moment(record.at)
                )
                return lambda work: notes.insert(work.tx, replace(note, project=work.project))
            case Lost():
                return lambda work: work.lost.append((record.records, record.reason))
            case End():
                return _end(record)
        return _refusal("a record cannot be read: a later Instar wrote it")
    except InstarError as error:
        return _refusal(error.what)
    except OverflowError:
        return _refusal("a time is before the year 1 or after the year 9999")


def _refusal(reason: str) -> Change:
    return lambda work: work.refused.append(reason)


def _start(store: Store, batch: Batch, record: Start) -> Change:
    """The run itself is made at once, under the id that its process chose: making it again finds it."""
    about: dict[str, Any] = {
        "experiment": record.experiment, "started": moment(record.at), "capture": False, "id": batch.run, "cause": "user",
    }  # fmt: skip
    project = record.project or batch.project or DEFAULT_PROJECT
    tags = {**record.tags, **({PARENT: record.parent} if record.parent else {})}
    reason = ""
    try:
        runs.start(store, project, name=record.name, parameters=record.parameters, tags=tags, **about)
    except BadInput as error:  # a run with a name too many is better than none
        runs.start(store, project, **about)
        reason = error.what
    described = {
        "code": record.code, "environment": record.environment, "conditions": record.conditions,
        "process": record.process,
    }  # fmt: skip

    def change(work: _Work) -> None:
        work.tx.execute(run_table.update().where(run_table.c.key == work.key).values(described))
        if reason:
            work.refused.append(reason)

    return change


def _parameters(rows: Sequence[tuple[str, str, str | None, str]]) -> Change:
    def change(work: _Work) -> None:
        for row in rows:
            try:
                run_log.put_parameters(work.tx, work.run, work.key, [row])
            except Conflict as error:
                work.refused.append(f"{error.subject}: {error.what}")

    return change


def _artifact(record: Artifact) -> Change:
    artifacts.check_path(record.path, "run")
    return lambda work: artifacts.keep(work.tx, work.run, record.path, record.blob, record.size)


def _log_model(store: Store, run: str, record: Model, close_model: CloseModel | None) -> None:
    """A model is logged at once, in steps that can each be done again, under the id that its process chose."""
    found = runs.get_run(store, run, Columns((), (), (), False))
    for path, _, _ in record.files:
        artifacts.check_path(path, record.id)
    logged_models.create(
        store, found.project, experiment=found.experiment_id, name=record.name, run=run, id=record.id
    )  # fmt: skip
    if logged_models.get(store, record.id, deleted=True).run != run:
        raise Conflict("a logged model of that id belongs to another run")

    def work(tx: Transaction) -> None:
        for path, blob, size in record.files:
            artifacts.keep(tx, record.id, path, blob, size)

    store.database.write(work)
    if close_model is not None:
        close_model(store, record.id)


def _input(store: Store, project: str, record: Input) -> Change:
    tags = {datasets.CONTEXT: record.context} if record.context else {}
    if record.source_type != datasets.OURS:
        found = datasets.dataset(
            project, record.name, record.digest or "unknown", record.source_type, record.source, record.schema or None,
            record.profile or None,
        )  # fmt: skip
        datasets.check_tags([(found, tags)])
        return lambda work: datasets.read(work.tx, work.key, [(found, tags)])
    from instar.data import tables  # brings in the libraries for tables, which few runs name

    version = tables.get(store, project, record.name)
    ours = datasets.dataset(project, f"{version.table}@{version.number}", version.content, datasets.OURS, version.id)
    datasets.check_tags([(ours, tags)])

    def change(work: _Work) -> None:
        datasets.read(work.tx, work.key, [(ours, tags)])
        known = work.tx.execute(sa.select(run_table.c.inputs).where(run_table.c.key == work.key)).scalar_one()
        both = list(dict.fromkeys([*known, version.id]))
        work.tx.execute(run_table.update().where(run_table.c.key == work.key).values(inputs=both))

    return change


def _end(record: End) -> Change:
    if record.state not in (FINISHED, FAILED, KILLED):
        raise BadInput(f"a run cannot end as {record.state[:20]!r}")
    ended = moment(record.at)

    def change(work: _Work) -> None:
        if work.state in (RUNNING, SCHEDULED, ABANDONED):  # else somebody ended it before
            _turn(work, record.state, record.error, ended)

    return change


def _turn(work: _Work, state: str, error: str | None, ended: Any) -> None:
    text = error[: runs.LONGEST_ERROR].replace("\0", "\\0") if error else None
    values = {"state": state, "error": text, "ended": ended}
    work.tx.execute(run_table.update().where(run_table.c.key == work.key).values(values))
    work.state = state
    (run,) = load(work.tx, [work.key], Columns((), (), (), False))
    kind = "run reopened" if state == RUNNING else "run ended"
    work.entry = (kind, {"experiment": run.experiment, "step": run.step, "state": state, "error": text})


def _count(work: _Work, tag: str, number: int, reason: str) -> None:
    """Add to a count that the run's tags show, with the latest reason: `12: the disk was full`."""
    if not number:
        return
    query = sa.select(tag_table.c.value).where(tag_table.c.run == work.key, tag_table.c.name == tag)
    before = str(work.tx.execute(query).scalar() or "0").split(":")[0]
    total = number + (int(before) if before.isdecimal() else 0)
    clean = reason[:200].replace("\0", "")
    run_log.put_tags(work.tx, work.key, tag_rows({tag: f"{total}: {clean}" if clean else str(total)}))
