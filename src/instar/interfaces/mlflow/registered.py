"""Registered models over MLflow's protocol: names made, described, renamed, found and given up; the registry is Instar's own."""

from __future__ import annotations

from msgspec import field

from instar.core.errors import Conflict, NotFound
from instar.core.identity import Permission
from instar.interfaces.mlflow import version_documents
from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import Int64, Pair
from instar.interfaces.mlflow.version_documents import STAGES, ModelOut, VersionOut
from instar.release import registered_models, registry, registry_search
from instar.release.registered_models import RegisteredModel
from instar.release.registry_search import PROMPT_TAG
from instar.serve.traffic import derived, routing

MOST_MODELS, DEFAULT_MODELS = 1000, 100


class Create(Message):
    name: str | None = None
    tags: list[Pair] | None = None
    description: str | None = None


class OfModel(Message):
    """Names a model; with the other fields, what is to become of it."""

    name: str | None = None
    new_name: str | None = None
    description: str | None = None
    key: str | None = None
    value: str | None = None
    alias: str | None = None
    version: str | int | None = None
    stages: list[str] | None = None


class Search(Message):
    filter: str | None = None
    max_results: Int64 | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class OneModel(Message):
    registered_model: ModelOut


class Models(Message):
    registered_models: list[ModelOut] = field(default_factory=list)
    next_page_token: str | None = None


class Versions(Message):
    model_versions: list[VersionOut] = field(default_factory=list)
    next_page_token: str | None = None


def create(call: Call, asked: Create) -> OneModel:
    """Make a registered model."""
    name = required(asked.name, "name")
    tags = tags_of(asked.tags)
    refuse_prompt(tags)
    try:
        model = registered_models.create(call.store, call.project, name, description=asked.description or "", tags=tags)
    except Conflict as error:
        raise Refusal("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists.") from error
    return _one(call, model)


def get(call: Call, asked: OfModel) -> OneModel:
    """One registered model with its newest versions."""
    return _one(call, find(call, asked.name))


def update(call: Call, asked: OfModel) -> OneModel:
    """Change a model's description."""
    model = find(call, asked.name)
    if asked.description is None:
        return _one(call, model)
    return _one(call, registered_models.describe(call.store, call.project, model.name, asked.description))


def rename(call: Call, asked: OfModel) -> OneModel:
    """Give a model another name, unless something answers under its present one."""
    model = find(call, asked.name)
    new_name = required(asked.new_name, "new_name")
    if new_name == model.name:
        return _one(call, model)
    try:
        renamed = registered_models.rename(
            call.store, call.project, model.name, new_name, lambda name: in_use(call, name)
        )
    except Conflict as error:
        raise Refusal("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={new_name}) already exists.") from error
    return _one(call, renamed)


def delete(call: Call, asked: OfModel) -> dict[str, str]:
    """Take a model and its versions out of the registry; the name is free again."""
    model = find(call, asked.name)
    registered_models.delete(call.store, call.project, model.name, lambda name: in_use(call, name))
    return {}


def search(call: Call, asked: Search) -> Models:
    """Registered models that pass a filter."""
    page = registry_search.search_models(
        call.store,
        call.project,
        filter=asked.filter or "",
        order_by=asked.order_by or (),
        limit=page_size(asked.max_results, DEFAULT_MODELS, MOST_MODELS),
        token=asked.page_token or None,
    )
    found = version_documents.models(call.store, call.project, page.items)
    return Models(registered_models=found, next_page_token=page.token)


def latest(call: Call, asked: OfModel) -> Versions:
    """The newest version of each stage."""
    model = find(call, asked.name)
    stages = [stage(one) for one in asked.stages or ()]
    found = version_documents.latest(call.store, call.project, model.name, stages)
    return Versions(model_versions=version_documents.versions(call.store, call.project, found))


def set_tag(call: Call, asked: OfModel) -> dict[str, str]:
    """Set a tag of a model."""
    model = find(call, asked.name)
    registered_models.set_tag(call.store, call.project, model.name, required(asked.key, "key"), asked.value or "")
    return {}


def delete_tag(call: Call, asked: OfModel) -> dict[str, str]:
    """Take a tag from a model."""
    model = find(call, asked.name)
    registered_models.set_tag(call.store, call.project, model.name, required(asked.key, "key"), None)
    return {}


