"""Who was refused what, counted by the minute when callers are turned away: not in the journal, which nobody may fill.

One row for each minute, caller, route and status, however often it was tried; rows of 90 days are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from instar.core.database import Instant, Transaction, metadata
from instar.core.store import Store

access_refusal = sa.Table(
    "access_refusal",
    metadata,
    sa.Column("minute", Instant, primary_key=True),
    sa.Column("caller", sa.String(200), primary_key=True),
    sa.Column("route", sa.String(300), primary_key=True),
    sa.Column("status", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)

KEPT = timedelta(days=90)


@dataclass(frozen=True, order=True)
class Refusal:
    """One kind of refusal within a minute.

    Attributes:
        caller: Name of the token; `nobody` without a valid one.
        route: Method and path of the route, with parameters by name: a few hundred there are.
        project: The project that was asked for; empty where it is not known.
    """

    minute: datetime
    caller: str
    route: str
    status: int
    project: str = ""


def note(store: Store, counts: Mapping[Refusal, int]) -> None:
    """Add to what is counted."""
    if not counts:
        return

    def work(tx: Transaction) -> None:
        for one, count in sorted(counts.items()):
            where = [access_refusal.c[name] == value for name, value in vars(one).items()]
            changed = tx.execute(access_refusal.update().where(*where).values(count=access_refusal.c.count + count))
            if not changed.rowcount:
                tx.execute(access_refusal.insert().values(**vars(one), count=count))
        tx.execute(access_refusal.delete().where(access_refusal.c.minute < store.clock.wall() - KEPT))

    store.database.write(work)


def refusals(
    tx: Transaction, *, projects: Sequence[str] | None = None, caller: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """What was refused, the latest first; of some projects, or of one caller, if asked."""
    query = sa.select(access_refusal)
    if projects is not None:
        query = query.where(access_refusal.c.project.in_(projects))
    if caller is not None:
        query = query.where(access_refusal.c.caller == caller)
    order = (access_refusal.c.minute.desc(), access_refusal.c.caller, access_refusal.c.route)
    rows = tx.execute(query.order_by(*order).limit(limit))
    return [dict(row._mapping) for row in rows]
