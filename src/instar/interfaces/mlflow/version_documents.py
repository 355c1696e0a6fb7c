"""Registered models and their versions as MLflow's clients see them, whoever registered them, whenever one is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import field

from instar.core.store import Store
from instar.interfaces.mlflow.frame import Message
from instar.interfaces.mlflow.messages import Pair
from instar.interfaces.mlflow.places import SCHEME, bundle_root
from instar.interfaces.mlflow.words import milliseconds, pairs
from instar.release import aliases, registry
from instar.release.registered_models import RegisteredModel
from instar.release.version_records import ModelVersion, of_model, version_table
from instar.serve.traffic import derived

NO_STAGE = "None"
STAGES = ("None", "Staging", "Production", "Archived")


class Alias(Message):
    alias: str
    version: str


class VersionOut(Message):
    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str
    current_stage: str
    status: str
    source: str
    description: str = ""
    run_id: str = ""
    run_link: str = ""
    status_message: str | None = None
    model_id: str | None = None
    tags: list[Pair] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)


class ModelOut(Message):
    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str
    description: str = ""
    latest_versions: list[VersionOut] = field(default_factory=list)
    tags: list[Pair] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)


def versions(store: Store, project: str, found: Sequence[ModelVersion]) -> list[VersionOut]:
    """Versions with tags and names, in a few queries however many they are."""
    named = {model: names(store, project, model) for model in {one.model for one in found}}
    with store.database.read() as tx:
        tags = registry.tags_of(tx, [one.id for one in found])
    return [_version(one, tags.get(one.id, {}), named[one.model]) for one in found]


def models(store: Store, project: str, found: Sequence[RegisteredModel]) -> list[ModelOut]:
    """Models with the newest version of each stage."""
    return [_model(store, project, one) for one in found]


def latest(store: Store, project: str, model: str, stages: Sequence[str] = ()) -> list[ModelVersion]:
    """The newest version of each stage of a model, of the stages asked for."""
    with store.database.read() as tx:
        rows = tx.execute(of_model(project, model).order_by(version_table.c.number))
        newest = {stage_of(version): version for version in (ModelVersion(**row._mapping) for row in rows)}
    return [version for stage, version in newest.items() if not stages or stage in stages]


def names(store: Store, project: str, model: str) -> dict[str, int]:
    """All names of a model's versions: those that follow from an endpoint's policy, and the aliases."""
    derive = derived.derive(store, project)
    with store.database.read() as tx:
        found = aliases.of_models(tx, project, [model]).get(model, {})
    for name in aliases.DERIVED:
        number = derive(model, name)
        if number == aliases.FREE:
            continue
        found.pop(name, None)
        if number is not None:
            found[name] = number
    return found


def stage_of(version: ModelVersion) -> str:
    """MLflow's word for a version's stage."""
    return version.stage if version.stage in STAGES else NO_STAGE


def source_of(version: ModelVersion) -> str:
    """Where a version's files are: as was said when it was registered, else its bundle."""
    return version.source or download_uri(version)


def download_uri(version: ModelVersion) -> str:
    """Where a version's files can be read: its bundle, which never changes."""
    return SCHEME + bundle_root(version.bundle)


def _model(store: Store, project: str, model: RegisteredModel) -> ModelOut:
    return ModelOut(
        name=model.name,
        creation_timestamp=milliseconds(model.created_at),
        last_updated_timestamp=milliseconds(model.updated_at),
        user_id=model.created_by,
        description=model.description,
        latest_versions=versions(store, project, latest(store, project, model.name)),
        tags=pairs(model.tags),
        aliases=[Alias(alias=name, version=str(number)) for name, number in names(store, project, model.name).items()],
    )


def _version(version: ModelVersion, tags: dict[str, str], named: dict[str, int]) -> VersionOut:
    return VersionOut(
        name=version.model,
        version=str(version.number),
        creation_timestamp=milliseconds(version.created_at),
        last_updated_timestamp=milliseconds(version.updated_at or version.created_at),
        user_id=version.registered_by,
        current_stage=stage_of(version),
        status="READY",
        source=source_of(version),
        description=version.description,
        run_id=version.run if version.run.startswith("run_") else "",
        run_link=version.run_link,
        model_id=version.logged_model,
        tags=pairs(tags),
        aliases=sorted(name for name, number in named.items() if number == version.number),
    )
