"""The journal: the append-only, hash-chained record of decisions and changes of state, one chain a project.

Each entry's digest covers its content and the digest of the entry before it, so changing, removing or re-ordering one
breaks the chain from there on. `append` exists only inside the transaction of the change and is its last statement: the
project's head row serialises writers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core.clock import Clock
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.identity import Actor
from instar.core.ids import digest_of

GENESIS = "b3:" + "0" * 64

journal_entry = sa.Table(
    "journal_entry",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(100), nullable=False),
    sa.Column("subject", sa.String(400), nullable=False, index=True),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("body", Json, nullable=False),
    sa.Column("previous", sa.String(80), nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
)
journal_head = sa.Table(
    "journal_head",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
)


@dataclass(frozen=True)
class Entry:
    """One decision or change of state."""

    project: str
    number: int
    kind: str
    subject: str
    actor: str
    event_at: datetime
    recorded_at: datetime
    body: dict[str, Any]
    previous: str
    digest: str


@dataclass(frozen=True)
class Verification:
    """What checking a chain found: the first entry that does not hold, if any."""

    project: str
    entries: int
    head: str
    broken_at: int | None = None
    reason: str = ""

    @property
    def consistent(self) -> bool:
        return self.broken_at is None


def append(
    tx: Transaction, clock: Clock, actor: Actor, project: str, kind: str, subject: str, body: dict[str, Any]
) -> Entry:
    """Add an entry to the project's chain; the last statement of the transaction that makes the change.

    Args:
        kind: What happened, e.g. `"table version"`, `"policy revision"`.
        subject: Id of the record it happened to.
        body: JSON facts: evidence by id, contract revision, cause, idempotency key.
    """
    head = tx.execute(sa.select(journal_head).where(journal_head.c.project == project).with_for_update()).one_or_none()
    number, previous = (head.number + 1, head.digest) if head else (1, GENESIS)
    values: dict[str, Any] = {
        "project": project,
        "number": number,
        "kind": kind,
        "subject": subject,
        "actor": actor.name,
        "event_at": clock.event(),
        "recorded_at": clock.wall(),
        "body": body,
        "previous": previous,
    }
    values["digest"] = _chain_digest(values)
    tx.execute(journal_entry.insert().values(**values))
    new_head = {"number": number, "digest": values["digest"]}
    if head:
        tx.execute(journal_head.update().where(journal_head.c.project == project).values(**new_head))
    else:
        tx.execute(journal_head.insert().values(project=project, **new_head))
    return Entry(**values)


def entries(
    tx: Transaction, project: str, *, kind: str | None = None, subject: str | None = None, after: int = 0
) -> list[Entry]:
    """Entries of a project in order, optionally of one kind, on one subject, or after a number."""
    query = sa.select(journal_entry).where(journal_entry.c.project == project, journal_entry.c.number > after)
    if kind is not None:
        query = query.where(journal_entry.c.kind == kind)
    if subject is not None:
        query = query.where(journal_entry.c.subject == subject)
    return [Entry(**row._mapping) for row in tx.execute(query.order_by(journal_entry.c.number))]


def latest(
    tx: Transaction, project: str, limit: int, *, before: int | None = None, kind: str | None = None
) -> list[Entry]:
    """The newest entries of a project, newest first; of one kind, or older than a number, if asked."""
    query = sa.select(journal_entry).where(journal_entry.c.project == project)
    if before is not None:
        query = query.where(journal_entry.c.number < before)
    if kind is not None:
        query = query.where(journal_entry.c.kind == kind)
    rows = tx.execute(query.order_by(journal_entry.c.number.desc()).limit(limit))
    return [Entry(**row._mapping) for row in rows]


def projects(tx: Transaction) -> list[str]:
    """Projects that have a chain."""
    return list(tx.execute(sa.select(journal_head.c.project).order_by(journal_head.c.project)).scalars())


def verify(tx: Transaction, project: str) -> Verification:
    """Walk the whole chain and say where it first does not hold, if anywhere."""
    head = tx.execute(sa.select(journal_head).where(journal_head.c.project == project)).one_or_none()
    previous, count = GENESIS, 0
    for row in _walk(tx, project):
        reason = _fault(row, count + 1, previous)
        if reason:
            return Verification(project, count, previous, count + 1, reason)
        previous, count = row["digest"], count + 1
    if (head.number, head.digest) != (count, previous) if head else count:
        return Verification(
            project, count, previous, count + 1, "the chain and its head disagree: entries are missing at its end"
        )
    return Verification(project, count, previous)


def _walk(tx: Transaction, project: str) -> Iterator[dict[str, Any]]:
    query = sa.select(journal_entry).where(journal_entry.c.project == project).order_by(journal_entry.c.number)
    for row in tx.execute(query):
        yield dict(row._mapping)


def _fault(row: dict[str, Any], number: int, previous: str) -> str:
    if row["number"] != number:
        return f"entry {number} is missing"
    if row["previous"] != previous:
        return "it does not follow the entry before it"
    found = row.pop("digest")
    row_digest = _chain_digest(row)
    row["digest"] = found
    return "" if found == row_digest else "its content was changed"


def _chain_digest(values: dict[str, Any]) -> str:
    plain = {**values, "event_at": values["event_at"].isoformat(), "recorded_at": values["recorded_at"].isoformat()}
    return digest_of(plain)
