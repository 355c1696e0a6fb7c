"""Model versions as records: the tables of the registry and what a row of them says, read at any later moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Transaction, metadata, rows_where
from instar.core.store import Store

Origin = Literal["baseline", "recipe", "refit", "ad hoc", "logged", "file"]
VersionState = Literal["registered", "approved", "rejected"]

version_table = sa.Table(
    "model_version",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("bundle", sa.String(80), nullable=False, index=True),
    sa.Column("content", sa.String(80), nullable=False, index=True),
    sa.Column("run", sa.String(60), nullable=False),
    sa.Column("recipe", sa.String(80), nullable=False),
    sa.Column("origin", sa.String(20), nullable=False),
    sa.Column("refit_of", sa.String(40)),
    sa.Column("evaluation", sa.String(40)),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("stage", sa.String(200), nullable=False),
    sa.Column("registered_by", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("source", sa.Text, nullable=False, server_default=""),
    sa.Column("run_link", sa.Text, nullable=False, server_default=""),
    sa.Column("logged_model", sa.String(40)),
    sa.Column("updated_at", Instant),
    sa.Column("deleted_at", Instant),
    sa.Index("ix_model_version_project_model_bundle", "project", "model", "bundle"),
)
# A deleted version stays on the record, and its name and number are free for another.
rows_where(
    sa.Index(
        "ux_model_version_current", version_table.c.project, version_table.c.model, version_table.c.number, unique=True
    ),
    version_table.c.deleted_at.is_(None),
)
version_tag_table = sa.Table(
    "model_version_tag",
    metadata,
    sa.Column("version", sa.String(40), primary_key=True),
    sa.Column("key", sa.String(250), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
alias_table = sa.Table(
    "model_alias",
    metadata,
    sa.Column("project", sa.String(200), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("alias", sa.String(100), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model.

    Attributes:
        id: `mver_…`.
        number: 1, 2, … within the model.
        bundle: Digest of the bundle.
        content: Digest of what the bundle does, equal for the same fit made again.
        run: Run that made it, empty when none is known; `recipe` is the digest of its step and parameters.
        origin: Where it comes from; `refit_of` is the id of the version that was judged in its place.
        evaluation: Id of the evidence on it, once there is one.
        state: `registered`, `approved` or `rejected`.
        stage: Free text, as MLflow's stages.
        registered_by: Who proposed it.
        source: Where its files were when it was registered, as the one who registered it said; `run_link` is a link of theirs.
        logged_model: Id of the logged model that it is, `m-…`.
        updated_at: When what people say of it changed last; None: never.
        deleted_at: When it was taken out of the registry; the record stays.
    """

    id: str
    project: str
    model: str
    number: int
    bundle: str
    content: str
    run: str
    recipe: str
    origin: Origin
    refit_of: str | None
    evaluation: str | None
    state: VersionState
    stage: str
    registered_by: str
    created_at: datetime
    event_at: datetime
    description: str = ""
    source: str = ""
    run_link: str = ""
    logged_model: str | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def name(self) -> str:
        """As people write it: `delay@3`."""
        return f"{self.model}@{self.number}"


def document(version: ModelVersion) -> dict[str, Any]:
    """A version as JSON values, for listings."""
    times = {
        name: moment.isoformat() if (moment := getattr(version, name)) else None
        for name in ("created_at", "event_at", "updated_at", "deleted_at")
    }
    return {"version": version.name, **version.__dict__, **times}


def of_model(project: str, model: str) -> sa.Select[Any]:
    """The versions of a model that are there now."""
    return sa.select(version_table).where(
        version_table.c.project == project, version_table.c.model == model, version_table.c.deleted_at.is_(None)
    )


def is_registered(tx: Transaction, project: str, bundle: str) -> bool:
    """Is, or was, a bundle a version of some model of the project?"""
    query = sa.select(version_table.c.id).where(version_table.c.project == project, version_table.c.bundle == bundle)
    return tx.execute(query.limit(1)).first() is not None


def first(tx: Transaction, query: sa.Select[Any]) -> ModelVersion | None:
    """The first version that a query finds."""
    row = tx.execute(query.limit(1)).one_or_none()
    return None if row is None else ModelVersion(**row._mapping)


def note(tx: Transaction, store: Store, version: ModelVersion, kind: str, body: dict[str, Any]) -> None:
    """Journal what happened to a version; the last statement of the transaction that did it."""
    journal.append(tx, store.clock, store.actor, version.project, kind, version.id, body)
