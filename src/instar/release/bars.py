"""Bars: what was rolled back stays out for a while, so that no controller walks the same model into the same wall.

A bar holds for what a bundle does (its content digest), not for one version: the same fit made again is barred as well.
It keeps new approvals and routes away until its end, in event time, and takes nothing down.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Transaction, metadata
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.release.version_records import ModelVersion

bar_table = sa.Table(
    "model_bar",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("content", sa.String(80), primary_key=True),
    sa.Column("until", Instant, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("cause", sa.String(200), nullable=False),
)


@dataclass(frozen=True)
class Bar:
    """A content that may not be routed to until a moment of event time, after it was rolled back."""

    model: str
    content: str
    until: datetime
    reason: str
    cause: str


def bar(store: Store, version: ModelVersion, until: datetime, reason: str, cause: str) -> None:
    """Keep what a version does from being routed to until `until`, in event time; a later bar is never shortened."""
    require(store.actor, Permission.OPERATE)

    def work(tx: Transaction) -> None:
        known = _bar(tx, version)
        if known is not None and known.until >= until:
            return
        here = (bar_table.c.project == version.project, bar_table.c.model == version.model)
        tx.execute(bar_table.delete().where(*here, bar_table.c.content == version.content))
        facts = {"until": until, "reason": reason, "cause": cause}
        tx.execute(
            bar_table.insert().values(project=version.project, model=version.model, content=version.content, **facts)
        )
        body = {"version": version.name, "content": version.content, "reason": reason, "cause": cause}
        body |= {"until": until.isoformat()}
        journal.append(tx, store.clock, store.actor, version.project, "model version barred", version.id, body)

    store.database.write(work, durable=True)


def barred(store: Store, version: ModelVersion, at: datetime | None = None) -> Bar | None:
    """The bar on what a version does, if one holds at `at` (event time; now by default)."""
    with store.database.read() as tx:
        found = _bar(tx, version)
    return found if found is not None and found.until > (at or store.clock.event()) else None


def _bar(tx: Transaction, version: ModelVersion) -> Bar | None:
    query = sa.select(bar_table).where(
        bar_table.c.project == version.project,
        bar_table.c.model == version.model,
        bar_table.c.content == version.content,
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else Bar(row.model, row.content, row.until, row.reason, row.cause)
