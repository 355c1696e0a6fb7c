"""The whole schema of the metadata database: imports every stage that declares tables, so that `metadata` names them all."""

from __future__ import annotations

import importlib

from instar.core.database import metadata

OWNERS = (
    "instar.core.journal",
    "instar.core.lineage",
    "instar.plan.project",
    "instar.plan.runner",
    "instar.data.tables",
    "instar.data.ingest",
    "instar.train.runs",
    "instar.train.bundles",
    "instar.evaluate.evaluation",
    "instar.release.registry",
    "instar.release.approval",
    "instar.serve.routing",
    "instar.serve.calls",
    "instar.operate.outcomes",
    "instar.operate.monitor",
    "instar.operate.alerts",
    "instar.operate.rollout",
    "instar.operate.actions",
)


def load() -> None:
    """Import all owners of tables."""
    for module in OWNERS:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("instar"):
                raise


__all__ = ["OWNERS", "load", "metadata"]
