"""What one record says in short: the hop of a trace for any id, whatever stage wrote it.

Used while a trace walks the lineage; `trace` decides where it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import lineage
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.data import tables
from instar.evaluate.evaluation import get_evaluation
from instar.operate import rollout
from instar.plan import executions
from instar.release import registry
from instar.release.approval import approval_table
from instar.release.card import form_of
from instar.release.waivers import waiver_table
from instar.serve.traffic.routing import policy_revision
from instar.train import logged_models, runs
from instar.train.bundle import load_manifest

ROW = "row"  # this very row, call or prediction
VERSION_ONLY = "version only"  # the version that it came from, of which it is one of many rows


@dataclass(frozen=True)
class Hop:
    """One stop of a trace and what lies behind it.

    Attributes:
        kind: What it is, e.g. `"prediction"`, `"table version"`.
        id: The record's id; empty for something that has none.
        name: As people write it, e.g. `"delay@3"`.
        precision: `"row"` or `"version only"`.
        facts: JSON values that the record holds.
        relation: How it relates to the hop before.
        hops: The next ones.
    """

    kind: str
    id: str
    name: str
    precision: str = VERSION_ONLY
    facts: dict[str, Any] = field(default_factory=dict)
    relation: str = ""
    hops: tuple[Hop, ...] = ()

    def to(self, *hops: Hop | None) -> Hop:
        """The same stop, leading on to more."""
        return replace(self, hops=(*self.hops, *(hop for hop in hops if hop is not None)))

    def as_json(self) -> dict[str, Any]:
        """The stop and all behind it as JSON values."""
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "precision": self.precision,
            "relation": self.relation,
            "facts": plain(self.facts),
            "hops": [hop.as_json() for hop in self.hops],
        }

    def walk(self) -> list[Hop]:
        """This stop and all behind it, depth first."""
        return [self, *(inner for hop in self.hops for inner in hop.walk())]


def plain(value: Any) -> Any:
    """JSON values for whatever a record or a row holds."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value != value:
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def describe(store: Store, project: str, node: str, relation: str = "") -> Hop:
    """The hop of any record; one that is not there (any more) is named, with a fact that says so."""
    prefix = node.split(":")[0] if node.startswith("b3:") else node.split("_")[0]
    if node.startswith("m-"):
        prefix = "m"
    read = _READERS.get(prefix)
    try:
        found = read(store, project, node) if read else Hop("record", node, node)
    except NotFound:
        found = Hop("record", node, node, facts={"missing": "nothing is on the record under this id"})
    return replace(found, relation=relation)


def on_record(store: Store, project: str, node: str) -> bool:
    """Is there anything of this id: the record itself, or lineage that names it?"""
    if "missing" not in describe(store, project, node).facts:
        return True
    with store.database.read() as tx:
        return bool(lineage.up(tx, node, depth=1) or lineage.down(tx, node, depth=1))


def _table_version(store: Store, project: str, node: str) -> Hop:
    version = tables.get(store, project, node)
    failed = [result.name for result in version.checks if not result.passed]
    facts = {
        "zone": version.zone,
        "rows": version.rows,
        "content": version.content,
        "state": version.state,
        "execution": version.execution,
        "cause": version.cause,
        "event_at": version.event_at,
        "failed_checks": failed,
    }
    if version.partition is not None:
        facts["partition"] = version.partition
    return Hop("table version", version.id, version.ref, facts=facts)


def _execution(store: Store, project: str, node: str) -> Hop:
    with store.database.read() as tx:
        found = executions.get(tx, node)
    if found is None:
        raise NotFound("there is no such execution", subject=node)
    facts = {
        "step": found.step,
        "key": found.key,
        "state": found.state,
        "cause": found.cause,
        "actor": found.actor,
        "pipeline_run": found.pipe,
        "parameters": found.parameters,
        "event_at": found.event_at,
    }
    return Hop("execution", found.id, found.step, facts=facts)


def _run(store: Store, project: str, node: str) -> Hop:
    found = runs.get_run(store, node)
    code = found.code or {}
    facts = {
        "step": found.step,
        "experiment": found.experiment,
        "parameters": dict(found.parameters),
        "metrics": dict(found.metrics),
        "code": {name: code.get(name) for name in ("commit", "diff", "content") if code.get(name)},
        "environment": found.environment,
        "actor": found.actor,
        "cause": found.cause,
        "started": found.started,
    }
    return Hop("run", found.id, found.id, facts=facts)


