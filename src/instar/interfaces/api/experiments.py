"""Experiments over HTTP: making, renaming, moving, tagging, deleting and restoring one; listing is beside the searches."""

from __future__ import annotations

import msgspec

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.train import experiments, run_search
from instar.train.experiments import Experiment


class NewExperiment(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/experiments`."""

    name: str
    tags: dict[str, str] = {}


class NewName(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/experiments/{experiment}/rename`."""

    name: str


class NewPlace(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/experiments/{experiment}/move`: the project, and the name there; the same by default."""

    project: str
    name: str | None = None


class NewTag(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT …/experiments/{experiment}/tags/{tag}`."""

    value: str


def create_experiment(request: Request) -> Reply:
    """Make an experiment; its name may be a path such as team/delay/trees."""
    body: NewExperiment = request.json(NewExperiment)
    made = experiments.create(request.app.store, request.path["project"], body.name, body.tags)
    return Reply(experiments.document(made), status=201)


def show_experiment(request: Request) -> Reply:
    """One experiment with its tags and how many runs it has."""
    found = _of_project(request)
    number = run_search.count(request.app.store, experiments=[found.id])
    return Reply({**experiments.document(found), "runs": number})


def rename_experiment(request: Request) -> Reply:
    """Give an experiment another name; its id and its runs stay."""
    body: NewName = request.json(NewName)
    return Reply(experiments.document(experiments.rename(request.app.store, _of_project(request).id, body.name)))


def move_experiment(request: Request) -> Reply:
    """Move an experiment with all its runs to another project; ids stay."""
    body: NewPlace = request.json(NewPlace)
    found = _of_project(request)
    name = found.name if body.name is None else body.name
    return Reply(experiments.document(experiments.move(request.app.store, found.id, body.project, name)))


def delete_experiment(request: Request) -> Reply:
    """Hide an experiment and its runs; its name is free at once."""
    return Reply(experiments.document(experiments.delete(request.app.store, _of_project(request).id)))


def restore_experiment(request: Request) -> Reply:
    """Bring a deleted experiment back, with the runs that went with it."""
    return Reply(experiments.document(experiments.restore(request.app.store, _of_project(request).id)))


def tag_experiment(request: Request) -> Reply:
    """Add a tag to an experiment, or change it."""
    body: NewTag = request.json(NewTag)
    found = _of_project(request)
    experiments.set_tag(request.app.store, found.id, request.path["tag"], body.value)
    return Reply(experiments.document(experiments.get(request.app.store, found.id)))


def untag_experiment(request: Request) -> Reply:
    """Take a tag of an experiment away."""
    found = _of_project(request)
    experiments.delete_tag(request.app.store, found.id, request.path["tag"])
    return Reply(experiments.document(experiments.get(request.app.store, found.id)))


def _of_project(request: Request) -> Experiment:
    found = experiments.get(request.app.store, request.path["experiment"])
    if found.project != request.path["project"]:  # do not tell a reader of one project of another's experiments
        raise NotFound("there is no such experiment", subject=f"experiment {found.id}")
    return found


_ONE = "/api/projects/{project}/experiments/{experiment}"
routes = [
    Route("POST", "/api/projects/{project}/experiments", Permission.TRAIN, create_experiment),
    Route("GET", _ONE, Permission.READ, show_experiment),
    Route("POST", f"{_ONE}/rename", Permission.TRAIN, rename_experiment),
    Route("POST", f"{_ONE}/move", Permission.TRAIN, move_experiment),
    Route("POST", f"{_ONE}/restore", Permission.TRAIN, restore_experiment),
    Route("DELETE", _ONE, Permission.TRAIN, delete_experiment),
    Route("PUT", f"{_ONE}/tags/{{tag}}", Permission.TRAIN, tag_experiment),
    Route("DELETE", f"{_ONE}/tags/{{tag}}", Permission.TRAIN, untag_experiment),
]
