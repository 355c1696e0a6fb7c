"""The registry: models and their immutable versions, from the moment when a bundle becomes a candidate.

A version is a bundle with a number. It never changes; what people say of it (description, tags, state, stage, aliases) is
kept beside it, and every change of that is journalled. Names of versions are set in `aliases`, the models themselves in
`registered_models`.

    version = register(store, "flights", "delay", bundle=digest, evaluation=found.id, origin="recipe")
    find(store, "flights", "delay@3") == version
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import sqlalchemy as sa

from instar.core import ids, lineage
from instar.core.database import Transaction
from instar.core.errors import Conflict, NotAllowed, NotFound
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.release import aliases as names
from instar.release import registered_models, webhooks
from instar.release.aliases import DERIVED, FREE, Derive, aliases, set_alias
from instar.release.version_records import (
    ModelVersion,
    Origin,
    VersionState,
    document,
    first,
    note,
    of_model,
    version_table,
    version_tag_table,
)
from instar.train.bundle import content_digest, load_manifest

__all__ = [
    "DERIVED", "FREE", "Derive", "ModelVersion", "Origin", "VersionState", "aliases", "delete", "document", "find",
    "of_bundle", "register", "register_logged", "set_alias", "set_description", "set_stage", "set_state", "set_tag", "tags_of",
    "version_table", "versions", "write_state",
]  # fmt: skip


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
    version = _draft(store, project, model, bundle, origin, evaluation, refit_of)

    def work(tx: Transaction) -> ModelVersion:
        known = first(tx, of_model(project, model).where(version_table.c.bundle == bundle))
        if known is not None:
            return _with_evidence(tx, store, known, evaluation)
        return _insert(tx, store, version, {}, cause)

    return store.database.write(work, durable=True)


def register_logged(
    store: Store,
    project: str,
    model: str,
    *,
    bundle: str,
    source: str,
    run: str = "",
    run_link: str = "",
    logged_model: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> ModelVersion:
    """Give a bundle that somebody logged the next number of a model: each time another, as MLflow's clients expect.

    Args:
        source: Where they said that its files are.
        run: Run that it is from, if they named one; else the bundle's.

    Raises:
        NotFound: There is no such bundle, or no such model.
    """
    require(store.actor, Permission.RELEASE)
    for key, value in (tags or {}).items():
        registered_models.check_tag(key, value)
    registered_models.get(store, project, model)
    version = _draft(store, project, model, bundle, "logged", None, None)
    version = replace(
        version,
        run=run or version.run,
        source=source,
        run_link=run_link,
        logged_model=logged_model,
        description=description,
    )
    return store.database.write(lambda tx: _insert(tx, store, version, tags or {}, "user"), durable=True)


def _draft(
    store: Store, project: str, model: str, bundle: str, origin: Origin, evaluation: str | None, refit_of: str | None
) -> ModelVersion:
    manifest = load_manifest(store.blobs, bundle)
    return ModelVersion(
        id=ids.new_id("mver"),
        project=project,
        model=model,
        number=0,
        bundle=bundle,
        content=content_digest(manifest),
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


def _insert(tx: Transaction, store: Store, draft: ModelVersion, tags: Mapping[str, str], cause: str) -> ModelVersion:
    registered_models.ensure(tx, store, draft.project, draft.model)
    number = registered_models.next_number(tx, store, draft.project, draft.model)
    version = replace(draft, number=number)
    tx.execute(version_table.insert().values(**version.__dict__))
    for key, value in tags.items():
        tx.execute(version_tag_table.insert().values(version=version.id, key=key, value=value))
    lineage.link(tx, version.project, version.bundle, "was registered as", version.id)
    if version.evaluation:
        lineage.link(tx, version.project, version.evaluation, "is the evidence on", version.id)
    if version.refit_of:
        lineage.link(tx, version.project, version.refit_of, "was fitted again as", version.id)
    told = {
        "name": version.model, "version": str(number), "source": version.source, "run_id": version.run or None,
        "tags": dict(tags), "description": version.description or None,
    }  # fmt: skip
    webhooks.announce(tx, store, version.project, "model_version.created", told)
    facts = {"version": version.name, "bundle": version.bundle, "origin": version.origin, "cause": cause}
    note(tx, store, version, "model version", facts | {"evaluation": version.evaluation, "refit_of": version.refit_of})
    return version


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
    query = sa.select(version_table).where(version_table.c.project == project, version_table.c.deleted_at.is_(None))
    if model is not None:
        query = query.where(version_table.c.model == model)
    with store.database.read() as tx:
        rows = tx.execute(query.order_by(version_table.c.model, version_table.c.number))
        return [ModelVersion(**row._mapping) for row in rows]


def of_bundle(store: Store, project: str, model: str, bundle: str) -> ModelVersion | None:
    """The first version that a bundle is of a model, if it is registered."""
    query = of_model(project, model).where(version_table.c.bundle == bundle)
    with store.database.read() as tx:
        return first(tx, query.order_by(version_table.c.number))


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
        note(tx, store, version, f"model version {state}", {"version": version.name, "reason": reason, "cause": cause})
        return changed

    return store.database.write(work, durable=True)


def write_state(tx: Transaction, version: ModelVersion, state: VersionState) -> ModelVersion:
    """Change a version's state inside a transaction that journals why."""
    tx.execute(version_table.update().where(version_table.c.id == version.id).values(state=state))
    return ModelVersion(**{**version.__dict__, "state": state})


