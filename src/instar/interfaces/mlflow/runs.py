"""Runs over MLflow's protocol: started, named, tagged, ended, deleted and brought back, while somebody trains elsewhere.

A run is a run: its environment and code are the client's, so what the client says of them as tags is all that is known.
"""

from __future__ import annotations

import json
from typing import Any

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.mlflow import experiments
from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import LONGEST_RUN_NAME, THINGS_A_BATCH, good_key, good_value
from instar.interfaces.mlflow.messages import CreateRun, LogModel, OfRun, Pair, RunInfo, RunOut, SetTag, UpdateRun
from instar.interfaces.mlflow.run_documents import NAME_TAG, USER_TAG, document, info, whole
from instar.interfaces.mlflow.run_logging import log
from instar.interfaces.mlflow.run_names import random_name
from instar.interfaces.mlflow.words import instant, state
from instar.train import runs
from instar.train.run_records import Columns, Run

LOGGED_MODELS_TAG = "mlflow.log-model.history"  # what clients of 2.x keep about the models of a run
NOTHING = Columns(metrics=(), parameters=(), tags=(), artifacts=False)
TAGS = Columns(metrics=(), parameters=(), artifacts=False)
MODEL_FIELDS = ("artifact_path", "flavors", "utc_time_created", "run_id")


class OneRun(Message):
    """Answer: a run."""

    run: RunOut


class OneRunInfo(Message):
    """Answer: what a run is."""

    run_info: RunInfo


def create(call: Call, asked: CreateRun) -> OneRun:
    """Start a run."""
    experiment = experiments.for_a_run(call, asked.experiment_id or experiments.DEFAULT_ID)
    tags = run_tags(asked.tags)
    tagged = tags.get(NAME_TAG, "")
    if asked.run_name and tagged and asked.run_name != tagged:
        raise invalid(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{asked.run_name}', mlflow.runName='{tagged}')."
        )
    name = good_value(asked.run_name or tagged or random_name(), "run_name", LONGEST_RUN_NAME)
    tags[NAME_TAG] = name
    if asked.user_id:
        tags.setdefault(USER_TAG, good_value(asked.user_id, "user_id"))
    run = runs.start(
        call.store,
        call.project,
        experiment=experiment,
        tags=tags,
        name=name,
        user=tags.get(USER_TAG),
        started=instant(asked.start_time, "start_time") if asked.start_time else None,
        cause=call.request.actor.name,
        capture=False,
    )
    return OneRun(run=document(run))


def get(call: Call, asked: OfRun) -> OneRun:
    """One run with all that it logged."""
    (run,) = whole(call.store, [find(call, asked).key])
    return OneRun(run=run)


def update(call: Call, asked: UpdateRun) -> OneRunInfo:
    """Change a run's status, end or name; an ended run may be opened again."""
    run = active(call, asked)
    status = state(asked.status) if asked.status is not None else None
    ended = instant(asked.end_time, "end_time") if asked.end_time is not None else None
    if asked.run_name:
        log(call, run.id, tags={NAME_TAG: good_value(asked.run_name, "run_name", LONGEST_RUN_NAME)})
    return OneRunInfo(run_info=info(runs.update(call.store, run.id, state=status, ended=ended)))


def delete(call: Call, asked: OfRun) -> dict[str, str]:
    """Delete a run, so that it can be restored."""
    runs.delete(call.store, find(call, asked).id)
    return {}


def restore(call: Call, asked: OfRun) -> dict[str, str]:
    """Bring a deleted run back."""
    runs.restore(call.store, find(call, asked).id)
    return {}


def set_tag(call: Call, asked: SetTag) -> dict[str, str]:
    """Set a tag of a run."""
    id = required(asked.run_id or asked.run_uuid, "run_id")
    log(call, id, tags=run_tags([Pair(key=asked.key, value=asked.value)]))
    return {}


def delete_tag(call: Call, asked: SetTag) -> dict[str, str]:
    """Remove a tag of a run."""
    run = active(call, asked, TAGS)
    key = required(asked.key, "key")
    if key not in run.tags:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key} in run with id {run.id}")
    runs.delete_tag(call.store, run.id, key)
    return {}


def log_model(call: Call, asked: LogModel) -> dict[str, str]:
    """Note a model of a run, as clients of 2.x do: one more entry of a tag."""
    run = active(call, asked)
    model = _model(required(asked.model_json, "model_json"))

    def with_model(before: str | None) -> str:
        try:
            history = json.loads(before or "[]")
        except ValueError:
            history = []
        known = history if isinstance(history, list) else []
        return json.dumps(known if model in known else [*known, model])  # a client that tries again says the same again

    runs.change_tag(call.store, run.id, LOGGED_MODELS_TAG, with_model)
    return {}


def find(call: Call, asked: OfRun, columns: Columns = NOTHING) -> Run:
    """The project's run that a message names, with what `columns` asks for.

    Raises:
        Refusal: There is none in this project.
    """
    return of_project(call, required(asked.run_id or asked.run_uuid, "run_id"), columns)


def of_project(call: Call, id: str, columns: Columns = NOTHING) -> Run:
    """The run of a whole id, which must be the project's.

    Raises:
        Refusal: There is none in this project.
    """
    try:
        run = runs.get_run(call.store, id, columns)
    except NotFound:
        run = None
    # The beginning of an id is no id here, and nobody is told of another project's runs.
    if run is None or run.id != id or run.project != call.project:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Run with id={id[:100]} not found")
    return run


def active(call: Call, asked: OfRun, columns: Columns = NOTHING) -> Run:
    """The project's run that a message names, which must not be deleted.

    Raises:
        Refusal: There is none, or it is deleted.
    """
    run = find(call, asked, columns)
    if run.lifecycle != "active":
        raise invalid(f"The run {run.id} must be in the 'active' state. Current state is {run.lifecycle}.")
    return run


def run_tags(tags: list[Pair] | None) -> dict[str, str]:
    """Tags as they are kept; of a repeated key the last.

    Raises:
        Refusal: There are too many, or one cannot be kept.
    """
    if tags and len(tags) > THINGS_A_BATCH:
        raise invalid(f"At most {THINGS_A_BATCH} tags can be set at once. Got {len(tags)}.")
    return {good_key(required(tag.key, "key")): good_value(tag.value) for tag in tags or ()}


def _model(text: str) -> dict[str, Any]:
    try:
        model = json.loads(text)
    except ValueError as error:
        raise invalid(f"Malformed model info. {text[:200]!r} is not valid JSON.") from error
    absent = [name for name in MODEL_FIELDS if not isinstance(model, dict) or name not in model]
    if absent:
        raise invalid(f"Model json is missing mandatory fields: {', '.join(absent)}")
    found: dict[str, Any] = model
    return found


operations = [
    Operation("POST", "runs/create", Permission.TRAIN, create, CreateRun),
    Operation("GET", "runs/get", Permission.READ, get, OfRun),
    Operation("POST", "runs/update", Permission.TRAIN, update, UpdateRun),
    Operation("POST", "runs/delete", Permission.TRAIN, delete, OfRun),
    Operation("POST", "runs/restore", Permission.TRAIN, restore, OfRun),
    Operation("POST", "runs/set-tag", Permission.TRAIN, set_tag, SetTag),
    Operation("POST", "runs/delete-tag", Permission.TRAIN, delete_tag, SetTag),
    Operation("POST", "runs/log-model", Permission.TRAIN, log_model, LogModel),
]
