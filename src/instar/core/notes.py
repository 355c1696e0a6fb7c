"""Notes: what people say about a record, at any moment of the life cycle; plain text, by person, beside the journal.

A note is a comment, not evidence: it can be changed and taken away by whoever wrote it, and no decision reads it. The
subject is the id of a record (`run_…`, `exp_…`, `mver_…`, `tver_…`), or `table NAME` and `model NAME` for the whole of one.

    note = add(store, "flights", "run_01J…", "the learning rate was a typo")
    of(store, "flights", "run_01J…")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import ids
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import BadInput, NotAllowed, NotFound
from instar.core.store import Store

LONGEST_NOTE = 10_000  # characters; more is a document, and belongs to the artifacts

note_table = sa.Table(
    "note",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("subject", sa.String(400), nullable=False, index=True),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("edited", Instant),
)


@dataclass(frozen=True)
class Note:
    """What one person said about one record.

    Attributes:
        subject: Id of the record, or `table NAME`, `model NAME`.
        at: When it was written.
        edited: When it was last changed; None when never.
    """

    id: str
    project: str
    subject: str
    author: str
    text: str
    at: datetime
    edited: datetime | None = None


def add(store: Store, project: str, subject: str, text: str) -> Note:
    """Write a note on a record, as the store's actor. That the record is there is for the caller to see to.

    Raises:
        BadInput: The text is empty, too long, or holds a NUL.
    """
    note = Note(ids.new_id("note"), project, subject, store.actor.name, checked(text), store.clock.wall())
    store.database.write(lambda tx: insert(tx, note))
    return note


def insert(tx: Transaction, note: Note) -> None:
    """Keep a note within a transaction; one that is there already stays as it is."""
    known = tx.execute(sa.select(note_table.c.id).where(note_table.c.id == note.id)).one_or_none()
    if known is None:
        tx.execute(note_table.insert().values(vars(note)))


def edit(store: Store, note: str, text: str) -> Note:
    """Change one's own note.

    Raises:
        NotFound: There is no such note.
        NotAllowed: Somebody else wrote it.
        BadInput: The text is empty, too long, or holds a NUL.
    """
    values = {"text": checked(text), "edited": store.clock.wall()}

    def work(tx: Transaction) -> Note:
        _own(tx, store, note, "change")
        tx.execute(note_table.update().where(note_table.c.id == note).values(values))
        return _get(tx, note)

    return store.database.write(work)


def delete(store: Store, note: str) -> None:
    """Take one's own note away.

    Raises:
        NotFound: There is no such note.
        NotAllowed: Somebody else wrote it.
    """

    def work(tx: Transaction) -> None:
        _own(tx, store, note, "take away")
        tx.execute(note_table.delete().where(note_table.c.id == note))

    store.database.write(work)


def of(store: Store, project: str, subject: str) -> list[Note]:
    """Notes on one record, the oldest first."""
    return _read(store, [note_table.c.project == project, note_table.c.subject == subject], None)


def latest(store: Store, project: str, limit: int = 100) -> list[Note]:
    """The newest notes of a project, the newest first."""
    return _read(store, [note_table.c.project == project], limit)


def get(store: Store, note: str) -> Note:
    """One note.

    Raises:
        NotFound: There is no such note.
    """
    with store.database.read() as tx:
        return _get(tx, note)


def document(note: Note) -> dict[str, Any]:
    """A note as JSON: times in ISO 8601."""
    return {
        **vars(note), "at": note.at.isoformat(), "edited": note.edited.isoformat() if note.edited else None,
    }  # fmt: skip


def checked(text: str) -> str:
    """The text of a note as it is kept: without blank ends.

    Raises:
        BadInput: It is empty, too long, or holds a NUL, which no database keeps.
    """
    text = text.strip()
    if not text or len(text) > LONGEST_NOTE or "\0" in text:
        found = "nothing" if not text else "a NUL" if "\0" in text else f"{len(text)} characters"
        raise BadInput("that is no text of a note", found=found, asked=f"1 to {LONGEST_NOTE} characters")
    return text


def _read(store: Store, where: Sequence[sa.ColumnElement[bool]], newest: int | None) -> list[Note]:
    query = sa.select(note_table).where(*where)
    query = query.order_by(note_table.c.id) if newest is None else query.order_by(note_table.c.id.desc()).limit(newest)
    with store.database.read() as tx:
        return [Note(**row._mapping) for row in tx.execute(query)]


def _get(tx: Transaction, note: str) -> Note:
    row = tx.execute(sa.select(note_table).where(note_table.c.id == note)).one_or_none()
    if row is None:
        raise NotFound("there is no such note", subject=f"note {note}", next_step="List them with: instar note ls")
    return Note(**row._mapping)


def _own(tx: Transaction, store: Store, note: str, verb: str) -> None:
    known = _get(tx, note)
    if known.author != store.actor.name:
        raise NotAllowed(
            f"only its author may {verb} a note", subject=f"note {note}", found=store.actor.name, asked=known.author
        )
