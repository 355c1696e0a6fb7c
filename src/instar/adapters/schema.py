"""The whole schema of the metadata database: imports every stage that declares tables, so that `metadata` names them all."""

from __future__ import annotations

import importlib

from instar.core.database import metadata

OWNERS = (
    "instar.core.journal",
    "instar.core.lineage",
    "instar.core.notes",
    "instar.core.refusals",
    "instar.core.tokens",
    "instar.plan.executions",
    "instar.plan.leases",
    "instar.plan.revisions",
    "instar.data.versions",
    "instar.train.bundles",
    "instar.train.logged_models",
    "instar.train.model_links",
    "instar.train.tracking_tables",
    "instar.train.spool_position",
    "instar.train.studies",
    "instar.evaluate.evaluation",
    "instar.release.approval",
    "instar.release.waivers",
    "instar.release.bars",
    "instar.release.registered_models",
    "instar.release.scan_files",
    "instar.release.version_records",
    "instar.release.webhooks",
    "instar.serve.log.catalogue",
    "instar.serve.root.costs",
    "instar.serve.log.erasing",
    "instar.serve.log.holds",
    "instar.serve.traffic.routing",
    "instar.serve.publishing.trial",
    "instar.operate.actions",
    "instar.operate.alerts",
    "instar.operate.firing",
    "instar.operate.measurement",
    "instar.operate.outcomes",
    "instar.operate.rollout",
)


def load() -> None:
    """Import all owners of tables."""
    for module in OWNERS:
        importlib.import_module(module)


__all__ = ["OWNERS", "load", "metadata"]