def _bundle(store: Store, project: str, node: str) -> Hop:
    manifest = load_manifest(store.blobs, node)
    facts = {
        "step": manifest.step,
        "recipe": manifest.recipe,
        "threshold": manifest.threshold if manifest.tensors is None else None,
        "form": form_of(manifest),
        "parity": manifest.parity.max_difference if manifest.parity else None,
        "fitted_rows": manifest.fitted_rows,
        "fitted_until": manifest.fitted_until,
        "environment": manifest.environment,
    }
    made = (
        f"by {manifest.step}"
        if manifest.step
        else "as it was brought"
        if manifest.kind in ("file", "command", "class")
        else "as it was logged"
    )
    return Hop("bundle", node, f"{manifest.model} {made}", facts=facts)


def _logged_model(store: Store, project: str, node: str) -> Hop:
    found = logged_models.get(store, node, deleted=True)
    facts = {
        "state": found.state,
        "run": found.run,
        "model_type": found.model_type,
        "parameters": dict(found.parameters),
        "created_by": found.created_by,
        "created_at": found.created_at,
    }
    return Hop("logged model", found.id, found.name, facts=facts)


def _model_version(store: Store, project: str, node: str) -> Hop:
    found = registry.find(store, project, node)
    facts = {
        "bundle": found.bundle,
        "origin": found.origin,
        "refit_of": found.refit_of,
        "registered_by": found.registered_by,
        "event_at": found.event_at,
    }
    return Hop("model version", found.id, found.name, facts=facts)


def _evaluation(store: Store, project: str, node: str) -> Hop:
    found = get_evaluation(store, node)
    costs = {who: metrics.get("cost", {}).get("value") for who, metrics in found.metrics.items()}
    facts = {
        "verdict": found.verdict.state,
        "reason": found.verdict.reason,
        "relation": found.relation,
        "opponent": found.opponent,
        "cost": costs,
        "report": found.report_json,
        "contract": found.contract,
        "event_at": found.event_at,
    }
    return Hop("evaluation", found.id, f"{found.verdict.state}, {found.relation}", facts=facts)


def _approval(store: Store, project: str, node: str) -> Hop:
    row = _row(store, approval_table, node)
    facts = {
        "approved_by": row.approved_by,
        "proposed_by": row.proposed_by,
        "policy": row.policy,
        "state": row.state,
        "reason": row.reason,
        "evidence": row.evidence,
        "contract": row.contract,
        "expires_at": row.expires_at,
        "event_at": row.event_at,
    }
    return Hop("approval", row.id, f"{row.state} by {row.approved_by or 'nobody yet'}", facts=facts)


def _waiver(store: Store, project: str, node: str) -> Hop:
    row = _row(store, waiver_table, node)
    facts = {"gate": row.gate, "reason": row.reason, "given_by": row.given_by, "expires_at": row.expires_at}
    return Hop("waiver", row.id, row.gate, facts=facts)


def _revision(store: Store, project: str, node: str) -> Hop:
    row = _row(store, policy_revision, node)
    facts = {"actor": row.actor, "cause": row.cause, "event_at": row.event_at, **row.policy}
    return Hop("policy revision", row.id, f"{row.endpoint} policy {row.number}", facts=facts)


def _rollout(store: Store, project: str, node: str) -> Hop:
    found = rollout.get(store, node)
    facts = {
        "candidate": found.candidate,
        "incumbent": found.incumbent,
        "stage": found.stage,
        "reason": found.reason,
        "cause": found.cause,
        "started_at": found.started_at,
        "ended_at": found.ended_at,
    }
    return Hop("rollout", found.id, f"{found.endpoint}@{found.candidate}, {found.stage}", facts=facts)


def _row(store: Store, table: sa.Table, node: str) -> Any:
    with store.database.read() as tx:
        row = tx.execute(sa.select(table).where(table.c.id == node)).one_or_none()
    if row is None:
        raise NotFound("nothing is on the record under this id", subject=node)
    return row


_READERS: dict[str, Callable[[Store, str, str], Hop]] = {
    "tver": _table_version,
    "exec": _execution,
    "run": _run,
    "b3": _bundle,
    "m": _logged_model,
    "mver": _model_version,
    "eval": _evaluation,
    "appr": _approval,
    "waiv": _waiver,
    "prev": _revision,
    "roll": _rollout,
}
