"""The one table of routes and their permissions, in the order in which a server comes to have them while it starts.

What a server says of itself is there first. What clients log and search follows at once, while the first calls are answered.
The rest brings in the libraries for tables, and is loaded when somebody asks for one of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route

SOON_STAGES = ("train", "tracking", "experiments", "spool")
LATER_STAGES = (
    "access",
    "plan",
    "data",
    "release",
    "bringing",
    "serve",
    "traffic",
    "costs",
    "operate",
    "calls",
    "notes",
)


def first_routes() -> list[Route]:
    """What a server says of itself."""
    from instar.interfaces.mlflow import routes as mlflow

    return mlflow.first_routes()


def soon_routes() -> list[Route]:
    """Tracking."""
    from instar.interfaces.mlflow import routes as mlflow

    return [*mlflow.other_routes(), *_of_stages(SOON_STAGES)]


def later_routes() -> list[Route]:
    """All others: the console, the later stages, and the description of the API."""
    from instar.interfaces.console import pages

    return [
        *_of_stages(LATER_STAGES),
        *pages.routes,
        Route("GET", "/api/openapi.json", Permission.KNOWN, _describe),
    ]


def all_routes() -> list[Route]:
    """The whole table."""
    return [*first_routes(), *soon_routes(), *later_routes()]


def _of_stages(stages: Iterable[str]) -> list[Route]:
    return [route for stage in stages for route in importlib.import_module(f"instar.interfaces.api.{stage}").routes]


def _describe(request: Request) -> Reply:
    """An OpenAPI description made from the table of routes."""
    paths: dict[str, dict[str, object]] = {}
    for route in all_routes():
        summary = (route.handler.__doc__ or "").strip().split("\n")[0]
        paths.setdefault(route.path, {})[route.method.lower()] = {
            "summary": summary,
            "x-permission": route.permission.value,
            "responses": {"200": {"description": "done"}},
        }
    return Reply({"openapi": "3.1.0", "info": {"title": "Instar", "version": "1"}, "paths": paths})
