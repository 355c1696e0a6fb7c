"""Alerts: which metric, how much, since when; opened and closed by measurements after each look of the monitors.

An alert opens when the last `consecutive` deciding measurements of one thing are breaches, and closes with the first one
that is not. A measurement with too few rows decides nothing. One thing has at most one open alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import journal
from instar.core.clock import Clock
from instar.core.database import Instant, Transaction, metadata, rows_where
from instar.core.errors import NotFound
from instar.core.identity import Actor
from instar.core.ids import new_id
from instar.core.store import Store
from instar.operate.measurement import BREACH, OK, Measurement, recent

OPEN, CLOSED = "open", "closed"

alert = sa.Table(
    "alert",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("metric", sa.String(60), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("limit", sa.Float, nullable=False),
    sa.Column("since", Instant, nullable=False),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("closed_at", Instant),
    sa.Column("measurement", sa.String(400), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)
rows_where(
    sa.Index("ux_alert_open", alert.c.endpoint, alert.c.metric, alert.c.subject, unique=True),
    alert.c.state == OPEN,
)


@dataclass(frozen=True)
class Alert:
    """A metric that is over its limit.

    Attributes:
        id: `alrt_…`.
        metric, subject: The monitor and what it looked at, e.g. `"drift"` of `"dep_hour"`.
        value, limit: As measured when it opened.
        since: Start of the first window of the unbroken run of breaches.
        opened_at, closed_at: Event time.
        measurement: Id of the measurement that opened it.
    """

    id: str
    project: str
    endpoint: str
    metric: str
    subject: str
    state: str
    value: float
    limit: float
    since: datetime
    opened_at: datetime
    closed_at: datetime | None
    measurement: str
    text: str


@dataclass(frozen=True)
class Changed:
    """What one look changed."""

    opened: tuple[Alert, ...] = ()
    closed: tuple[Alert, ...] = ()


def update(
    tx: Transaction, clock: Clock, actor: Actor, project: str, found: Sequence[Measurement], consecutive: int = 1
) -> Changed:
    """Open and close alerts after a look, within the transaction that keeps its measurements.

    Args:
        found: The look's measurements, of one endpoint, already kept.
        consecutive: Breaches in a row that open an alert.
    """
    deciding = [one for one in found if one.state in (OK, BREACH)]
    if not deciding:
        return Changed()
    standing = {(one.metric, one.subject): one for one in _open(tx, deciding[0].endpoint)}
    opened, closed = [], []
    for one in deciding:
        known = standing.get((one.monitor, one.subject))
        if one.state == BREACH and known is None:
            run = recent(tx, one.endpoint, one.monitor, one.subject, consecutive)
            if len(run) == consecutive and all(past.state == BREACH for past in run):
                opened.append(_opened(clock, project, one, run[-1].window_start))
        elif one.state == OK and known is not None:
            closed.append(replace(known, state=CLOSED, closed_at=clock.event()))
    if opened:
        tx.execute(alert.insert(), [vars(one) for one in opened])
    for ended in closed:
        tx.execute(alert.update().where(alert.c.id == ended.id).values(state=CLOSED, closed_at=ended.closed_at))
    for one_alert in (*opened, *closed):
        kind = "alert opened" if one_alert.state == OPEN else "alert closed"
        journal.append(tx, clock, actor, project, kind, one_alert.id, _body(one_alert))
    return Changed(tuple(opened), tuple(closed))


def _opened(clock: Clock, project: str, found: Measurement, since: datetime) -> Alert:
    if found.value is None or found.limit is None:
        raise ValueError(f"measurement {found.id} is a breach without a value and a limit")
    value, limit = found.value, found.limit
    text = f"{found.monitor} of {found.subject} is {value:.3g}, the limit is {limit:.3g}, since {since:%Y-%m-%d %H:%M}Z"
    if found.detail.get("why"):
        text += f": {found.detail['why']}"
    return Alert(
        new_id("alrt"), project, found.endpoint, found.monitor, found.subject, OPEN, value, limit, since,
        clock.event(), None, found.id, text,
    )  # fmt: skip


def _body(one: Alert) -> dict[str, Any]:
    return {
        "endpoint": one.endpoint,
        "metric": one.metric,
        "subject": one.subject,
        "value": one.value,
        "limit": one.limit,
        "since": one.since.isoformat(),
        "measurement": one.measurement,
    }


def _open(tx: Transaction, endpoint: str) -> list[Alert]:
    query = sa.select(alert).where(alert.c.endpoint == endpoint, alert.c.state == OPEN)
    return [Alert(**row._mapping) for row in tx.execute(query)]


def alerts(store: Store, project: str, *, endpoint: str | None = None, state: str | None = None) -> list[Alert]:
    """Alerts of a project, latest first."""
    query = sa.select(alert).where(alert.c.project == project)
    if endpoint is not None:
        query = query.where(alert.c.endpoint == endpoint)
    if state is not None:
        query = query.where(alert.c.state == state)
    with store.database.read() as tx:
        return [
            Alert(**row._mapping) for row in tx.execute(query.order_by(alert.c.opened_at.desc(), alert.c.id.desc()))
        ]


def get(store: Store, name: str) -> Alert:
    """One alert by id.

    Raises:
        NotFound: No alert has it.
    """
    with store.database.read() as tx:
        row = tx.execute(sa.select(alert).where(alert.c.id == name)).one_or_none()
    if row is None:
        raise NotFound(
            "there is no such alert", subject=name, next_step="List them: GET /api/projects/{project}/alerts."
        )
    return Alert(**row._mapping)
