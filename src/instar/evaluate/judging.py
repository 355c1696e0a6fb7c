"""Judging a bundle: from a cut table to an evaluation on the record, after each fit and on demand.

    found = evaluate(store, "flights", "delay", problem, bundle=digest, table_version=version.id, cut=cut,
                     event_time="time_hour", champion=Opponent(champion_digest, "delay@3"), inspect=scan.admit)
    found.verdict.state        # "passed", "failed" or "undecided"

A recipe that passed is fitted again on all landed rows. That refit cannot be judged on rows which it has seen, so
`evaluate_refit` takes over what was found on its recipe and checks for itself only what needs no judged rows; its cost is
judged live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from instar.core import ids
from instar.core.store import Store
from instar.evaluate import report
from instar.evaluate.evaluation import Evaluation, of_key, record
from instar.evaluate.evidence import facts_of, gather, score_both
from instar.evaluate.gates import GateCheck, Relation, check_bundle, conclude, judge
from instar.evaluate.latency import Probe, measure_in_process
from instar.evaluate.scoring import load_scorer

if TYPE_CHECKING:
    from instar.evaluate.split import Cut
    from instar.plan.project import Problem
    from instar.train.bundle import Column
    from instar.train.native import Inspect


@dataclass(frozen=True)
class Opponent:
    """The version to beat: its bundle, and its name for people, e.g. `"delay@3"`."""

    bundle: str
    name: str


def evaluate(
    store: Store,
    project: str,
    problem_name: str,
    problem: Problem,
    *,
    bundle: str,
    table_version: str,
    cut: Cut,
    event_time: str,
    champion: Opponent | None = None,
    relation: Relation | None = None,
    endpoint_inputs: Sequence[Column] | None = None,
    inspect: Inspect | None = None,
    probe: Probe | None = measure_in_process,
    contract: str = "",
    cause: str = "user",
) -> Evaluation:
    """Judge a bundle on the judge rows of a cut and put the evidence on the record.

    The same bundle against the same champion on the same rows under the same contract is evaluated once: asking again
    returns what is on the record.

    Args:
        bundle: Digest of the candidate.
        table_version: Id of the version that was cut.
        event_time: Column of the time that it was cut by.
        champion: What answers today; None for the first version.
        relation: Overrides whether it is a new recipe or a refit, which the recipes' digests say otherwise.
        endpoint_inputs: Signature of the endpoint; by default the champion's.
        inspect: Looks at native forms before they are loaded.
        probe: Measures latency; None leaves that gate undecided.
        contract: Contract revision whose gates are applied.
        cause: Who or what asked: `"user"`, or the id of an action.
    """
    asked = [bundle, champion.bundle if champion else None, relation, table_version, cut.digests, contract]
    key = ids.digest_of(["evaluate", problem_name, *asked])
    known = of_key(store, project, key)
    if known is not None:
        return known
    candidate = load_scorer(store.blobs, bundle, inspect)
    incumbent = load_scorer(store.blobs, champion.bundle, inspect) if champion else None
    judged = score_both(cut.judge, problem.target, event_time, candidate, incumbent)
    evidence = gather(
        problem,
        judged,
        candidate.manifest,
        incumbent.manifest if incumbent else None,
        champion_name=champion.name if champion else "",
        relation=relation,
        endpoint_inputs=endpoint_inputs,
        latency=probe(candidate, judged.rows) if probe is not None and judged.rows.height else None,
        decide_rows=cut.decide.height,
    )
    verdict = judge(problem.gates, evidence)
    incumbent_manifest = incumbent.manifest if incumbent else None
    content = report.content(problem, candidate.manifest, incumbent_manifest, judged, evidence, verdict)
    content |= {"problem": problem_name, "bundle": bundle, "split": cut.describe(), "judged_as": None}
    return _keep(
        store,
        content,
        key,
        Evaluation(
            id=ids.new_id("eval"),
            project=project,
            problem=problem_name,
            bundle=bundle,
            opponent=champion.bundle if champion else None,
            relation=evidence.relation,
            table_version=table_version,
            contract=contract,
            verdict=verdict,
            metrics=content["metrics"],
            split=content["split"],
            report_json="",
            report_html="",
            cause=cause,
            created_at=store.clock.wall(),
            event_at=store.clock.event(),
        ),
    )


def evaluate_refit(
    store: Store,
    judged: Evaluation,
    problem: Problem,
    *,
    bundle: str,
    table_version: str,
    rows: pl.DataFrame | None = None,
    endpoint_inputs: Sequence[Column] | None = None,
    inspect: Inspect | None = None,
    probe: Probe | None = measure_in_process,
    cause: str = "user",
) -> Evaluation:
    """Put a refit on all landed rows on the record, on the strength of what was found on its recipe.

    Args:
        judged: Evaluation of the same recipe, fitted without the judge rows.
        problem: The problem whose gates are applied.
        bundle: Digest of the refit.
        table_version: Version of the gold table that it was fitted on.
        rows: Rows of the gold table to measure latency with; without them that check of `judged` stands.
        endpoint_inputs: Signature of the endpoint; by default the inputs of the bundle that `judged` speaks of.
    """
    key = ids.digest_of(["refit", judged.id, bundle, table_version])
    known = of_key(store, judged.project, key)
    if known is not None:
        return known
    scorer = load_scorer(store.blobs, bundle, inspect)
    asked = endpoint_inputs
    if asked is None:
        asked = load_scorer(store.blobs, judged.bundle, inspect).manifest.inputs
    latency = probe(scorer, rows) if probe is not None and rows is not None and rows.height else None
    own = check_bundle(problem.gates, facts_of(scorer.manifest, asked, latency))
    fresh = {check.name: check for check in own if latency is not None or check.name != "latency"}
    checks = (fresh.get(check.name) or _taken_over(check, judged.id) for check in judged.verdict.checks)
    verdict = conclude(tuple(checks))
    content: dict[str, Any] = msgspec.json.decode(store.blobs.get(judged.report_json))
    content |= {"bundle": bundle, "judged_as": judged.id, "candidate": report.described(scorer.manifest)}
    content |= report.verdict_content(verdict)
    return _keep(
        store,
        content,
        key,
        replace(
            judged,
            id=ids.new_id("eval"),
            bundle=bundle,
            table_version=table_version,
            verdict=verdict,
            cause=cause,
            created_at=store.clock.wall(),
            event_at=store.clock.event(),
        ),
        judged.id,
    )


def _taken_over(check: GateCheck, judged: str) -> GateCheck:
    return replace(check, why=f"{check.why}; found on its recipe in {judged}, the refit itself is judged live")


def _keep(
    store: Store, content: dict[str, Any], key: str, evaluation: Evaluation, judged_as: str | None = None
) -> Evaluation:
    # Blobs first, record second: what no record names does not exist.
    head = {
        "format": report.FORMAT,
        "evaluation": evaluation.id,
        "project": evaluation.project,
        "table_version": evaluation.table_version,
        "contract": evaluation.contract,
        "cause": evaluation.cause,
        "event_at": evaluation.event_at.isoformat(),
    }
    whole = {**content, **head}
    kept = replace(
        evaluation,
        report_json=store.blobs.put(ids.canonical_json(whole)),
        report_html=store.blobs.put(report.to_html(whole).encode()),
    )
    return record(store, kept, key, judged_as=judged_as)
