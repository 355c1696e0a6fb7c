"""Model versions over MLflow's protocol: registered from what was logged, described, staged, found and read.

A version is the bundle that the files of its source were when it was registered, so it never changes; its download
address is the bundle, whatever becomes of the source.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow import artifacts, places, version_documents
from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import Int64, Pair
from instar.interfaces.mlflow.places import Place, bundle_root
from instar.interfaces.mlflow.registered import Versions, find, gone, in_use, number_of, refuse_prompt, stage, tags_of
from instar.interfaces.mlflow.version_documents import VersionOut, download_uri, stage_of
from instar.release import aliases, registry, registry_search
from instar.release.packing import pack_logged, pack_path
from instar.release.version_records import ModelVersion
from instar.serve.traffic import derived
from instar.train import logged_models, model_links
from instar.train.logged_models import PENDING, LoggedModel
from instar.train.model_links import MADE

MOST_VERSIONS, DEFAULT_VERSIONS = 200_000, 10_000
LONGEST_SOURCE = 2000
ACTIVE_STAGES = ("Staging", "Production")
PROXY = "/api/2.0/mlflow-artifacts/artifacts/"


class Create(Message):
    name: str | None = None
    source: str | None = None
    run_id: str | None = None
    tags: list[Pair] | None = None
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class OfVersion(Message):
    """Names a version; with the other fields, what is to become of it."""

    name: str | None = None
    version: str | int | None = None
    description: str | None = None
    key: str | None = None
    value: str | None = None
    alias: str | None = None
    stage: str | None = None
    archive_existing_versions: bool | None = None
    path: str | None = None


class Search(Message):
    filter: str | None = None
    max_results: Int64 | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class OneVersion(Message):
    model_version: VersionOut


def create(call: Call, asked: Create) -> OneVersion:
    """Register a version of a model from what was logged."""
    model = find(call, asked.name)
    source = required(asked.source, "source")
    tags = tags_of(asked.tags)
    refuse_prompt(tags)
    if len(source) > LONGEST_SOURCE or not source.isprintable():
        raise invalid(f"Invalid model version source: {source[:200]!r}.")
    bundle, run, logged = _bundle(call, model.name, source, asked.run_id or "", asked.model_id or "")
    version = registry.register_logged(
        call.store,
        call.project,
        model.name,
        bundle=bundle,
        source=source,
        run=run,
        run_link=asked.run_link or "",
        logged_model=logged,
        description=asked.description or "",
        tags=tags,
    )
    return _one(call, version)


def get(call: Call, asked: OfVersion) -> OneVersion:
    """One version."""
    return _one(call, _find(call, asked))


def update(call: Call, asked: OfVersion) -> OneVersion:
    """Change a version's description."""
    version = _find(call, asked)
    if asked.description is not None:
        version = registry.set_description(call.store, version, asked.description)
    return _one(call, version)


def transition(call: Call, asked: OfVersion) -> OneVersion:
    """Set a version's stage, a tag without effect; others in that stage may be archived."""
    version, name = _find(call, asked), stage(required(asked.stage, "stage"))
    if asked.archive_existing_versions:
        if name not in ACTIVE_STAGES:
            raise invalid(
                f"Model version transition cannot archive existing model versions because '{name}' is not an Active "
                f"stage. Valid stages are {', '.join(ACTIVE_STAGES)}"
            )
        for other in registry.versions(call.store, call.project, version.model):
            if stage_of(other) == name and other.id != version.id:
                registry.set_stage(call.store, other, "Archived")
    return _one(call, registry.set_stage(call.store, version, "" if name == "None" else name))


def delete(call: Call, asked: OfVersion) -> dict[str, str]:
    """Take a version out of the registry, unless it answers, or did."""
    version = _find(call, asked)
    registry.delete(call.store, version, lambda one: in_use(call, one.model, one.number))
    return {}


