"""Holds: while one stands, nothing is erased and nothing goes for its age from the calls that it covers; a person says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import NotFound
from instar.core.ids import new_id
from instar.core.store import Store

record_hold = sa.Table(
    "record_hold",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(100), nullable=False),
    sa.Column("since", Instant),
    sa.Column("until", Instant),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("placed_by", sa.String(200), nullable=False),
    sa.Column("placed_at", Instant, nullable=False),
    sa.Column("released_by", sa.String(200)),
    sa.Column("released_at", Instant),
)


@dataclass(frozen=True)
class Hold:
    """A hold on calls of an endpoint with event time in [since, until); without either it is open to that side."""

    id: str
    project: str
    endpoint: str
    since: datetime | None
    until: datetime | None
    why: str
    placed_by: str
    placed_at: datetime
    released_by: str | None = None
    released_at: datetime | None = None

    def covers(self, first: datetime, last: datetime) -> bool:
        """Does it cover any call between two event times?"""
        return (self.since is None or last >= self.since) and (self.until is None or first < self.until)


def place(
    store: Store, project: str, endpoint: str, why: str, since: datetime | None = None, until: datetime | None = None
) -> Hold:
    """Place a hold."""
    hold = Hold(new_id("hold"), project, endpoint, since, until, why, store.actor.name, store.clock.wall())

    def work(tx: Transaction) -> None:
        tx.execute(record_hold.insert().values(**vars(hold)))
        span = {"since": since.isoformat() if since else None, "until": until.isoformat() if until else None}
        journal.append(
            tx, store.clock, store.actor, project, "hold placed", hold.id, {"endpoint": endpoint, "why": why, **span}
        )

    store.database.write(work, durable=True)
    return hold


def release(store: Store, project: str, name: str, why: str) -> None:
    """End a hold.

    Raises:
        NotFound: None of that id stands.
    """

    def work(tx: Transaction) -> None:
        stands = (record_hold.c.id == name, record_hold.c.project == project, record_hold.c.released_at.is_(None))
        values = {"released_by": store.actor.name, "released_at": store.clock.wall()}
        if not tx.execute(sa.update(record_hold).where(*stands).values(**values)).rowcount:
            raise NotFound("no such hold stands", subject=name, next_step="List them: instar audit holds")
        journal.append(tx, store.clock, store.actor, project, "hold released", name, {"why": why})

    store.database.write(work, durable=True)


def standing(store: Store, project: str, endpoint: str | None = None) -> list[Hold]:
    """Holds that stand."""
    with store.database.read() as tx:
        return standing_in(tx, project, endpoint)


def standing_in(tx: Transaction, project: str, endpoint: str | None = None) -> list[Hold]:
    """`standing`, within one snapshot of the database."""
    query = sa.select(record_hold).where(record_hold.c.project == project, record_hold.c.released_at.is_(None))
    if endpoint is not None:
        query = query.where(record_hold.c.endpoint == endpoint)
    return [Hold(**row._mapping) for row in tx.execute(query.order_by(record_hold.c.id))]


def covering(holds: Sequence[Hold], first: datetime, last: datetime) -> Hold | None:
    """The first hold that covers any call between two event times."""
    return next((hold for hold in holds if hold.covers(first, last)), None)
