"""The API of serving: what each endpoint answers with, and how that came to be."""

from __future__ import annotations

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.cli.route import described
from instar.serve.traffic import routing


def endpoints(request: Request) -> Reply:
    """The endpoints of a project with their current policies."""
    found = routing.endpoints(request.app.store, request.path["project"])
    return Reply([described(one) for one in found if request.caller.reaches(one.policy.endpoint)])


def endpoint(request: Request) -> Reply:
    """One endpoint: its current policy, and all revisions before it."""
    name = request.path["endpoint"]
    history = routing.history(request.app.store, name)
    if not history or history[-1].policy.project != request.path["project"]:
        raise NotFound("the project has no such endpoint", subject=f"endpoint {name}")
    return Reply({"current": described(history[-1]), "history": [described(one) for one in history]})


routes = [
    Route("GET", "/api/projects/{project}/endpoints", Permission.READ, endpoints, narrows=True),
    Route("GET", "/api/projects/{project}/endpoints/{endpoint}", Permission.READ, endpoint),
]