def set_alias(call: Call, asked: OfModel) -> dict[str, str]:
    """Point a name at a version, unless it follows from what an endpoint answers with."""
    model = find(call, asked.name)
    number = number_of(required(str(asked.version or ""), "version"))
    alias = required(asked.alias, "alias")
    try:
        registry.set_alias(
            call.store, call.project, model.name, alias, number, derived.derive(call.store, call.project)
        )
    except NotFound as error:
        raise gone(model.name, number) from error
    return {}


def delete_alias(call: Call, asked: OfModel) -> dict[str, str]:
    """Take a name away; taking away what is not there is nothing."""
    model = find(call, asked.name)
    alias = required(asked.alias, "alias")
    registry.set_alias(call.store, call.project, model.name, alias, None, derived.derive(call.store, call.project))
    return {}


def find(call: Call, name: str | None) -> RegisteredModel:
    """The project's registered model of that name.

    Raises:
        Refusal: There is none.
    """
    name = required(name, "name")
    try:
        return registered_models.get(call.store, call.project, name)
    except NotFound as error:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={name[:200]} not found") from error


def in_use(call: Call, name: str, number: int | None = None) -> str:
    """Why a model, or one version of it, may not go: it answers, or did, and its calls are on the record."""
    history = [one for one in routing.history(call.store, name) if one.policy.project == call.project]
    if number is None and history:
        return f"the endpoint {name} answers with it, and its calls are on the record"
    if any(number in one.policy.versions for one in history):
        return f"the endpoint {name} answered with it, and its calls are on the record"
    return ""


def gone(name: str, number: int) -> Refusal:
    """There is no such version."""
    return Refusal("RESOURCE_DOES_NOT_EXIST", f"Model Version (name={name}, version={number}) not found")


def number_of(text: str | int) -> int:
    """A version's number.

    Raises:
        Refusal: It is none.
    """
    written = str(text)
    if not (written.isascii() and written.isdigit() and len(written) < 10):
        raise invalid(f"Parameter 'version' must be an integer, got '{written[:60]}'.")
    return int(written)


def stage(name: str) -> str:
    """MLflow's word for a stage, in whatever case it was written.

    Raises:
        Refusal: There is no such stage.
    """
    known = {one.lower(): one for one in STAGES}
    if name.lower() not in known:
        raise invalid(f"Invalid Model Version stage: {name[:60]}. Value must be one of {', '.join(STAGES)}.")
    return known[name.lower()]


def tags_of(given: list[Pair] | None) -> dict[str, str]:
    """Tags by key; of a repeated key the last."""
    return {required(one.key, "key"): one.value or "" for one in given or ()}


def refuse_prompt(tags: dict[str, str]) -> None:
    """Prompts are kept as registered models by MLflow's clients, and not kept here."""
    if tags.get(PROMPT_TAG, "false").lower() == "true":
        raise Refusal("NOT_IMPLEMENTED", "Prompts are not kept (docs/mlflow.md lists what is).")


def _one(call: Call, model: RegisteredModel) -> OneModel:
    return OneModel(registered_model=version_documents.models(call.store, call.project, [model])[0])


_M = "registered-models/"
operations = [
    Operation("POST", _M + "create", Permission.RELEASE, create, Create),
    Operation("GET", _M + "get", Permission.READ, get, OfModel),
    Operation("PATCH", _M + "update", Permission.RELEASE, update, OfModel),
    Operation("POST", _M + "rename", Permission.RELEASE, rename, OfModel),
    Operation("DELETE", _M + "delete", Permission.RELEASE, delete, OfModel),
    Operation("GET", _M + "search", Permission.READ, search, Search),
    Operation("GET", _M + "get-latest-versions", Permission.READ, latest, OfModel),
    Operation("POST", _M + "get-latest-versions", Permission.READ, latest, OfModel),
    Operation("POST", _M + "set-tag", Permission.RELEASE, set_tag, OfModel),
    Operation("DELETE", _M + "delete-tag", Permission.RELEASE, delete_tag, OfModel),
    Operation("POST", _M + "alias", Permission.RELEASE, set_alias, OfModel),
    Operation("DELETE", _M + "alias", Permission.RELEASE, delete_alias, OfModel),
]
