"""Registered models: the names under which versions are numbered, with what people say of them, from their first version on.

A name is a promise to whoever uses it. A name that an endpoint answers under is neither renamed nor deleted; whether one
does is handed in (`in_use`), since endpoints are a later stage's. Deleting takes the model and its versions out of the
registry, and the name is free again; the records of the versions stay, for the journal names them.

    create(store, "flights", "delay", description="Late or not", tags={"team": "operations"})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import BadInput, Conflict, NotAllowed, NotFound
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.release import webhooks
from instar.release.bars import bar_table
from instar.release.version_records import alias_table, version_table

# Why a name may not go: empty when it may. Given a model's name.
InUse = Callable[[str], str]

LONGEST_NAME = 200
LONGEST_KEY, LONGEST_VALUE = 250, 100_000  # of a tag, characters

model_table = sa.Table(
    "registered_model",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("last_number", sa.Integer, nullable=False),  # numbers of deleted versions are never given again
)
model_tag_table = sa.Table(
    "registered_model_tag",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(250), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class RegisteredModel:
    """A name with versions.

    Attributes:
        last_number: Of the newest version that it ever had; 0 before the first.
    """

    project: str
    name: str
    description: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    last_number: int
    tags: Mapping[str, str] = field(default_factory=dict)


def create(
    store: Store, project: str, name: str, *, description: str = "", tags: Mapping[str, str] | None = None
) -> RegisteredModel:
    """Make a registered model without versions.

    Raises:
        Conflict: There is one of that name.
        BadInput: That cannot be a name, or a tag is too long.
    """
    require(store.actor, Permission.RELEASE)
    _check_name(name)
    for key, value in (tags or {}).items():
        check_tag(key, value)

    def work(tx: Transaction) -> RegisteredModel:
        if _row(tx, project, name) is not None:
            raise Conflict("there is a registered model of that name", subject=f"model {name}", found=name)
        return ensure(tx, store, project, name, description, tags or {})

    return store.database.write(work, durable=True)


def ensure(
    tx: Transaction, store: Store, project: str, name: str, description: str = "", tags: Mapping[str, str] | None = None
) -> RegisteredModel:
    """The model of that name inside a transaction, made when it is not there; its journal entry may be the last statement."""
    row = _row(tx, project, name)
    if row is not None:
        return RegisteredModel(**row._mapping)
    now = store.clock.wall()
    model = RegisteredModel(project, name, description, store.actor.name, now, now, 0, dict(tags or {}))
    tx.execute(model_table.insert().values(**{c.name: getattr(model, c.name) for c in model_table.columns}))
    for key, value in model.tags.items():
        tx.execute(model_tag_table.insert().values(project=project, model=name, key=key, value=value))
    facts = {"name": name, "tags": dict(model.tags), "description": description or None}
    webhooks.announce(tx, store, project, "registered_model.created", facts)
    body = {"description": description, "tags": dict(model.tags)}
    journal.append(tx, store.clock, store.actor, project, "registered model", f"model {name}", body)
    return model


def next_number(tx: Transaction, store: Store, project: str, name: str) -> int:
    """Take the next number of a model that is there, inside the transaction which makes the version."""
    here = (model_table.c.project == project) & (model_table.c.name == name)
    last: int = tx.execute(sa.select(model_table.c.last_number).where(here).with_for_update()).scalar_one()
    tx.execute(model_table.update().where(here).values(last_number=last + 1, updated_at=store.clock.wall()))
    return last + 1


def get(store: Store, project: str, name: str) -> RegisteredModel:
    """A registered model with its tags.

    Raises:
        NotFound: There is none of that name.
    """
    with store.database.read() as tx:
        row = _row(tx, project, name)
        if row is None:
            raise _unknown(name)
        return RegisteredModel(**row._mapping, tags=tags_of(tx, project, [name]).get(name, {}))


def tags_of(tx: Transaction, project: str, names: list[str]) -> dict[str, dict[str, str]]:
    """Tags by model, in one query however many there are."""
    query = sa.select(model_tag_table).where(model_tag_table.c.project == project, model_tag_table.c.model.in_(names))
    found: dict[str, dict[str, str]] = {}
    for row in tx.execute(query.order_by(model_tag_table.c.key)):
        found.setdefault(row.model, {})[row.key] = row.value
    return found


def describe(store: Store, project: str, name: str, description: str) -> RegisteredModel:
    """Change what is said of a model."""
    require(store.actor, Permission.RELEASE)

    def work(tx: Transaction) -> None:
        _touch(tx, store, project, name, description=description)
        _note(tx, store, project, name, "registered model description", {"description": description})

    store.database.write(work, durable=True)
    return get(store, project, name)


def set_tag(store: Store, project: str, name: str, key: str, value: str | None) -> None:
    """Set a tag of a model, or take it away with None; taking away what is not there is nothing.

    Raises:
        NotFound: There is no such model.
        BadInput: Key or value are too long.
    """
    require(store.actor, Permission.RELEASE)
    check_tag(key, value or "")

    def work(tx: Transaction) -> None:
        _touch(tx, store, project, name)
        here = (model_tag_table.c.project == project, model_tag_table.c.model == name, model_tag_table.c.key == key)
        tx.execute(model_tag_table.delete().where(*here))
        if value is not None:
            tx.execute(model_tag_table.insert().values(project=project, model=name, key=key, value=value))
        _note(tx, store, project, name, "registered model tag", {"key": key, "value": value})

    store.database.write(work, durable=True)


def rename(store: Store, project: str, name: str, new_name: str, in_use: InUse) -> RegisteredModel:
    """Give a model another name, its versions, tags and aliases with it.

    Raises:
        NotFound: There is no such model.
        Conflict: The new name is taken.
        NotAllowed: Something answers under the old name.
    """
    require(store.actor, Permission.RELEASE)
    _check_name(new_name)
    _check_free(name, in_use(name), "renamed")

    def work(tx: Transaction) -> None:
        if _row(tx, project, name) is None:
            raise _unknown(name)
        if _row(tx, project, new_name) is not None:
            raise Conflict("there is a registered model of that name", subject=f"model {new_name}", found=new_name)
        now = store.clock.wall()
        here = (model_table.c.project == project) & (model_table.c.name == name)
        tx.execute(model_table.update().where(here).values(name=new_name, updated_at=now))
        for table in (version_table, alias_table, model_tag_table, bar_table):
            mine = [table.c.project == project, table.c.model == name]
            if table is version_table:
                mine.append(version_table.c.deleted_at.is_(None))
            tx.execute(table.update().where(*mine).values(model=new_name))
        _note(tx, store, project, new_name, "registered model renamed", {"before": name, "name": new_name})

    store.database.write(work, durable=True)
    return get(store, project, new_name)


def delete(store: Store, project: str, name: str, in_use: InUse) -> None:
    """Take a model and its versions out of the registry; the name is free again, the bundles stay.

    Raises:
        NotFound: There is no such model.
        NotAllowed: Something answers under its name, or did: its calls are on the record.
    """
    require(store.actor, Permission.RELEASE)
    _check_free(name, in_use(name), "deleted")

    def work(tx: Transaction) -> None:
        if _row(tx, project, name) is None:
            raise _unknown(name)
        mine = (version_table.c.project == project, version_table.c.model == name, version_table.c.deleted_at.is_(None))
        numbers = list(tx.execute(sa.select(version_table.c.number).where(*mine).order_by("number")).scalars())
        tx.execute(version_table.update().where(*mine).values(deleted_at=store.clock.wall()))
        for table in (alias_table, model_tag_table):
            tx.execute(table.delete().where(table.c.project == project, table.c.model == name))
        tx.execute(model_table.delete().where(model_table.c.project == project, model_table.c.name == name))
        _note(tx, store, project, name, "registered model deleted", {"versions": numbers})

    store.database.write(work, durable=True)


def check_tag(key: str, value: str) -> None:
    """Raises BadInput unless a tag's key and value are within the limits."""
    if not key or len(key) > LONGEST_KEY:
        raise BadInput("that cannot be a tag's key", found=repr(key[:60]), asked=f"1 to {LONGEST_KEY} characters")
    if len(value) > LONGEST_VALUE:
        raise BadInput(
            "the tag's value is too long", subject=f"tag {key}", found=f"{len(value)} characters",
            asked=f"{LONGEST_VALUE} or fewer",
        )  # fmt: skip


