"""Logged models of MLflow 3: opened, described, closed and found again, while and after a client logs a model.

When a client says that a model is ready, its folder is packed as a bundle: from then on it can be registered, approved and
served like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import field

from instar.core.errors import Conflict, NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply
from instar.interfaces.mlflow import artifacts, experiments, places
from instar.interfaces.mlflow.artifacts import FileInfo
from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import Choice, Int64, Pair
from instar.interfaces.mlflow.model_documents import NUMBERED_STATUSES, STATUSES, LoggedModelOut, documents
from instar.interfaces.mlflow.places import SCHEME, Place, model_root
from instar.interfaces.mlflow.run_names import random_name
from instar.release.packing import pack_logged
from instar.train import logged_model_search, logged_models
from instar.train.logged_model_search import OnDataset
from instar.train.logged_models import FAILED, READY, LoggedModel

DEFAULT_RESULTS = 100
PAIRS_A_REQUEST = 1000


class Create(Message):
    experiment_id: str | None = None
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


class Finalize(Message):
    status: Choice = None


class Tags(Message):
    tags: list[Pair] | None = None


class Params(Message):
    params: list[Pair] | None = None


class Dataset(Message):
    dataset_name: str | None = None
    dataset_digest: str | None = None


class OrderBy(Dataset):
    field_name: str | None = None
    ascending: bool | None = None


class Search(Message):
    experiment_ids: list[str] | None = None
    filter: str | None = None
    datasets: list[Dataset] | None = None
    max_results: Int64 | None = None
    order_by: list[OrderBy] | None = None
    page_token: str | None = None


class ListFiles(Message):
    artifact_directory_path: str | None = None
    page_token: str | None = None


class GetFile(Message):
    artifact_file_path: str | None = None


class OneModel(Message):
    model: LoggedModelOut


class Models(Message):
    models: list[LoggedModelOut] = field(default_factory=list)
    next_page_token: str | None = None


class Files(Message):
    root_uri: str
    files: list[FileInfo]


def create(call: Call, asked: Create) -> OneModel:
    """Open a logged model; its files are uploaded next."""
    experiment = experiments.find(call, asked.experiment_id)
    run = places.run_of(call, asked.source_run_id).id if asked.source_run_id else ""
    model = logged_models.create(
        call.store,
        call.project,
        experiment=experiment.id,
        name=asked.name or random_name(),
        run=run,
        model_type=asked.model_type or "",
        parameters=_pairs(asked.params),
        tags=_pairs(asked.tags),
    )
    return _one(call, model)


def get(call: Call, asked: None) -> OneModel:
    """One logged model with its parameters, tags and metrics."""
    return _one(call, _find(call))


def finalize(call: Call, asked: Finalize) -> OneModel:
    """Close a logged model: ready, and then its folder is a bundle, or failed."""
    status = NUMBERED_STATUSES.get(asked.status) if isinstance(asked.status, int) else asked.status
    model = _find(call)
    if status == STATUSES[READY]:
        return _one(call, pack_logged(call.store, model))
    if status == STATUSES[FAILED]:
        try:
            return _one(
                call, logged_models.finalize(call.store, model.id, FAILED, reason="the client could not log it")
            )
        except Conflict as error:
            raise invalid(f"Logged model {model.id} is ready; it cannot fail any more.") from error
    raise invalid(f"Invalid model status: {asked.status!r}. Expected statuses: {STATUSES[READY]}, {STATUSES[FAILED]}")


def delete(call: Call, asked: None) -> dict[str, str]:
    """Delete a logged model; what was registered from it stays. Deleting it again is nothing."""
    model = _find(call, deleted=True)
    if model.deleted_at is None:
        logged_models.delete(call.store, model.id)
    return {}


def set_tags(call: Call, asked: Tags) -> OneModel:
    """Set tags of a logged model."""
    model = _find(call)
    logged_models.set_tags(call.store, model.id, _pairs(asked.tags))
    return _one(call, _find(call))


def delete_tag(call: Call, asked: None) -> dict[str, str]:
    """Take a tag from a logged model."""
    logged_models.delete_tag(call.store, _find(call).id, call.path["key"])
    return {}


def log_params(call: Call, asked: Params) -> dict[str, str]:
    """Write parameters of a logged model, each once."""
    logged_models.log_parameters(call.store, _find(call).id, _pairs(asked.params))
    return {}


def search(call: Call, asked: Search) -> Models:
    """Logged models that pass a filter."""
    if not asked.experiment_ids:
        raise invalid("Missing value for required parameter 'experiment_ids': name at least one experiment.")
    wanted = [experiments.find(call, one).id for one in asked.experiment_ids]
    page = logged_model_search.search(
        call.store,
        call.project,
        experiments=wanted,
        filter=asked.filter or "",
        order_by=[_order(one) for one in asked.order_by or ()],
        datasets=[
            *_datasets(asked.datasets or ()),
            *_datasets([one for one in asked.order_by or () if one.dataset_name]),
        ],
        limit=page_size(asked.max_results, DEFAULT_RESULTS),
        token=asked.page_token or None,
    )
    return Models(models=documents(call.store, page.items), next_page_token=page.token)


def list_files(call: Call, asked: ListFiles) -> Files:
    """Files and folders directly under a path of a logged model; their paths are relative to the model."""
    model = _find(call)
    root = model_root(model.experiment, model.id)
    path = places.safe_path((asked.artifact_directory_path or "").strip("/"))
    found = artifacts.entries(call, Place(root, model=model.id, path=path))
    return Files(
        root_uri=SCHEME + root,
        files=[FileInfo(path=one.path, is_dir=one.is_folder, file_size=one.size) for one in found],
    )


def get_file(call: Call, asked: GetFile) -> Reply:
    """A file of a logged model, as a stream."""
    model = _find(call)
    path = places.safe_path(required(asked.artifact_file_path, "artifact_file_path").strip("/"))
    return artifacts.send(
        call, Place(model_root(model.experiment, model.id), model=model.id, path=path), attachment=True
    )


def _find(call: Call, *, deleted: bool = False) -> LoggedModel:
    id = call.path["model_id"]
    try:
        return logged_models.get(call.store, id, project=call.project, deleted=deleted)
    except NotFound as error:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Logged model with ID '{id[:100]}' not found.") from error


def _one(call: Call, model: LoggedModel) -> OneModel:
    return OneModel(model=documents(call.store, [model])[0])


def _pairs(given: list[Pair] | None) -> dict[str, str]:
    if given and len(given) > PAIRS_A_REQUEST:
        raise invalid(f"A request can contain at most {PAIRS_A_REQUEST} values. Got {len(given)}.")
    return {required(one.key, "key"): one.value or "" for one in given or ()}


def _order(one: OrderBy) -> str:
    return f"{required(one.field_name, 'order_by.field_name')} {'DESC' if one.ascending is False else 'ASC'}"


def _datasets(given: Sequence[Dataset]) -> list[OnDataset]:
    return [OnDataset(required(one.dataset_name, "dataset_name"), one.dataset_digest or "") for one in given]


_MODEL = "logged-models/{model_id}"
operations = [
    Operation("POST", "logged-models", Permission.TRAIN, create, Create),
    Operation("POST", "logged-models/search", Permission.READ, search, Search),
    Operation("GET", _MODEL, Permission.READ, get),
    Operation("PATCH", _MODEL, Permission.TRAIN, finalize, Finalize),
    Operation("DELETE", _MODEL, Permission.TRAIN, delete),
    Operation("PATCH", _MODEL + "/tags", Permission.TRAIN, set_tags, Tags),
    Operation("DELETE", _MODEL + "/tags/{key:path}", Permission.TRAIN, delete_tag),
    Operation("POST", _MODEL + "/params", Permission.TRAIN, log_params, Params),
    Operation("GET", _MODEL + "/artifacts/directories", Permission.READ, list_files, ListFiles),
    Operation("GET", _MODEL + "/artifacts/files", Permission.READ, get_file, GetFile),
]
