"""The registry: models, their immutable versions and movable names, from the moment when a bundle becomes a candidate.

A version is a bundle with a number. It never changes; what people say of it (state, stage, aliases) is kept beside it, and
every change of that is journalled. `champion` and `challenger` are no aliases: they follow from an endpoint's policy, so
whoever resolves such a name hands in how (`derived`).

    version = register(store, "flights", "delay", bundle=digest, evaluation=found.id, origin="recipe")
    find(store, "flights", "delay@3") == version
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import BadInput, Conflict, NotAllowed, NotFound
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.train.bundle import content_digest, load_manifest

Origin = Literal["baseline", "recipe", "refit", "ad hoc"]
VersionState = Literal["registered", "approved", "rejected"]

# Names that follow from the policy of the model's endpoint.
DERIVED = ("champion", "challenger")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,99}\Z")

# From a model and a derived name to a version's number; None when nothing has that name now.
Derive = Callable[[str, str], int | None]

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
    sa.UniqueConstraint("project", "model", "number"),
    sa.UniqueConstraint("project", "model", "bundle"),
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
        run: Run that made it; `recipe` is the digest of its step and parameters.
        origin: Where it comes from; `refit_of` is the id of the version that was judged in its place.
        evaluation: Id of the evidence on it, once there is one.
        state: `registered`, `approved` or `rejected`.
        stage: Free text, as MLflow's stages.
        registered_by: Who proposed it.
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

    @property
    def name(self) -> str:
        """As people write it: `delay@3`."""
        return f"{self.model}@{self.number}"


def document(version: ModelVersion) -> dict[str, Any]:
    """A version as JSON values, for listings."""
    times = {"created_at": version.created_at.isoformat(), "event_at": version.event_at.isoformat()}
    return {"version": version.name, **version.__dict__, **times}


def register(
    store: Store,
    project: str,
    model: str,
    *,
    bundle: str,
    origin: Origin,
    evaluation: str | None = None,
    refit_of: str | None = None,
    cause: str = "user",
) -> ModelVersion:
    """Give a bundle the next number of a model. A bundle that has one already keeps it.

    Args:
        bundle: Digest of a packed bundle.
        evaluation: Evidence on it; replaces what a version that exists already refers to.
        refit_of: Id of the version whose recipe was fitted again.
        cause: Who or what asked: `"user"`, or the id of an action.

    Raises:
        NotFound: There is no such bundle.
        NotAllowed: The actor may not release.
    """
    require(store.actor, Permission.RELEASE)
    manifest = load_manifest(store.blobs, bundle)
    content = content_digest(manifest)

    def work(tx: Transaction) -> ModelVersion:
        known = _one(tx, _of(project, model).where(version_table.c.bundle == bundle))
        if known is not None:
            return _with_evidence(tx, store, known, evaluation)
        last = tx.execute(
            sa.select(sa.func.max(version_table.c.number)).where(
                version_table.c.project == project, version_table.c.model == model
            )
        ).scalar()
        version = ModelVersion(
            id=ids.new_id("mver"),
            project=project,
            model=model,
            number=(last or 0) + 1,
            bundle=bundle,
            content=content,
            run=manifest.run,
            recipe=manifest.recipe,
            origin=origin,
            refit_of=refit_of,
            evaluation=evaluation,
            state="registered",
            stage="",
            registered_by=store.actor.name,
            created_at=store.clock.wall(),
            event_at=store.clock.event(),
        )
        tx.execute(version_table.insert().values(**version.__dict__))
        lineage.link(tx, project, bundle, "was registered as", version.id)
        if evaluation:
            lineage.link(tx, project, evaluation, "is the evidence on", version.id)
        if refit_of:
            lineage.link(tx, project, refit_of, "was fitted again as", version.id)
        facts = {"version": version.name, "bundle": bundle, "origin": origin, "evaluation": evaluation, "cause": cause}
        _journal(tx, store, version, "model version", facts | {"refit_of": refit_of})
        return version

    return store.database.write(work, durable=True)


def find(store: Store, project: str, ref: str, derived: Derive | None = None) -> ModelVersion:
    """The version that a reference names.

    Args:
        ref: `"delay@3"`, `"delay@some-alias"`, `"delay@champion"`, `"delay"` (its newest version) or `"mver_…"`.
        derived: Resolves `champion` and `challenger`.

    Raises:
        NotFound: Nothing has that name.
    """
    with store.database.read() as tx:
        found = _resolve(tx, project, ref, derived)
    if found is None:
        raise NotFound("there is no such model version", subject=ref, next_step="List them with `instar models ls`.")
    return found


def versions(store: Store, project: str, model: str | None = None) -> list[ModelVersion]:
    """Versions of a project, of one model if named, in order of model and number."""
    query = sa.select(version_table).where(version_table.c.project == project)
    if model is not None:
        query = query.where(version_table.c.model == model)
    with store.database.read() as tx:
        rows = tx.execute(query.order_by(version_table.c.model, version_table.c.number))
        return [ModelVersion(**row._mapping) for row in rows]


def of_bundle(store: Store, project: str, model: str, bundle: str) -> ModelVersion | None:
    """The version that a bundle is of a model, if it is registered."""
    with store.database.read() as tx:
        return _one(tx, _of(project, model).where(version_table.c.bundle == bundle))


def set_state(
    store: Store, version: ModelVersion, state: VersionState, reason: str, cause: str = "user"
) -> ModelVersion:
    """Record that a version was rejected or taken up again; `approval.decide` approves.

    Raises:
        NotAllowed: `approved` is asked for without an approval.
    """
    if state == "approved":
        raise NotAllowed(
            "a version is approved on evidence only", subject=version.name, next_step="Use `instar approve`."
        )
    require(store.actor, Permission.RELEASE)

    def work(tx: Transaction) -> ModelVersion:
        changed = write_state(tx, version, state)
        _journal(
            tx, store, version, f"model version {state}", {"version": version.name, "reason": reason, "cause": cause}
        )
        return changed

    return store.database.write(work, durable=True)


def write_state(tx: Transaction, version: ModelVersion, state: VersionState) -> ModelVersion:
    """Change a version's state inside a transaction that journals why."""
    tx.execute(version_table.update().where(version_table.c.id == version.id).values(state=state))
    return ModelVersion(**{**version.__dict__, "state": state})


