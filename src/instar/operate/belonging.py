"""Whose a record is: asked before a trace of it is shown to somebody who may read one project and not another.

Ids are the same in all projects of a store, so an id alone says nothing about who may read what it stands for.
"""

from __future__ import annotations

import sqlalchemy as sa

from instar.core.errors import NotFound
from instar.core.ids import parse_prediction_id
from instar.core.store import Store
from instar.data.versions import table_version
from instar.evaluate.evaluation import evaluation_table
from instar.operate.rollout import rollout
from instar.operate.trace import CallRecord
from instar.plan.executions import execution
from instar.release.approval import approval_table
from instar.release.version_records import is_registered, version_table
from instar.release.waivers import waiver_table
from instar.serve.traffic import routing
from instar.serve.traffic.routing import policy_revision
from instar.train.bundles import bundle_table
from instar.train.logged_models import logged_model_table
from instar.train.tracking_tables import run_table

_TABLES: dict[str, sa.Table] = {
    "tver": table_version, "exec": execution, "run": run_table, "mver": version_table, "eval": evaluation_table,
    "appr": approval_table, "waiv": waiver_table, "prev": policy_revision, "roll": rollout, "m": logged_model_table,
}  # fmt: skip


def require_in(store: Store, log: CallRecord, project: str, name: str) -> None:
    """Raises NotFound when a prediction or a record of that id is there, and is of another project.

    Raises:
        MalformedRequest: It begins like a prediction's id and is none.
    """
    if name.startswith("call_"):
        parse_prediction_id(name)
        row = log.find(name)
        if row["policy"] is None:  # it was called before there was a route
            return
        if routing.get(store, str(row["endpoint"]), int(row["policy"])).policy.project != project:
            raise NotFound("there is no such prediction in this project", subject=name)
        return
    table = _TABLES.get(name.split("-" if name.startswith("m-") else "_")[0])
    with store.database.read() as tx:
        if name.startswith("b3:"):
            owned = sa.select(bundle_table.c.project).where(bundle_table.c.digest == name)
            if is_registered(tx, project, name):
                return
        elif table is not None:
            owned = sa.select(table.c.project).where(table.c.id.startswith(name, autoescape=True))  # runs are found so
        else:
            return
        owners = set(tx.execute(owned.distinct()).scalars())
    if owners and project not in owners:
        raise _elsewhere(name)


def _elsewhere(name: str) -> NotFound:
    return NotFound("there is no such record in this project", subject=name)
