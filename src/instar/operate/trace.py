"""Traces: from a prediction back to the rows of bronze and the people who allowed it, and forward from any record to all
that it touched.

Every stop says how exact it is: *row* (this very prediction, call or row) or *version only* (one of the many rows of that
version). Lineage holds the edges between records; calls are no nodes of it, since each names its own version, policy and
table version. The last stretch, along rows, is in `trace_rows`.

    backward(store, log, "flights", "call_…/0").as_json()
    forward(store, log, "flights", "clean_flights@3")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from instar.core import lineage
from instar.core.errors import NotFound
from instar.core.ids import parse_prediction_id
from instar.core.lineage import Edge
from instar.core.store import Store
from instar.data import tables
from instar.operate import outcomes
from instar.operate.pairing import answers_of
from instar.operate.trace_records import ROW, Hop, describe, on_record
from instar.operate.trace_rows import Found, entity_row, table_hop
from instar.release import registry
from instar.release.approval import approvals
from instar.release.registry import ModelVersion
from instar.serve.traffic import routing
from instar.train.bundle import load_manifest


class CallRecord(Protocol):
    """What a trace reads of the prediction log; `serve.calls.CallLog` is it."""

    def find(self, prediction_id: str) -> Mapping[str, Any]:
        """One prediction with the call that it was part of, its inputs and all answers.

        Raises:
            NotFound: The log has no such prediction.
        """

    def read(self, endpoint: str, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
        """One row per prediction with event time in [since, until)."""


def backward(store: Store, log: CallRecord, project: str, name: str) -> Hop:
    """Walk back from a prediction, or from any record of the lineage.

    Args:
        name: `call_…/row`, an id such as `mver_…` or `b3:…`, `table@3`, or `model@2`.

    Raises:
        NotFound: Nothing has that name.
        MalformedRequest: It begins like a prediction id and is none.
    """
    if name.startswith("call_"):
        parse_prediction_id(name)
        return _prediction(store, log, project, log.find(name))
    node = resolve(store, project, name)
    with store.database.read() as tx:
        edges = lineage.up(tx, node)
    return _tree(store, project, node, edges, upward=True)


def _prediction(store: Store, log: CallRecord, project: str, found: Mapping[str, Any]) -> Hop:
    name, endpoint = str(found["prediction"]), str(found["endpoint"])
    revision = routing.get(store, endpoint, int(found["policy"]))
    project = revision.policy.project
    facts = {
        key: found.get(key)
        for key in ("score", "decision", "threshold", "inputs", "outputs", "entity", "answers", "error")
    }
    hop = Hop("prediction", name, name, ROW, {"endpoint": endpoint, **facts})
    call = Hop(
        "call",
        str(found["call"]),
        f"by {found['caller']}",
        ROW,
        {
            key: found.get(key)
            for key in ("caller", "at", "recorded_at", "status", "reason", "latency_us", "request_id", "row")
        },
        "asked in",
    ).to(_policy(store, project, revision.id))
    return hop.to(
        *_outcomes(store, name),
        call,
        _version(store, project, endpoint, found),
        _features(store, project, found),
    )


def _outcomes(store: Store, prediction: str) -> list[Hop]:
    return [
        Hop(
            "outcome",
            row["id"],
            f"{row['kind']} {row['label'] if row['value'] is None else format(row['value'], 'g')}",
            ROW,
            {
                key: row[key]
                for key in ("value", "label", "observed_at", "recorded_at", "reporter", "corrects", "corrected_by")
            },
            "became",
        )
        for row in outcomes.find(store, prediction)
    ]


def _policy(store: Store, project: str, revision: str) -> Hop:
    hop = describe(store, project, revision, "routed by")
    with store.database.read() as tx:
        led = [edge for edge in lineage.up(tx, revision, depth=1) if not edge.source.startswith("b3:")]
    return hop.to(*(describe(store, project, edge.source, edge.relation) for edge in led))


def _version(store: Store, project: str, endpoint: str, found: Mapping[str, Any]) -> Hop | None:
    if found.get("version") is None:
        return None
    version = registry.find(store, project, f"{endpoint}@{found['version']}")
    # Not by the score, which a tensor model need not have.
    relation = "answered by" if int(found["status"]) < 400 else "was routed to, and failed in"
    hop = describe(store, project, version.id, relation)
    return hop.to(*_allowed(store, project, version), _fit(store, project, version.bundle))


def _allowed(store: Store, project: str, version: ModelVersion) -> list[Hop]:
    found = [
        describe(store, project, one.id, "was approved by").to(
            describe(store, project, one.evaluation, "is the evidence of") if one.evaluation else None
        )
        for one in approvals(store, project, version=version.id)
    ]
    if not found and version.evaluation is not None:
        found.append(describe(store, project, version.evaluation, "is the evidence on"))
    return found


def _fit(store: Store, project: str, bundle: str) -> Hop:
    manifest = load_manifest(store.blobs, bundle)
    hop = describe(store, project, bundle, "is the bundle")
    if not manifest.run:  # it was made elsewhere
        return hop
    run = describe(store, project, manifest.run, "made")
    if not manifest.fitted_on:  # a model that was logged: its run says what it read
        return hop.to(run)
    try:
        fitted = tables.get(store, project, manifest.fitted_on)
    except NotFound:
        return hop.to(run.to(describe(store, project, manifest.fitted_on, "was fitted on")))
    return hop.to(run.to(table_hop(store, project, fitted, Found(), "was fitted on")))


def _features(store: Store, project: str, found: Mapping[str, Any]) -> Hop:
    named, entity = found.get("table_version"), found.get("entity")
    if named is None:
        return Hop("features", "", "as sent by the caller", ROW, {}, "decided on")
    try:
        version = tables.get(store, project, str(named))
    except NotFound:
        return describe(store, project, str(named), "decided on")
    rows = entity_row(store, version, str(entity)) if entity is not None else Found(why="the call names no entity")
    return table_hop(store, project, version, rows, "decided on")


def forward(store: Store, log: CallRecord, project: str, name: str) -> Hop:
    """Walk forward from a record to all that it touched: tables, runs, bundles, versions, policies and predictions.

    Predictions are counted, with the first and the last and a few examples, below the model version that answered them
    and below the table version that they were decided on. This reads the endpoints' logs from the first policy that named
    one of the versions.

    Raises:
        NotFound: Nothing has that name.
    """
    node = resolve(store, project, name)
    with store.database.read() as tx:
        edges = lineage.down(tx, node)
    reached = {node, *(edge.target for edge in edges)}
    touched = _predictions(store, log, project, reached)
    return _tree(store, project, node, edges, upward=False, extra=touched)


def _predictions(store: Store, log: CallRecord, project: str, reached: set[str]) -> dict[str, list[Hop]]:
    found: dict[str, list[Hop]] = {}
    versions = {one.id: one for one in registry.versions(store, project) if one.id in reached}
    served = {name for name in reached if name.startswith("tver_")}
    for endpoint in routing.endpoints(store, project):
        name = endpoint.policy.endpoint
        mine = {one.number: one for one in versions.values() if one.model == name}
        revisions = [one for one in routing.history(store, name) if set(one.policy.versions) & set(mine)]
        since = min((one.event_at for one in revisions), default=None)
        if since is None and not served:
            continue
        frame = log.read(name, None if served else since, None)
        for number, version in mine.items():
            returned = frame.filter(pl.col("version") == number, pl.col("decision").is_not_null())
            shadowed = answers_of(frame, number).height - returned.height
            found.setdefault(version.id, []).extend(
                hop for hop in (_counted(name, returned, "answered", shadowed),) if hop is not None
            )
        for table in served:
            hop = _counted(name, frame.filter(pl.col("table_version") == table), "was decided on by")
            if hop is not None:
                found.setdefault(table, []).append(hop)
    return found


def _counted(endpoint: str, rows: pl.DataFrame, relation: str, shadowed: int = 0) -> Hop | None:
    if not rows.height and shadowed <= 0:
        return None
    facts: dict[str, Any] = {"predictions": rows.height, "shadow_predictions": max(shadowed, 0)}
    if rows.height:
        ordered = rows.sort("at")
        facts |= {"first_at": ordered["at"][0], "last_at": ordered["at"][-1]}
        names = [*ordered["prediction"].head(2).to_list(), *ordered["prediction"].tail(1).to_list()]
        facts["examples"] = list(dict.fromkeys(names))
    return Hop("predictions", "", f"{rows.height} predictions of {endpoint}", ROW, facts, relation)


def _tree(
    store: Store,
    project: str,
    node: str,
    edges: list[Edge],
    *,
    upward: bool,
    extra: Mapping[str, list[Hop]] | None = None,
) -> Hop:
    """The edges as a tree: each record's own branch stands where it is nearest, and elsewhere it is only named."""
    ahead: dict[str, list[Edge]] = {}
    for edge in edges:
        ahead.setdefault(edge.target if upward else edge.source, []).append(edge)
    # Nearest first, so that a record reached by two ways unfolds at the shorter one.
    parent, level = {node: ""}, [node]
    children: dict[str, list[tuple[str, str]]] = {}
    repeated: dict[str, list[tuple[str, str]]] = {}
    while level:
        following = []
        for name in level:
            for edge in ahead.get(name, []):
                other = edge.source if upward else edge.target
                if other in parent:
                    repeated.setdefault(name, []).append((other, edge.relation))
                    continue
                parent[other] = name
                children.setdefault(name, []).append((other, edge.relation))
                following.append(other)
        level = following
    built: dict[str, Hop] = {}
    relation = {other: how for pairs in children.values() for other, how in pairs}
    for name in reversed(list(parent)):  # the deepest first
        hop = describe(store, project, name, relation.get(name, ""))
        again = [
            replace(describe(store, project, other, how), facts={"see": "named above or below"})
            for other, how in repeated.get(name, [])
        ]
        inner = [built[other] for other, _ in children.get(name, [])]
        built[name] = hop.to(*inner, *again, *(extra or {}).get(name, []))
    return built[node]


def resolve(store: Store, project: str, name: str) -> str:
    """The id of the record that a person names by `table@3`, `model@2` or an id.

    Raises:
        NotFound: Nothing has that name.
    """
    if name.startswith("b3:") or name.split("_")[0] in _PREFIXES:
        if on_record(store, project, name):
            return name
        raise NotFound("nothing is on the record under this id", subject=name)
    for read in (tables.get, registry.find):
        try:
            return read(store, project, name).id
        except NotFound:
            continue
    raise NotFound(
        "nothing on the record has that name",
        subject=repr(name),
        asked="a prediction as call_…/0, an id, a table as flights@3, or a model version as delay@2",
    )


_PREFIXES = frozenset({"tver", "exec", "run", "mver", "eval", "appr", "waiv", "prev", "roll"})