def set_stage(store: Store, version: ModelVersion, stage: str) -> ModelVersion:
    """Set the free-text stage of a version; it decides nothing."""
    require(store.actor, Permission.RELEASE)
    return _said(store, version, "model version stage", {"stage": stage})


def set_description(store: Store, version: ModelVersion, description: str) -> ModelVersion:
    """Change what is said of a version."""
    require(store.actor, Permission.RELEASE)
    return _said(store, version, "model version description", {"description": description})


def set_tag(store: Store, version: ModelVersion, key: str, value: str | None) -> None:
    """Set a tag of a version, or take it away with None; taking away what is not there is nothing."""
    require(store.actor, Permission.RELEASE)
    registered_models.check_tag(key, value or "")

    def work(tx: Transaction) -> None:
        here = (version_tag_table.c.version == version.id, version_tag_table.c.key == key)
        gone = tx.execute(version_tag_table.delete().where(*here)).rowcount
        told = {"name": version.model, "version": str(version.number), "key": key}
        if value is not None:
            tx.execute(version_tag_table.insert().values(version=version.id, key=key, value=value))
            webhooks.announce(tx, store, version.project, "model_version_tag.set", told | {"value": value})
        elif gone:
            webhooks.announce(tx, store, version.project, "model_version_tag.deleted", told)
        _touch(tx, store, version)
        note(tx, store, version, "model version tag", {"version": version.name, "key": key, "value": value})

    store.database.write(work, durable=True)


def tags_of(tx: Transaction, versions: list[str]) -> dict[str, dict[str, str]]:
    """Tags by version's id, in one query however many there are."""
    query = sa.select(version_tag_table).where(version_tag_table.c.version.in_(versions))
    found: dict[str, dict[str, str]] = {}
    for row in tx.execute(query.order_by(version_tag_table.c.key)):
        found.setdefault(row.version, {})[row.key] = row.value
    return found


def delete(store: Store, version: ModelVersion, in_use: Callable[[ModelVersion], str]) -> None:
    """Take a version out of the registry, its aliases with it; its record and its bundle stay, its number is not given again.

    Args:
        in_use: Why it may not go, empty when it may: it answers, or did.

    Raises:
        NotAllowed: It is in use.
    """
    require(store.actor, Permission.RELEASE)
    why = in_use(version)
    if why:
        raise NotAllowed(f"it cannot be deleted: {why}", subject=version.name)

    def work(tx: Transaction) -> None:
        here = version_table.update().where(version_table.c.id == version.id, version_table.c.deleted_at.is_(None))
        if not tx.execute(here.values(deleted_at=store.clock.wall())).rowcount:
            return
        names.drop(tx, version.project, version.model, version.number)
        note(tx, store, version, "model version deleted", {"version": version.name, "bundle": version.bundle})

    store.database.write(work, durable=True)


def _said(store: Store, version: ModelVersion, kind: str, values: Mapping[str, str]) -> ModelVersion:
    def work(tx: Transaction) -> ModelVersion:
        changed = _touch(tx, store, version, **values)
        note(tx, store, version, kind, {"version": version.name, **values})
        return changed

    return store.database.write(work, durable=True)


def _touch(tx: Transaction, store: Store, version: ModelVersion, **values: str) -> ModelVersion:
    now = store.clock.wall()
    tx.execute(version_table.update().where(version_table.c.id == version.id).values(updated_at=now, **values))
    return replace(version, updated_at=now, **values)  # type: ignore[arg-type]


def _resolve(tx: Transaction, project: str, ref: str, derived: Derive | None) -> ModelVersion | None:
    if ref.startswith("mver_"):  # a deleted one, too: the record names it
        return first(tx, sa.select(version_table).where(version_table.c.project == project, version_table.c.id == ref))
    model, at, wanted = ref.rpartition("@")
    if not at:
        return first(tx, of_model(project, ref).order_by(version_table.c.number.desc()))
    query = of_model(project, model)
    if wanted.isascii() and wanted.isdigit():
        return first(tx, query.where(version_table.c.number == int(wanted))) if len(wanted) < 10 else None
    number = names.number_of(tx, project, model, wanted, derived)
    return None if number is None else first(tx, query.where(version_table.c.number == number))


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
    note(tx, store, known, "model version evidence", {"version": known.name, "evaluation": evaluation})
    return ModelVersion(**{**known.__dict__, "evaluation": evaluation})
