"""The one list of all that is answered of MLflow's protocol, and its routes at all their addresses, when a server starts."""

from __future__ import annotations

import importlib

from instar.interfaces.api.routes import Route
from instar.interfaces.mlflow.frame import Operation

GROUPS = (
    "server_info",
    "experiments",
    "experiment_search",
    "runs",
    "run_logging",
    "run_search",
    "metrics",
    "inputs",
    "links",
    "artifacts",
    "logged_models",
    "registered",
    "versions",
    "webhooks",
)


def all_operations() -> list[Operation]:
    """Every operation, group by group."""
    found: list[Operation] = []
    for group in GROUPS:
        found += importlib.import_module(f"instar.interfaces.mlflow.{group}").operations
    return found


def all_routes() -> list[Route]:
    """Every operation at all its addresses."""
    return [route for operation in all_operations() for route in operation.routes()]