def set_stage(store: Store, version: ModelVersion, stage: str) -> ModelVersion:
    """Set the free-text stage of a version; it decides nothing."""
    require(store.actor, Permission.RELEASE)

    def work(tx: Transaction) -> ModelVersion:
        tx.execute(version_table.update().where(version_table.c.id == version.id).values(stage=stage))
        _journal(tx, store, version, "model version stage", {"version": version.name, "stage": stage})
        return ModelVersion(**{**version.__dict__, "stage": stage})

    return store.database.write(work, durable=True)


def set_alias(store: Store, project: str, model: str, alias: str, number: int | None) -> None:
    """Point a name at a version, or take the name away with None.

    Raises:
        NotAllowed: The name is `champion` or `challenger`.
        BadInput: The name cannot be told from a number or an id.
        NotFound: There is no such version.
    """
    require(store.actor, Permission.RELEASE)
    if alias in DERIVED:
        raise NotAllowed(
            f"{alias} follows from what the endpoint answers with, and cannot be set",
            subject=f"{model}@{alias}",
            next_step=f"Use `instar promote {model}@N` or `instar rollback {model}`.",
        )
    if not _ALIAS.match(alias):
        raise BadInput(
            "that cannot be an alias", found=repr(alias), asked="a lower-case letter, then letters, digits, - or _"
        )

    def work(tx: Transaction) -> None:
        here = (alias_table.c.project == project, alias_table.c.model == model, alias_table.c.alias == alias)
        before = tx.execute(sa.select(alias_table.c.number).where(*here)).scalar()
        if before == number:
            return
        tx.execute(alias_table.delete().where(*here))
        if number is not None:
            if _one(tx, _of(project, model).where(version_table.c.number == number)) is None:
                raise NotFound("there is no such model version", subject=f"{model}@{number}")
            tx.execute(alias_table.insert().values(project=project, model=model, alias=alias, number=number))
        body = {"alias": alias, "number": number, "before": before}
        journal.append(tx, store.clock, store.actor, project, "model alias", f"{model}@{alias}", body)

    store.database.write(work, durable=True)


def aliases(store: Store, project: str, model: str) -> dict[str, int]:
    """The names set for a model, with the numbers that they point at."""
    query = sa.select(alias_table.c.alias, alias_table.c.number).where(
        alias_table.c.project == project, alias_table.c.model == model
    )
    with store.database.read() as tx:
        return {row.alias: row.number for row in tx.execute(query.order_by(alias_table.c.alias))}


def _resolve(tx: Transaction, project: str, ref: str, derived: Derive | None) -> ModelVersion | None:
    if ref.startswith("mver_"):
        query = sa.select(version_table).where(version_table.c.project == project, version_table.c.id == ref)
        return _one(tx, query)
    model, _, wanted = ref.partition("@")
    query = _of(project, model)
    if not wanted:
        return _one(tx, query.order_by(version_table.c.number.desc()).limit(1))
    if wanted.isascii() and wanted.isdigit():
        return _one(tx, query.where(version_table.c.number == int(wanted)))
    if wanted in DERIVED:
        number = derived(model, wanted) if derived is not None else None
    else:
        here = (alias_table.c.project == project, alias_table.c.model == model, alias_table.c.alias == wanted)
        number = tx.execute(sa.select(alias_table.c.number).where(*here)).scalar()
    return None if number is None else _one(tx, query.where(version_table.c.number == number))


def _with_evidence(tx: Transaction, store: Store, known: ModelVersion, evaluation: str | None) -> ModelVersion:
    if evaluation is None or evaluation == known.evaluation:
        return known
    if known.state == "approved":
        raise Conflict(
            "an approved version keeps the evidence that it was approved on",
            subject=known.name,
            found=known.evaluation,
            asked=evaluation,
            next_step="Reject it first, or register a new fit.",
        )
    tx.execute(version_table.update().where(version_table.c.id == known.id).values(evaluation=evaluation))
    lineage.link(tx, known.project, evaluation, "is the evidence on", known.id)
    _journal(tx, store, known, "model version evidence", {"version": known.name, "evaluation": evaluation})
    return ModelVersion(**{**known.__dict__, "evaluation": evaluation})


def _of(project: str, model: str) -> sa.Select[Any]:
    return sa.select(version_table).where(version_table.c.project == project, version_table.c.model == model)


def _one(tx: Transaction, query: sa.Select[Any]) -> ModelVersion | None:
    row = tx.execute(query).one_or_none()
    return None if row is None else ModelVersion(**row._mapping)


def _journal(tx: Transaction, store: Store, version: ModelVersion, kind: str, body: dict[str, Any]) -> None:
    journal.append(tx, store.clock, store.actor, version.project, kind, version.id, body)
