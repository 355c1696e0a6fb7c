"""Experiments over MLflow's protocol: made, found, renamed, deleted and brought back, before and after their runs.

An experiment is an experiment. The id "0", which clients use when nothing was chosen, is the project's experiment
`Default`, made on first use.
"""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.errors import Conflict, NotFound
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import (
    LONGEST_EXPERIMENT_NAME,
    LONGEST_EXPERIMENT_TAG,
    good_key,
    good_value,
)
from instar.interfaces.mlflow.messages import (
    CreateExperiment,
    ExperimentOut,
    GetExperimentByName,
    OfExperiment,
    Pair,
)
from instar.interfaces.mlflow.words import milliseconds, pairs
from instar.train import experiments
from instar.train.experiments import Experiment

DEFAULT_ID, DEFAULT_NAME = "0", "Default"
# Artifacts always go through this server; where a client wanted them is kept as this tag.
ASKED_LOCATION = "instar.asked_artifact_location"


class ExperimentId(Message):
    """Answer: an experiment's id."""

    experiment_id: str


class OneExperiment(Message):
    """Answer: an experiment."""

    experiment: ExperimentOut


def create(call: Call, asked: CreateExperiment) -> ExperimentId:
    """Make an experiment."""
    name = _name(asked.name, "name")
    tags = experiment_tags(asked.tags)
    if asked.artifact_location:
        tags[ASKED_LOCATION] = asked.artifact_location[:LONGEST_EXPERIMENT_TAG]
    try:
        made = experiments.create(call.store, call.project, name, tags)
    except Conflict as error:
        raise Refusal(
            "RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists. {error.next_step}"
        ) from error
    return ExperimentId(experiment_id=made.id)


def get(call: Call, asked: OfExperiment) -> OneExperiment:
    """One experiment, by its id."""
    return OneExperiment(experiment=document(find(call, asked.experiment_id)))


def get_by_name(call: Call, asked: GetExperimentByName) -> OneExperiment:
    """One experiment, by its name: the active one, else the one that was deleted last."""
    name = required(asked.experiment_name, "experiment_name")
    found = experiments.by_name(call.store, call.project, name)
    if found is None and name == DEFAULT_NAME:
        found = experiments.ensure(call.store, call.project, name)
    if found is None:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Could not find experiment with name '{name}'")
    return OneExperiment(experiment=document(found))


def rename(call: Call, asked: OfExperiment) -> dict[str, str]:
    """Give an experiment another name."""
    found = find(call, asked.experiment_id)
    name = _name(asked.new_name, "new_name")
    if found.state != "active":
        raise invalid(f"Cannot rename a non-active experiment: {found.id} is {found.state}.")
    try:
        experiments.rename(call.store, found.id, name)
    except Conflict as error:
        raise Refusal("RESOURCE_ALREADY_EXISTS", f"Experiment(name={name}) already exists.") from error
    return {}


def delete(call: Call, asked: OfExperiment) -> dict[str, str]:
    """Delete an experiment and its runs, so that they can be restored."""
    experiments.delete(call.store, find(call, asked.experiment_id).id)
    return {}


def restore(call: Call, asked: OfExperiment) -> dict[str, str]:
    """Bring a deleted experiment back, and the runs that went with it."""
    found = find(call, asked.experiment_id)
    try:
        experiments.restore(call.store, found.id)
    except Conflict as error:
        raise Refusal("RESOURCE_ALREADY_EXISTS", error.describe()) from error
    return {}


def set_tag(call: Call, asked: OfExperiment) -> dict[str, str]:
    """Set a tag of an experiment."""
    found = find(call, asked.experiment_id)
    tags = experiment_tags([Pair(key=asked.key, value=asked.value)])
    ((key, value),) = tags.items()
    experiments.set_tag(call.store, found.id, key, value)
    return {}


def delete_tag(call: Call, asked: OfExperiment) -> dict[str, str]:
    """Remove a tag of an experiment."""
    found = find(call, asked.experiment_id)
    key = required(asked.key, "key")
    if key not in found.tags:
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key} in experiment with id {found.id}")
    experiments.delete_tag(call.store, found.id, key)
    return {}