def _check_name(name: str) -> None:
    wrong = (
        not name.strip() or len(name) > LONGEST_NAME or any(letter in name for letter in "/:\0") or name in (".", "..")
    )
    if wrong or name.startswith("mver_"):
        raise BadInput(
            "that cannot be the name of a model", found=repr(name[:60]),
            asked=f"1 to {LONGEST_NAME} characters without '/' and ':'",
        )  # fmt: skip


def _check_free(name: str, why: str, verb: str) -> None:
    if why:
        raise NotAllowed(f"it cannot be {verb}: {why}", subject=f"model {name}")


def _row(tx: Transaction, project: str, name: str) -> sa.Row[Any] | None:
    query = sa.select(model_table).where(model_table.c.project == project, model_table.c.name == name)
    return tx.execute(query).one_or_none()


def _touch(tx: Transaction, store: Store, project: str, name: str, **values: str) -> None:
    here = (model_table.c.project == project) & (model_table.c.name == name)
    if not tx.execute(model_table.update().where(here).values(updated_at=store.clock.wall(), **values)).rowcount:
        raise _unknown(name)


def _note(tx: Transaction, store: Store, project: str, name: str, kind: str, body: dict[str, Any]) -> None:
    journal.append(tx, store.clock, store.actor, project, kind, f"model {name}", body)


def _unknown(name: str) -> NotFound:
    return NotFound(
        "there is no such registered model", subject=f"model {name}", next_step="List them: instar models ls"
    )
