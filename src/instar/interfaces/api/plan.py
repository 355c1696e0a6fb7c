"""The API of planning: the contract in force, and the state of the pipeline's steps."""

from __future__ import annotations

import msgspec

from instar.core import journal
from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.plan import runner


def projects(request: Request) -> Reply:
    """The projects that the store holds records of, and the one that this server works for."""
    with request.app.store.database.read() as tx:
        known = journal.projects(tx)
    return Reply({"projects": known, "own": request.app.project_name})


def contract(request: Request) -> Reply:
    """The project's contract: objective, problems, costs, gates and policies, with its revision."""
    _own(request)
    project = request.app.project
    return Reply(
        {"project": project.name, "revision": project.revision, "contract": msgspec.to_builtins(project.contract)}
    )


def steps(request: Request) -> Reply:
    """The steps of the pipeline, and which of them are current."""
    _own(request)
    app = request.app
    found = runner.status(app.store, app.project, app.pipeline, app.kinds())
    return Reply([one.record() for one in found])


def _own(request: Request) -> None:
    if request.path["project"] != request.app.project_name:
        raise NotFound(
            "this server works for another project",
            subject=f"project {request.path['project']}",
            found=request.app.project_name,
        )


routes = [
    Route("GET", "/api/projects", Permission.READ, projects),
    Route("GET", "/api/projects/{project}/contract", Permission.READ, contract),
    Route("GET", "/api/projects/{project}/steps", Permission.READ, steps),
]