def search(call: Call, asked: Search) -> Versions:
    """Versions that pass a filter."""
    page = registry_search.search_versions(
        call.store,
        call.project,
        filter=asked.filter or "",
        order_by=asked.order_by or (),
        limit=page_size(asked.max_results, DEFAULT_VERSIONS, MOST_VERSIONS),
        token=asked.page_token or None,
    )
    found = version_documents.versions(call.store, call.project, page.items)
    return Versions(model_versions=found, next_page_token=page.token)


def uri(call: Call, asked: OfVersion) -> dict[str, str]:
    """Where a version's files can be read."""
    return {"artifact_uri": download_uri(_find(call, asked))}


def set_tag(call: Call, asked: OfVersion) -> dict[str, str]:
    """Set a tag of a version."""
    registry.set_tag(call.store, _find(call, asked), required(asked.key, "key"), asked.value or "")
    return {}


def delete_tag(call: Call, asked: OfVersion) -> dict[str, str]:
    """Take a tag from a version."""
    registry.set_tag(call.store, _find(call, asked), required(asked.key, "key"), None)
    return {}


def by_alias(call: Call, asked: OfVersion) -> OneVersion:
    """The version that a name stands for; champion and challenger follow from an endpoint's policy where there is one."""
    model, alias = find(call, asked.name), required(asked.alias, "alias")
    derive = derived.derive(call.store, call.project)
    with call.store.database.read() as tx:
        number = aliases.number_of(tx, call.project, model.name, alias, derive)
    if number is None:
        raise invalid(f"Registered model alias {alias[:100]} not found.")
    return _one(call, _numbered(call, model.name, number))


def get_file(call: Call, asked: OfVersion) -> Reply:
    """A file of a version, as a stream."""
    version = _find(call, asked)
    path = places.safe_path(required(asked.path, "path").strip("/"))
    return artifacts.send(call, Place(bundle_root(version.bundle), bundle=version.bundle, path=path), attachment=True)


def _bundle(call: Call, name: str, source: str, run_id: str, model_id: str) -> tuple[str, str, str | None]:
    """Bundle, run and logged model of a source.

    Raises:
        Refusal: The source is not in this store, or not what the caller says that it is.
    """
    scheme = urlsplit(source).scheme
    if scheme == "models":
        return _from_model(call, source, run_id)
    if model_id:
        return _from_logged(call, _logged(call, model_id, source), run_id)
    if scheme == "runs":
        run_id, _, path = source.removeprefix("runs:").strip("/").partition("/")
        run = places.run_of(call, run_id)
        place = Place(f"{run.experiment_id}/{run.id}/artifacts", run=run.id, path=places.safe_path(path))
    elif scheme == "mlflow-artifacts" or PROXY in source:
        address = source.partition(PROXY)[2] if PROXY in source else urlsplit(source).path
        place = places.parse(address)
    else:
        raise invalid(
            f"Invalid model version source: {source[:200]!r}. The files of a version are kept in this store: log the "
            "model to a run of this server and register runs:/RUN/PATH or models:/m-…"
        )
    places.require(call, place)
    if place.bundle:
        return place.bundle, run_id, None
    if place.model:
        return _from_logged(call, _logged(call, place.model, source), run_id)
    if run_id and places.run_of(call, run_id).id != place.run:
        raise invalid(
            f"Invalid model version source: {source[:200]!r}. To use a path of another run as a source, leave run_id out."
        )
    made = _made(call, place)
    if made is not None:
        return _from_logged(call, made, place.run)
    return pack_path(call.store, call.project, place.run, place.path, name=name, run=place.run), place.run, None


def _made(call: Call, place: Place) -> LoggedModel | None:
    """The logged model that a run made under that name, where no file of the run itself is at the path."""
    if artifacts.entries(call, place):
        return None
    with call.store.database.read() as tx:
        made = model_links.models_of(tx, [place.run], MADE).get(place.run, [])
    models = [logged_models.get(call.store, id, deleted=True) for id, _ in reversed(made)]
    return next((one for one in models if one.name == place.path and one.deleted_at is None), None)


