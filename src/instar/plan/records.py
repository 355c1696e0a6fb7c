"""The record of one walk, written while it runs: its beginning and end, and each execution, under the project's lease.

Every transaction confirms the lease. The end of one execution and the beginning of the next go together where nothing of
the user's runs between them, and the statements are sent as they are: writing takes a quarter of a millisecond a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Transaction, at_driver, microseconds
from instar.core.ids import new_id
from instar.core.store import Store
from instar.plan import leases, output
from instar.plan.events import Walked
from instar.plan.executions import ABANDONED, DONE, FAILED, RUNNING, Execution, execution, pipeline_run
from instar.plan.kinds import Stored

_COLUMNS = [
    (column.name, column.type if isinstance(column.type, sa.types.TypeDecorator) else None)
    for column in execution.columns
]
_INSERT = "INSERT INTO execution ({}) VALUES ({})".format(
    ", ".join(f'"{name}"' for name, _ in _COLUMNS), ", ".join("?" for _ in _COLUMNS)
)
_END = "UPDATE execution SET state = ?, ended = ?, error = ?, ref = ?, digest = ?, log = ? WHERE id = ?"
_LINK = "INSERT INTO lineage_edge (source, target, relation, project) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class Records:
    """Writes what happens in one walk.

    Args:
        lease: The project's, which is confirmed with everything that is written.
    """

    def __init__(
        self, store: Store, project: str, lease: leases.Lease, *, cause: str, contract: str, targets: list[str] | None
    ) -> None:
        self._store, self._project, self._lease = store, project, lease
        self._cause, self._contract, self._targets = cause, contract, targets
        self.pipe = new_id("pipe")
        self.executions: list[Execution] = []  # that ended well
        self._ended: list[Execution] = []  # and are to be written

    def begin(self, resumes: str | None) -> None:
        """Say that the walk has begun."""
        values = {
            "id": self.pipe,
            "project": self._project,
            "state": RUNNING,
            "cause": self._cause,
            "actor": self._store.actor.name,
            "contract": self._contract,
            "targets": self._targets,
            "steps": [],
            "event_at": self._store.clock.event(),
            "started": self._store.clock.wall(),
            "resumes": resumes,
        }

        def work(tx: Transaction) -> None:
            leases.confirm(tx, self._lease)
            tx.execute(pipeline_run.insert().values(**values))

        self._store.database.write(work)

    def start(
        self,
        step: str,
        kind: str,
        key: str,
        plain: Mapping[str, Any],
        reasons: Sequence[Mapping[str, Any]],
        *,
        attempt: int = 1,
        partition: str | None = None,
    ) -> Execution:
        """Say that an attempt begins; before anything of it runs."""
        begun = Execution(
            id=new_id("exec"),
            project=self._project,
            pipe=self.pipe,
            step=step,
            kind=kind,
            key=key,
            state=RUNNING,
            cause=self._cause,
            actor=self._store.actor.name,
            event_at=self._store.clock.event(),
            started=self._store.clock.wall(),
            ingredients=plain,
            reasons=[dict(one) for one in reasons],
            parameters=dict(plain.get("parameters", {})),
            attempt=attempt,
            partition=partition,
        )
        self._write(begun)
        return begun

    def end(
        self,
        begun: Execution,
        state: str,
        *,
        stored: Stored | None = None,
        error: str | None = None,
        log: str | None = None,
        later: bool = False,
    ) -> Execution:
        """Say how an attempt ended.

        Args:
            later: Write it with whatever is written next, which follows at once.
        """
        ref, digest = (stored.ref, stored.digest) if stored else (None, None)
        ended = replace(
            begun, state=state, ended=self._store.clock.wall(), error=error, ref=ref, digest=digest, log=log
        )
        self._ended.append(ended)
        if state == DONE:
            self.executions.append(ended)
        if not later:
            self.flush()
        return ended

    def flush(self) -> None:
        """Write what was put off.

        Raises:
            Conflict: The lease was lost; whoever has it now has closed these executions.
        """
        if self._ended:
            self._write(None)

    def confirm(self) -> None:
        """Prove that the lease is still ours, before an output is kept."""
        with self._store.database.read() as tx:
            leases.confirm(tx, self._lease)

    def close(self, state: str, steps: Sequence[Walked]) -> None:
        """Say that the walk has ended, and how; into the journal, too, if it changed anything."""
        ran = [one.step for one in steps if one.state == DONE]
        ended, pending = self._store.clock.wall(), list(self._ended)

        def work(tx: Transaction) -> None:
            leases.confirm(tx, self._lease)
            self._end_all(tx, pending)
            own = pipeline_run.update().where(pipeline_run.c.id == self.pipe)
            tx.execute(own.values(state=state, steps=[_plain(one) for one in steps], ended=ended))
            if ran or state == FAILED:  # a walk that found all as it was changed nothing
                body = {
                    "state": state,
                    "cause": self._cause,
                    "contract": self._contract,
                    "ran": ran,
                    "executions": [one.id for one in self.executions],
                }
                store = self._store
                journal.append(tx, store.clock, store.actor, self._project, "pipeline run", self.pipe, body)

        self._store.database.write(work, durable=bool(ran) or state == FAILED)
        self._ended.clear()

    def _write(self, begun: Execution | None) -> None:
        pending = list(self._ended)

        def work(tx: Transaction) -> None:
            leases.confirm(tx, self._lease)
            self._end_all(tx, pending)
            if begun is not None:
                at_driver(tx, _INSERT, _bound_all(begun, tx))

        self._store.database.write(work)
        del self._ended[: len(pending)]

    def _end_all(self, tx: Transaction, ended: Sequence[Execution]) -> None:
        for one in ended:
            when = microseconds(one.ended) if one.ended is not None else None
            values = (one.state, when, one.error, one.ref, one.digest, one.log, one.id)
            at_driver(tx, _END, values)
            if one.ref is not None and one.partition is None:
                at_driver(tx, _LINK, (one.id, one.ref, "made", self._project))


def repair(store: Store, project: str) -> int:
    """Mark executions whose process died, and keep what they printed; called while the project's lease is held.

    Returns:
        How many there were.
    """
    now = store.clock.wall()
    walks = (pipeline_run.c.project == project) & (pipeline_run.c.state == RUNNING)
    with store.database.read() as tx:
        query = execution.select().with_only_columns(execution.c.id)
        dead = list(tx.execute(query.where(execution.c.project == project, execution.c.state == RUNNING)).scalars())
        open_walks = list(tx.execute(sa.select(pipeline_run.c.id).where(walks)).scalars())
        last = sa.select(sa.func.max(execution.c.id)).where(execution.c.pipe.in_(open_walks)).group_by(execution.c.pipe)
        ended = set(tx.execute(last).scalars()).difference(dead)
    if not dead and not open_walks:
        return 0
    for id_ in ended:  # the file of one that was silent may have waited for the next
        output.live_file(store, id_).unlink(missing_ok=True)
    logs = {id_: output.collect(store, id_) for id_ in dead}

    def work(tx: Transaction) -> None:
        for id_, log in logs.items():
            own = (execution.c.id == id_) & (execution.c.state == RUNNING)
            tx.execute(execution.update().where(own).values(state=ABANDONED, ended=now, log=log))
        tx.execute(pipeline_run.update().where(walks).values(state=ABANDONED, ended=now))

    store.database.write(work)
    return len(dead)


def _bound_all(one: Execution, tx: Transaction) -> list[Any]:
    values = vars(one)  # of a plain dataclass
    return [
        values[name] if kind is None else kind.process_bind_param(values[name], tx.dialect) for name, kind in _COLUMNS
    ]


def _plain(one: Walked) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(one)
    if not one.partitions:
        del plain["partitions"]
    return plain
