"""The one list of all that is answered of MLflow's protocol, and its routes at all their addresses, when a server starts."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from instar.interfaces.api.routes import Route
from instar.interfaces.mlflow.frame import Operation

FIRST = ("server_info",)  # what a client asks before its first run
GROUPS = (
    "experiments",
    "experiment_search",
    "runs",
    "run_logging",
    "run_search",
    "metrics",
    "inputs",
    "links",
    "artifacts",
    "part_uploads",
    "presigned",
    "logged_models",
    "registered",
    "versions",
    "webhooks",
)


def all_operations() -> list[Operation]:
    """Every operation, group by group."""
    return _of((*FIRST, *GROUPS))


def all_routes() -> list[Route]:
    """Every operation at all its addresses."""
    return [*first_routes(), *other_routes()]


def first_routes() -> list[Route]:
    """What a server says of itself, at all its addresses."""
    return [route for operation in _of(FIRST) for route in operation.routes()]


def other_routes() -> list[Route]:
    """All that a client does with a server, at all its addresses."""
    return [route for operation in _of(GROUPS) for route in operation.routes()]


def _of(groups: Iterable[str]) -> list[Operation]:
    found: list[Operation] = []
    for group in groups:
        found += importlib.import_module(f"instar.interfaces.mlflow.{group}").operations
    return found