def _from_model(call: Call, source: str, run_id: str) -> tuple[str, str, str | None]:
    """From `models:/m-…`, `models:/NAME/VERSION`, `models:/NAME/latest` or `models:/NAME@ALIAS`."""
    path = urlsplit(source).path.strip("/")
    if path.startswith("m-") and "/" not in path:
        return _from_logged(call, _logged(call, path, source), run_id)
    name, at, alias = path.rpartition("@")
    if at and "/" not in alias:
        return _from_version(by_name(call, f"{name}@{alias}", source), run_id)
    name, _, wanted = path.rpartition("/")
    if wanted.lower() == "latest":
        return _from_version(by_name(call, name, source), run_id)
    if not wanted.isdigit():
        staged = version_documents.latest(call.store, call.project, name, [stage(wanted)])
        if not staged:
            raise invalid(f"Invalid model version source: {source[:200]!r}: no version is in that stage.")
        return _from_version(staged[0], run_id)
    return _from_version(_numbered(call, name, number_of(wanted)), run_id)


def by_name(call: Call, ref: str, source: str) -> ModelVersion:
    """The version of a reference within a source."""
    try:
        return registry.find(call.store, call.project, ref, derived.derive(call.store, call.project))
    except NotFound as error:
        raise invalid(f"Invalid model version source: {source[:200]!r}: there is no such version.") from error


def _from_version(version: ModelVersion, run_id: str) -> tuple[str, str, str | None]:
    return version.bundle, run_id or version.run, version.logged_model


def _from_logged(call: Call, model: LoggedModel, run_id: str) -> tuple[str, str, str | None]:
    if model.state == PENDING or model.bundle is None:  # a client that never said that it was ready
        model = pack_logged(call.store, model)
    assert model.bundle is not None
    return model.bundle, run_id or model.run, model.id


def _logged(call: Call, model_id: str, source: str) -> LoggedModel:
    try:
        return logged_models.get(call.store, model_id, project=call.project)
    except NotFound as error:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Logged model with ID '{model_id[:100]}' not found.") from error


def _find(call: Call, asked: OfVersion) -> ModelVersion:
    model = find(call, asked.name)
    return _numbered(call, model.name, number_of(required(str(asked.version or ""), "version")))


def _numbered(call: Call, name: str, number: int) -> ModelVersion:
    try:
        return registry.find(call.store, call.project, f"{name}@{number}")
    except NotFound as error:
        raise gone(name, number) from error


def _one(call: Call, version: ModelVersion) -> OneVersion:
    return OneVersion(model_version=version_documents.versions(call.store, call.project, [version])[0])


_V = "model-versions/"
operations = [
    Operation("POST", _V + "create", Permission.RELEASE, create, Create),
    Operation("GET", _V + "get", Permission.READ, get, OfVersion),
    Operation("PATCH", _V + "update", Permission.RELEASE, update, OfVersion),
    Operation("POST", _V + "transition-stage", Permission.RELEASE, transition, OfVersion),
    Operation("DELETE", _V + "delete", Permission.RELEASE, delete, OfVersion),
    Operation("GET", _V + "search", Permission.READ, search, Search),
    Operation("GET", _V + "get-download-uri", Permission.READ, uri, OfVersion),
    Operation("POST", _V + "set-tag", Permission.RELEASE, set_tag, OfVersion),
    Operation("DELETE", _V + "delete-tag", Permission.RELEASE, delete_tag, OfVersion),
    Operation("GET", _V + "get-artifact", Permission.READ, get_file, OfVersion),
    Operation("GET", _V + "get-artifact", Permission.READ, get_file, OfVersion, root=""),
    Operation("GET", "registered-models/alias", Permission.READ, by_alias, OfVersion),
]
