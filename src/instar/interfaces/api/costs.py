"""What models cost to serve, over HTTP."""

from __future__ import annotations

from dataclasses import asdict

from instar.core.identity import Permission
from instar.core.settings import read_settings
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.cli.cost import since_of
from instar.serve.root import costs


def cost(request: Request) -> Reply:
    """What the versions of a project used, and what the server used for all; `?endpoint=`, `?since=` (a moment, or as in 24h)."""
    store, since = request.app.store, request.query.get("since")
    settings = read_settings()
    costs.take_in(store)
    found = costs.costs(
        store,
        project=request.path["project"],
        endpoint=request.query.get("endpoint"),
        since=since_of(since, store.clock) if since else None,
        prices=settings,
    )
    if request.caller.endpoints is not None:
        found = [one for one in found if one.endpoint in request.caller.endpoints]
    priced = any(one.money is not None for one in found)
    return Reply({"currency": settings.currency if priced else None, "lines": [asdict(one) for one in found]})


routes = [Route("GET", "/api/projects/{project}/cost", Permission.READ, cost, narrows=True)]
