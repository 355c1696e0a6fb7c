"""Firings: the record of each time that a schedule of the contract ran the pipeline by itself, and why.

A schedule that is seen for the first time is *armed*: it fires for what becomes due, or lands, from then on. A firing has
a key, so that two controllers, or one that was killed and started again, begin it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import Conflict, NotFound
from instar.core.ids import new_id
from instar.core.store import Store

ARMED, RUNNING, DONE, FAILED = "armed", "running", "done", "failed"

firing = sa.Table(
    "firing",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("schedule", sa.String(200), nullable=False),
    sa.Column("key", sa.String(300), nullable=False),
    sa.Column("cause", sa.String(400), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("due", Instant, nullable=False),
    sa.Column("fired", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("ended", Instant),
    sa.Column("taken_up", sa.Integer, nullable=False),
    sa.Column("pipe", sa.String(60)),
    sa.Column("result", Json, nullable=False),
    sa.UniqueConstraint("project", "schedule", "key", name="uq_firing_key"),
)


@dataclass(frozen=True)
class Firing:
    """One time that a schedule fired.

    Attributes:
        id: `fire_…`; the cause of the walk that it set off.
        schedule: Name of the schedule in the contract.
        key: What it fired for: the moment that was due, or the state of the data; once each.
        cause: Why, in words.
        state: `"armed"`, `"running"`, `"done"` or `"failed"`.
        due: Event time at which it should have fired; the latest one, where several were missed.
        fired: Event time at which it did.
        recorded_at, ended: Wall time.
        taken_up: How often it was begun again because its process had died.
        pipe: The walk of the pipeline that came of it.
        result: JSON: what ran, or the error; of an armed or fired schedule on new data also what it saw.
    """

    id: str
    project: str
    schedule: str
    key: str
    cause: str
    state: str
    due: datetime
    fired: datetime
    recorded_at: datetime
    ended: datetime | None = None
    taken_up: int = 0
    pipe: str | None = None
    result: dict[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "firing": self.id,
            "schedule": self.schedule,
            "state": self.state,
            "cause": self.cause,
            "due": self.due.isoformat(),
            "fired": self.fired.isoformat(),
            "ended": self.ended.isoformat() if self.ended else None,
            "pipe": self.pipe,
            "result": self.result,
        }


def begin(
    store: Store,
    project: str,
    schedule: str,
    *,
    key: str,
    cause: str,
    due: datetime,
    state: str = RUNNING,
    seen: dict[str, Any] | None = None,
) -> Firing | None:
    """Put a firing on the record; None when it is there already."""
    new = Firing(
        new_id("fire"), project, schedule, key, cause, state, due, store.clock.event(), store.clock.wall(),
        store.clock.wall() if state == ARMED else None, result=seen or {},
    )  # fmt: skip

    def work(tx: Transaction) -> Firing | None:
        same = sa.select(firing.c.id).where(
            firing.c.project == project, firing.c.schedule == schedule, firing.c.key == key
        )
        if tx.execute(same).first() is not None:
            return None
        tx.execute(firing.insert().values(**vars(new)))
        _journal(tx, store, new)
        return new

    return store.database.write(work, durable=True)


def take_up(store: Store, id_: str) -> Firing:
    """Begin a firing again whose process died while it ran."""
    return _change(store, id_, lambda before: {"taken_up": before.taken_up + 1})


def finish(store: Store, id_: str, result: dict[str, Any], *, pipe: str | None = None, failed: bool = False) -> Firing:
    """Say what came of a firing.

    Raises:
        Conflict: It had ended already.
    """

    def changes(before: Firing) -> dict[str, Any]:
        whole = {**(before.result or {}), **result}
        return {"state": FAILED if failed else DONE, "ended": store.clock.wall(), "pipe": pipe, "result": whole}

    return _change(store, id_, changes)


def get(store: Store, id_: str) -> Firing:
    """The firing of that id.

    Raises:
        NotFound: There is none.
    """
    with store.database.read() as tx:
        return _get(tx, id_)


def last(store: Store, project: str, schedule: str) -> Firing | None:
    """The newest firing of a schedule, or its arming."""
    found = firings(store, project, schedule=schedule, limit=1)
    return found[0] if found else None


def firings(
    store: Store, project: str, *, schedule: str | None = None, state: str | None = None, limit: int = 100
) -> list[Firing]:
    """Firings of a project, the newest first."""
    query = sa.select(firing).where(firing.c.project == project)
    for column, value in (("schedule", schedule), ("state", state)):
        if value is not None:
            query = query.where(firing.c[column] == value)
    with store.database.read() as tx:
        return [Firing(**row._mapping) for row in tx.execute(query.order_by(firing.c.id.desc()).limit(limit))]


def _get(tx: Transaction, id_: str) -> Firing:
    row = tx.execute(sa.select(firing).where(firing.c.id == id_).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("there is no such firing", subject=id_, next_step="See instar schedule ls.")
    return Firing(**row._mapping)


def _change(store: Store, id_: str, changes: Any) -> Firing:
    def work(tx: Transaction) -> Firing:
        before = _get(tx, id_)
        if before.state != RUNNING:
            raise Conflict("the firing has ended", subject=id_, found=before.state, asked=RUNNING)
        values = changes(before)
        tx.execute(firing.update().where(firing.c.id == id_).values(**values))
        after = Firing(**{**vars(before), **values})
        _journal(tx, store, after)
        return after

    return store.database.write(work, durable=True)


def _journal(tx: Transaction, store: Store, one: Firing) -> None:
    body = {
        "schedule": one.schedule,
        "key": one.key,
        "cause": one.cause,
        "due": one.due.isoformat(),
        "pipe": one.pipe,
        "result": one.result,
    }
    journal.append(tx, store.clock, store.actor, one.project, f"schedule {one.state}", one.id, body)
