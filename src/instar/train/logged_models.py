"""Logged models: a fitted model while it is being logged, from its first file until it is a bundle.

A client opens one, uploads the files of its folder as artifacts under its id, and closes it: ready, and then the folder is
a bundle (`folder_bundle`), or failed. Parameters are written once; tags move.

    model = create(store, "flights", experiment="exp_…", name="model", run="run_…")
    finalize(store, model.id, READY, bundle=digest)
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import journal, lineage
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.train.run_values import check_text

PENDING, READY, FAILED = "pending", "ready", "failed"
PACKED = "was packed as"  # how lineage joins a model and its bundle

LONGEST_NAME = 500  # characters, of its type, too
LONGEST_KEY, LONGEST_VALUE = 250, 100_000  # characters, of parameters and tags, as of those of a run

logged_model_table = sa.Table(
    "logged_model",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("experiment", sa.String(60), nullable=False),
    sa.Column("name", sa.String(500), nullable=False),
    sa.Column("model_type", sa.String(500), nullable=False),
    sa.Column("run", sa.String(60), nullable=False, index=True),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("bundle", sa.String(80)),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
    sa.Index("ix_logged_model_experiment_created_at", "experiment", "created_at"),
)
tag_table = sa.Table(
    "logged_model_tag",
    metadata,
    sa.Column("model", sa.String(40), primary_key=True),
    sa.Column("key", sa.String(250), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
parameter_table = sa.Table(
    "logged_model_parameter",
    metadata,
    sa.Column("model", sa.String(40), primary_key=True),
    sa.Column("key", sa.String(250), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class LoggedModel:
    """A model that somebody logs, or logged.

    Attributes:
        id: `m-` and 32 hexadecimal letters.
        experiment: Id of its experiment.
        run: Id of the run that made it; empty for none.
        state: `"pending"`, `"ready"` or `"failed"`.
        reason: Why it failed, or why its folder is no bundle.
        bundle: Digest of the bundle that its folder is, once it is ready.
    """

    id: str
    project: str
    experiment: str
    name: str
    model_type: str
    run: str
    state: str
    reason: str
    bundle: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


def new_id() -> str:
    """An id for a model, in the form that clients know."""
    return f"m-{uuid.uuid4().hex}"


def create(
    store: Store,
    project: str,
    *,
    experiment: str,
    name: str,
    run: str = "",
    model_type: str = "",
    parameters: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    id: str | None = None,
) -> LoggedModel:
    """Open a model; its files are uploaded next.

    Args:
        id: One that the caller chose (`m-…`), so that opening it again finds it.
        experiment: Id of an experiment of the project.
        run: Id of the run that made it.

    Raises:
        BadInput: The name, a tag or a parameter cannot be kept.
    """
    _check_name(name)
    check_text(model_type, "the type of a logged model", repr(model_type[:60]))
    if len(model_type) > LONGEST_NAME or not _is_id(id or new_id()):
        raise BadInput("that cannot be the id or the type of a logged model", found=repr((id, model_type[:60])))
    _check(parameters or {}, LONGEST_VALUE, "parameter")
    _check(tags or {}, LONGEST_VALUE, "tag")
    now = store.clock.wall()
    model = LoggedModel(
        id or new_id(), project, experiment, name, model_type, run, PENDING, "", None, store.actor.name, now, now,
        tags=dict(tags or {}), parameters=dict(parameters or {}),
    )  # fmt: skip
    values = {column.name: getattr(model, column.name) for column in logged_model_table.columns}

    def work(tx: Transaction) -> None:
        known = sa.select(logged_model_table.c.id).where(logged_model_table.c.id == model.id)
        if id is not None and tx.execute(known).first() is not None:
            return
        tx.execute(logged_model_table.insert().values(**values))
        _put(tx, tag_table, model.id, model.tags)
        _put(tx, parameter_table, model.id, model.parameters)
        if run:
            lineage.link(tx, project, run, "logged", model.id)

    store.database.write(work)
    return model


def get(store: Store, model: str, *, project: str | None = None, deleted: bool = False) -> LoggedModel:
    """A model with its tags and parameters.

    Args:
        project: It must be of this project.
        deleted: A deleted one counts, too.

    Raises:
        NotFound: There is none of that id.
    """
    with store.database.read() as tx:
        return complete(tx, [_required(tx, model, project, deleted)])[0]


def finalize(store: Store, model: str, state: str, *, bundle: str | None = None, reason: str = "") -> LoggedModel:
    """Close a model: ready or failed. Closing it again in the same way changes nothing.

    Args:
        bundle: Digest of the bundle that its folder is.
        reason: Why it failed, or why its folder is no bundle.

    Raises:
        BadInput: It cannot be closed in that state.
        Conflict: It is closed otherwise.
    """
    if state not in (READY, FAILED):
        raise BadInput("a logged model is closed as ready or as failed", subject=f"model {model}", found=state)

    def work(tx: Transaction) -> None:
        known = _required(tx, model)
        if known.state == state and known.bundle == bundle:
            return
        if known.state == READY and state == FAILED:
            raise Conflict("it is ready already", subject=f"model {model}", found=known.state, asked=state)
        now = store.clock.wall()
        values = {"state": state, "bundle": bundle, "reason": reason, "updated_at": now}
        tx.execute(logged_model_table.update().where(logged_model_table.c.id == model).values(**values))
        if bundle:
            lineage.link(tx, known.project, model, PACKED, bundle)
        body = {"name": known.name, "state": state, "bundle": bundle, "run": known.run}
        journal.append(tx, store.clock, store.actor, known.project, "logged model", model, body)

    store.database.write(work, durable=True)
    return get(store, model)


def delete(store: Store, model: str) -> None:
    """Take a model out of sight; what was registered from it stays, and so does its record."""

    def work(tx: Transaction) -> None:
        known = _required(tx, model)
        now = store.clock.wall()
        row = logged_model_table.update().where(logged_model_table.c.id == model)
        tx.execute(row.values(deleted_at=now, updated_at=now))
        body = {"name": known.name, "bundle": known.bundle}
        journal.append(tx, store.clock, store.actor, known.project, "logged model deleted", model, body)

    store.database.write(work, durable=True)


def set_tags(store: Store, model: str, tags: Mapping[str, str]) -> None:
    """Add tags, or change them."""
    _check(tags, LONGEST_VALUE, "tag")

    def work(tx: Transaction) -> None:
        _required(tx, model)
        tx.execute(tag_table.delete().where(tag_table.c.model == model, tag_table.c.key.in_(list(tags))))
        _put(tx, tag_table, model, tags)
        _touch(tx, store, model)

    store.database.write(work)


def delete_tag(store: Store, model: str, key: str) -> None:
    """Take a tag away.

    Raises:
        NotFound: There is no such tag.
    """

    def work(tx: Transaction) -> None:
        _required(tx, model)
        if not tx.execute(tag_table.delete().where(tag_table.c.model == model, tag_table.c.key == key)).rowcount:
            raise NotFound("it has no such tag", subject=f"model {model}", found=key)
        _touch(tx, store, model)

    store.database.write(work)


def log_parameters(store: Store, model: str, parameters: Mapping[str, str]) -> None:
    """Write parameters, each once: the same value again is nothing.

    Raises:
        Conflict: One has another value already; then none is written.
    """
    _check(parameters, LONGEST_VALUE, "parameter")

    def work(tx: Transaction) -> None:
        _required(tx, model)
        known = _read(tx, parameter_table, [model]).get(model, {})
        changed = [key for key, value in parameters.items() if known.get(key, value) != value]
        if changed:
            key = changed[0]
            raise Conflict(
                "a parameter is written once", subject=f"parameter {key} of model {model}", found=known[key],
                asked=parameters[key],
            )  # fmt: skip
        _put(tx, parameter_table, model, {key: value for key, value in parameters.items() if key not in known})
        _touch(tx, store, model)

    store.database.write(work)


def complete(tx: Transaction, found: Sequence[LoggedModel]) -> list[LoggedModel]:
    """The models with tags and parameters, in two queries however many they are."""
    names = [model.id for model in found]
    tags, parameters = _read(tx, tag_table, names), _read(tx, parameter_table, names)
    return [
        LoggedModel(**{**vars(model), "tags": tags.get(model.id, {}), "parameters": parameters.get(model.id, {})})
        for model in found
    ]


def _required(tx: Transaction, model: str, project: str | None = None, deleted: bool = False) -> LoggedModel:
    row = tx.execute(sa.select(logged_model_table).where(logged_model_table.c.id == model)).one_or_none()
    if row is None or (project is not None and row.project != project) or (row.deleted_at and not deleted):
        raise NotFound("there is no such logged model", subject=f"model {model}")
    return LoggedModel(**row._mapping)


def _touch(tx: Transaction, store: Store, model: str) -> None:
    row = logged_model_table.update().where(logged_model_table.c.id == model)
    tx.execute(row.values(updated_at=store.clock.wall()))


def _put(tx: Transaction, table: sa.Table, model: str, values: Mapping[str, str]) -> None:
    if values:
        tx.execute(table.insert(), [{"model": model, "key": key, "value": value} for key, value in values.items()])


def _read(tx: Transaction, table: sa.Table, models: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in tx.execute(sa.select(table).where(table.c.model.in_(models)).order_by(table.c.key)):
        found.setdefault(row.model, {})[row.key] = row.value
    return found


def _is_id(text: str) -> bool:
    return text.startswith("m-") and text[2:].isalnum() and text.isascii() and len(text) <= 40


def _check_name(name: str) -> None:
    check_text(name, "the name of a logged model", repr(name[:60]))
    wrong = sorted(set(name) & set("/:.%\"'"))
    if not name.strip() or len(name) > LONGEST_NAME or wrong:
        raise BadInput(
            "that cannot be the name of a logged model", found=repr(name[:60]),
            asked="1 to 500 characters, none of / : . % \" '",
        )  # fmt: skip


def _check(values: Mapping[str, Any], longest: int, what: str) -> None:
    for key, value in values.items():
        check_text(key, f"the key of a {what}", repr(key[:60]))
        if not key or len(key) > LONGEST_KEY:
            raise BadInput(
                f"that cannot be a {what}'s key", found=repr(key[:60]), asked=f"1 to {LONGEST_KEY} characters"
            )
        check_text(value, f"the value of a {what}", f"{what} {key}")
        if len(value) > longest:
            raise BadInput(
                f"the {what}'s value is too long", subject=f"{what} {key}", found=f"{len(value)} characters",
                asked=f"{longest} or fewer",
            )  # fmt: skip
