"""The API of serving: what each endpoint answers with, and how that came to be."""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.serve import routing
from instar.serve.routing import Revision


def endpoints(request: Request) -> Reply:
    """The endpoints of a project with their current policies."""
    return Reply([described(one) for one in routing.endpoints(request.app.store, request.path["project"])])


def endpoint(request: Request) -> Reply:
    """One endpoint: its current policy, and all revisions before it."""
    name = request.path["endpoint"]
    history = routing.history(request.app.store, name)
    if not history or history[-1].policy.project != request.path["project"]:
        raise NotFound("the project has no such endpoint", subject=f"endpoint {name}")
    return Reply({"current": described(history[-1]), "history": [described(one) for one in history]})


def described(revision: Revision) -> dict[str, Any]:
    """A policy revision as JSON: who, when and why, and the bundle of each version that it names."""
    return {
        "id": revision.id,
        "policy": msgspec.to_builtins(revision.policy),
        "bundles": {str(version): digest for version, digest in revision.bundles.items()},
        "actor": revision.actor,
        "cause": revision.cause,
        "event_at": revision.event_at.isoformat(),
        "recorded_at": revision.recorded_at.isoformat(),
    }


routes = [
    Route("GET", "/api/projects/{project}/endpoints", Permission.READ, endpoints),
    Route("GET", "/api/projects/{project}/endpoints/{endpoint}", Permission.READ, endpoint),
]
