"""Actions: what is done about alerts, schedules and requests; each once, with its cause and what came of it.

`wanted` is the retraining policy of the contract, pure: open alerts, the schedule and the last retraining go in, the
actions that should begin now come out. An action has an idempotency key, so two controllers, or one that was killed
and started again, begin it once. Who carries it out (`cycle`) marks it started, then done or failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import Conflict, NotFound
from instar.core.ids import new_id
from instar.core.store import Store
from instar.operate.alerts import OPEN, Alert

NOTIFY, RETRAIN, ROLL_BACK, PROMOTE = "notify", "retrain", "roll back", "promote"
PLANNED, RUNNING, DONE, FAILED = "planned", "running", "done", "failed"
SCHEDULE = "schedule:"

action = sa.Table(
    "action",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("key", sa.String(300), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("revision", sa.String(80)),
    sa.Column("requested_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("result", Json, nullable=False),
    sa.UniqueConstraint("project", "key", name="uq_action_key"),
)


@dataclass(frozen=True)
class Wanted:
    """An action that a policy asks for: `cause` is an alert's id, `"schedule:monthly"` or who asked for it."""

    kind: str
    cause: str
    key: str


@dataclass(frozen=True)
class Action:
    """What was done, why, and what came of it.

    Attributes:
        id: `actn_…`.
        kind: `"notify"`, `"retrain"`, `"roll back"` or `"promote"`.
        cause: Id of the alert, the schedule, or the name of the person.
        key: Idempotency key within the project.
        state: `"planned"`, `"running"`, `"done"` or `"failed"`.
        revision: Contract revision under which it was decided.
        requested_at, ended_at: Event time.
        result: JSON: ids of what it made, or the error.
    """

    id: str
    project: str
    endpoint: str
    kind: str
    cause: str
    key: str
    state: str
    revision: str | None
    requested_at: datetime
    ended_at: datetime | None
    recorded_at: datetime
    result: dict[str, Any]


def wanted(
    endpoint: str,
    when: Sequence[str],
    alerts: Sequence[Alert],
    last: datetime | None,
    now: datetime,
    min_interval: timedelta,
    due: Callable[[str, datetime | None, datetime], bool],
) -> list[Wanted]:
    """What the retraining policy asks for now; at most one retraining. Pure.

    A retraining is wanted when an alert is open on a metric that `when` names ("drift" stands for the share of drifted
    columns, "cost" for live cost), or when a schedule that it names is due, and no retraining began within
    `min_interval`. Every alert also wants one notification.

    Args:
        when: `retrain.when` of the contract.
        alerts: Alerts of the endpoint.
        last: Event time of the last retraining, or of the first training.
        due: `plan.schedule.due`.
    """
    open_alerts = [one for one in alerts if one.state == OPEN]
    found = [Wanted(NOTIFY, one.id, f"notify:{one.id}") for one in open_alerts]
    if last is not None and now - last < min_interval:
        return found
    asked = {"drift_share" if name == "drift" else name for name in when}
    for one in open_alerts:
        if one.metric in asked:
            # An alert that stays open asks again once the last answer to it is older than the interval.
            return [*found, Wanted(RETRAIN, one.id, f"retrain:{endpoint}:{one.id}:{_stamp(last)}")]
    for name in when:
        if name.startswith(SCHEDULE) and due(name.removeprefix(SCHEDULE), last, now):
            return [*found, Wanted(RETRAIN, name, f"retrain:{endpoint}:{name}:{_stamp(last)}")]
    return found


def _stamp(last: datetime | None) -> str:
    return last.isoformat() if last else "first"


def request(
    store: Store, project: str, endpoint: str, asked: Wanted, revision: str | None = None
) -> tuple[Action, bool]:
    """Plan an action once.

    Returns:
        The action, and whether this call planned it; False when its key was known.
    """

    def work(tx: Transaction) -> tuple[Action, bool]:
        same = sa.select(action).where(action.c.project == project, action.c.key == asked.key)
        known = tx.execute(same).one_or_none()
        if known is not None:
            return Action(**known._mapping), False
        planned = Action(
            new_id("actn"), project, endpoint, asked.kind, asked.cause, asked.key, PLANNED, revision,
            store.clock.event(), None, store.clock.wall(), {},
        )  # fmt: skip
        tx.execute(action.insert().values(**vars(planned)))
        _journal(tx, store, planned)
        return planned, True

    return store.database.write(work, durable=True)


def start(store: Store, name: str) -> Action:
    """Mark a planned action as running.

    Raises:
        Conflict: It is not planned any more: somebody else took it.
    """
    return _move(store, name, (PLANNED,), RUNNING, {})


def take_up(store: Store, name: str) -> tuple[Action, int]:
    """Take up an action again whose process died while it ran; also how often that was done now."""
    before = _get(store, name).result.get("taken_up", 0)
    return _move(store, name, (RUNNING,), RUNNING, {"taken_up": before + 1}), before + 1


def finish(store: Store, name: str, result: dict[str, Any], *, failed: bool = False) -> Action:
    """Mark an action as done or failed, with what came of it.

    Raises:
        Conflict: It had ended already.
    """
    return _move(store, name, (PLANNED, RUNNING), FAILED if failed else DONE, result)


def _move(store: Store, name: str, before: tuple[str, ...], state: str, result: dict[str, Any]) -> Action:
    def work(tx: Transaction) -> Action:
        row = tx.execute(sa.select(action).where(action.c.id == name).with_for_update()).one_or_none()
        if row is None:
            raise NotFound("there is no such action", subject=name)
        if row.state not in before:
            raise Conflict("the action is past that", subject=name, found=row.state, asked=" or ".join(before))
        ended = store.clock.event() if state in (DONE, FAILED) else None
        values = {"state": state, "ended_at": ended, "result": result}
        tx.execute(action.update().where(action.c.id == name).values(**values))
        moved = Action(**{**row._mapping, **values})
        _journal(tx, store, moved)
        return moved

    return store.database.write(work, durable=True)


def _get(store: Store, name: str) -> Action:
    with store.database.read() as tx:
        row = tx.execute(sa.select(action).where(action.c.id == name)).one_or_none()
    if row is None:
        raise NotFound("there is no such action", subject=name)
    return Action(**row._mapping)


def _journal(tx: Transaction, store: Store, one: Action) -> None:
    body = {
        "endpoint": one.endpoint,
        "action": one.kind,
        "cause": one.cause,
        "key": one.key,
        "contract": one.revision,
        "result": one.result,
    }
    journal.append(tx, store.clock, store.actor, one.project, f"action {one.state}", one.id, body)


def actions(
    store: Store, project: str, *, endpoint: str | None = None, kind: str | None = None, state: str | None = None
) -> list[Action]:
    """Actions of a project, latest first."""
    query = sa.select(action).where(action.c.project == project)
    for column, value in (("endpoint", endpoint), ("kind", kind), ("state", state)):
        if value is not None:
            query = query.where(action.c[column] == value)
    with store.database.read() as tx:
        return [
            Action(**row._mapping)
            for row in tx.execute(query.order_by(action.c.requested_at.desc(), action.c.id.desc()))
        ]