def find(call: Call, id: str | None) -> Experiment:
    """The project's experiment of an id; "0" is its experiment `Default`.

    Raises:
        Refusal: There is none in this project.
    """
    if required(id, "experiment_id") == DEFAULT_ID:
        return experiments.ensure(call.store, call.project, DEFAULT_NAME)
    return of_project(call.store, call.project, required(id, "experiment_id"))


def of_project(store: Store, project: str, id: str) -> Experiment:
    """The experiment, which must be the project's.

    Raises:
        Refusal: There is none in this project.
    """
    try:
        found = experiments.get(store, id)
    except NotFound:
        found = None
    if found is None or found.project != project:  # do not tell a reader of one project of another's
        raise _absent(id)
    return found


def for_a_run(call: Call, id: str) -> str:
    """What `runs.start` takes for an experiment that a client names: looked at as little as possible, at each new run.

    Raises:
        Refusal: There is none in this project, or it is deleted.
    """
    if id == DEFAULT_ID:
        return DEFAULT_NAME
    try:
        with call.store.database.read() as tx:
            found = experiments.require_experiment(tx, id)
    except NotFound:
        found = None
    if found is None or found.project != call.project:
        raise _absent(id)
    if found.state != "active":
        raise invalid(f"The experiment {id} must be in the 'active' state. Current state is {found.state}.")
    return id


def ids(call: Call, asked: Sequence[str]) -> list[str]:
    """Ids of experiments to search in, with the id of `Default` for "0"; one that is not there finds nothing."""
    found = [id for id in asked if id != DEFAULT_ID]
    if len(found) < len(asked):
        default = experiments.by_name(call.store, call.project, DEFAULT_NAME)
        if default is not None and default.id not in found:
            found.append(default.id)
    return found


def document(found: Experiment) -> ExperimentOut:
    """An experiment as the protocol has it."""
    return ExperimentOut(
        experiment_id=found.id,
        name=found.name,
        artifact_location=artifact_location(found.id),
        lifecycle_stage=found.state,
        last_update_time=milliseconds(found.updated),
        creation_time=milliseconds(found.created),
        workspace=found.project,
        tags=pairs(found.tags),
    )


def artifact_location(experiment: str) -> str:
    """Where the artifacts of an experiment's runs are, as clients address them."""
    return f"mlflow-artifacts:/{experiment}"


def experiment_tags(tags: list[Pair] | None) -> dict[str, str]:
    """Tags as they are kept.

    Raises:
        Refusal: A key or a value that cannot be one.
    """
    found: dict[str, str] = {}
    for tag in tags or ():
        key = good_key(required(tag.key, "key"))
        found[key] = good_value(tag.value, "value", LONGEST_EXPERIMENT_TAG)
    return found


def _absent(id: str) -> Refusal:
    return Refusal("RESOURCE_DOES_NOT_EXIST", f"No Experiment with id={id[:100]} exists")


def _name(name: str | None, field: str) -> str:
    return good_value(required(name, field), field, LONGEST_EXPERIMENT_NAME)


operations = [
    Operation("POST", "experiments/create", Permission.TRAIN, create, CreateExperiment),
    Operation("GET", "experiments/get", Permission.READ, get, OfExperiment),
    Operation("GET", "experiments/get-by-name", Permission.READ, get_by_name, GetExperimentByName),
    Operation("POST", "experiments/update", Permission.TRAIN, rename, OfExperiment),
    Operation("POST", "experiments/delete", Permission.TRAIN, delete, OfExperiment),
    Operation("POST", "experiments/restore", Permission.TRAIN, restore, OfExperiment),
    Operation("POST", "experiments/set-experiment-tag", Permission.TRAIN, set_tag, OfExperiment),
    Operation("POST", "experiments/delete-experiment-tag", Permission.TRAIN, delete_tag, OfExperiment),
]
