"""From a fit to a candidate on its way: evaluated, registered, approved and routed, or stopped with the reason.

    fit ─▶ evaluation ─▶ version ─▶ gates ─▶ approval ─▶ refit on all landed rows ─▶ first champion, or a rollout
                                      └▶ rejected, undecided   └▶ blocked: it waits for another person

Every stop is an outcome on the record, not an error: a loop that runs by itself must go on. A proposal that was broken
off, or that waited for a person's approval, goes on where it stopped when the same fit is proposed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from instar.core.errors import Blocked, GateFailed
from instar.core.store import Store
from instar.data import tables, versions
from instar.evaluate.evaluation import Evaluation, get_evaluation
from instar.evaluate.judging import Opponent, evaluate, evaluate_refit
from instar.evaluate.split import Cut, cut
from instar.operate import promotion, rollout, rollout_walk
from instar.operate.pairing import PredictionLog
from instar.plan import leases
from instar.plan.kinds import StepKind
from instar.plan.pipeline import Pipeline
from instar.plan.place import Place
from instar.plan.project import Problem, Project
from instar.release import approval, registry, scan
from instar.release.registry import ModelVersion, Origin
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Shadow
from instar.train import refitting
from instar.train.bundle import Manifest, load_manifest

PROMOTED, ROLLING_OUT = "promoted", "rolling out"
REJECTED, UNDECIDED, BLOCKED, KNOWN = "rejected", "undecided", "blocked", "known"


@dataclass(frozen=True)
class Loop:
    """What one project's life cycle turns with.

    Attributes:
        kinds: Behaviour of each kind of step.
        log: The prediction log.
        standing: Shadows which each endpoint keeps for versions that have no other place.
        publish: Tells the gateways of a new policy.
        place: How a step that needs a process of its own opens the store there.
    """

    store: Store
    project: Project
    pipeline: Pipeline
    kinds: Mapping[str, StepKind]
    log: PredictionLog
    standing: tuple[Shadow, ...] = field(default=())
    publish: Callable[[Store], object] = snapshot.publish
    place: Place | None = None


@dataclass(frozen=True)
class Proposal:
    """What became of a candidate.

    Attributes:
        outcome: `"promoted"`, `"rolling out"`, `"rejected"`, `"undecided"`, `"blocked"`, or `"known"` when it had been
            proposed before and nothing is left to do about it.
        judged: The version that the gates judged.
        candidate: The version that goes live: the refit, or the judged one itself.
        reason: Why, in a sentence.
    """

    problem: str
    outcome: str
    judged: ModelVersion
    candidate: ModelVersion
    evaluation: Evaluation | None
    reason: str


def propose(
    loop: Loop,
    problem_name: str,
    bundle: str,
    *,
    cause: str = "user",
    contract: str = "",
    origin: Origin | None = None,
    table_version: str | None = None,
) -> Proposal:
    """Judge a bundle against what answers today, and send it on its way if it is good enough.

    Args:
        bundle: Digest of a fit that was not made on the judge rows.
        cause: `"user"`, or the id of the action that asked.
        contract: Contract revision in force.
        origin: Where the bundle comes from; by default what its step is.
        table_version: Version of the gold table to judge on; by default the one that it was fitted on.
    """
    # One at a time: two processes that propose the same fit would judge and approve it twice.
    with leases.hold(loop.store, f"proposals/{loop.project.name}"):
        return _propose(loop, problem_name, bundle, cause, contract, origin, table_version)


def _propose(
    loop: Loop,
    problem_name: str,
    bundle: str,
    cause: str,
    contract: str,
    origin: Origin | None,
    table_version: str | None,
) -> Proposal:
    store, name = loop.store, loop.project.name
    problem = loop.project.contract.problem[problem_name]
    manifest = load_manifest(store.blobs, bundle)
    known = registry.of_bundle(store, name, problem_name, bundle)
    if known is not None and known.evaluation is not None and _settled(loop, known):
        return Proposal(problem_name, KNOWN, known, known, None, f"it is {known.name}, {known.state}")
    source = versions.get(store, name, table_version or manifest.fitted_on)
    rows, event_time = known_rows(loop, problem, manifest, source)
    parts = cut(rows, problem.split, event_time)
    if known is not None and known.evaluation is not None:
        version, judged = known, get_evaluation(store, known.evaluation)
    else:
        champion = champion_of(loop, problem_name)
        judged = evaluate(
            store,
            name,
            problem_name,
            problem,
            bundle=bundle,
            table_version=source.id,
            cut=parts,
            event_time=event_time,
            champion=Opponent(champion.bundle, champion.name) if champion else None,
            inspect=scan.admit,
            contract=contract,
            cause=cause,
        )
        version = registry.register(
            store,
            name,
            problem_name,
            bundle=bundle,
            origin=origin or ("baseline" if manifest.kind == "baseline" else "recipe"),
            evaluation=judged.id,
            cause=cause,
        )
    stopped = _stopped(loop, problem, version, judged, cause)
    if stopped is not None:
        outcome, reason = stopped
        return Proposal(problem_name, outcome, version, version, judged, reason)
    candidate, evidence = version, judged
    if problem.split.refit and manifest.kind == "model" and version.origin != "ad hoc":
        candidate, evidence = _refit(loop, problem, version, judged, rows, source.id, parts, cause)
        stopped = _stopped(loop, problem, candidate, evidence, cause)
        if stopped is not None:
            return Proposal(problem_name, stopped[0], version, candidate, evidence, stopped[1])
    if _went_out(loop, candidate):
        return Proposal(problem_name, KNOWN, version, candidate, None, f"it is {candidate.name}, {candidate.state}")
    outcome, reason = _route(loop, problem_name, problem, candidate, evidence, cause, contract)
    return Proposal(problem_name, outcome, version, candidate, evidence, reason)


def _settled(loop: Loop, version: ModelVersion) -> bool:
    """Is nothing left to do about a version that was judged? A process may have been killed at any point in between."""
    if version.state == "rejected" or _went_out(loop, version):
        return True
    if version.state == "registered":  # undecided, or it waits for an approval, or nobody was asked for one yet
        undecided = version.evaluation and get_evaluation(loop.store, version.evaluation).verdict.state == "undecided"
        return bool(undecided or approval.approvals(loop.store, version.project, version=version.id))
    again = [one for one in registry.versions(loop.store, version.project, version.model) if one.refit_of == version.id]
    return any(one.evaluation is not None and _settled(loop, one) for one in again)


def _went_out(loop: Loop, version: ModelVersion) -> bool:
    """Did it ever answer callers, or was it the candidate of a rollout? What became of it then is not decided again here."""
    policies = [one.policy for one in routing.history(loop.store, version.model)]
    routed = any(version.number in one.answering for one in policies)
    walks = rollout.rollouts(loop.store, version.project, version.model)
    return routed or any(one.candidate == version.number for one in walks)


def champion_of(loop: Loop, endpoint: str) -> ModelVersion | None:
    """The version that answers at an endpoint; None before there is one.

    One that was logged, and allowed before there was a problem of its name, passed no gates: it is nobody's opponent, and the
    first version that passes them takes its place.
    """
    revision = routing.current(loop.store, endpoint)
    if revision is None or revision.policy.champion is None:
        return None
    version = registry.find(loop.store, loop.project.name, f"{endpoint}@{revision.policy.champion}")
    return None if version.origin == "logged" else version


def known_rows(
    loop: Loop, problem: Problem, manifest: Manifest, source: versions.TableVersion
) -> tuple[pl.DataFrame, str]:
    """Rows of a gold version whose truth is known, and the column of their event time."""
    gold = next(item.name for item in loop.pipeline.step(manifest.step).inputs if item.name == source.table)
    event_time: str = loop.pipeline.step(gold).options["event_time"]
    rows = tables.scan(loop.store, source).filter(pl.col(problem.target).is_not_null()).collect()
    return rows, event_time


def _stopped(
    loop: Loop, problem: Problem, version: ModelVersion, evidence: Evaluation, cause: str
) -> tuple[str, str] | None:
    """Ask for the approval; None when it was given, else the outcome and its reason."""
    try:
        approval.decide(loop.store, version, evidence, policy=problem.retrain.approval, cause=cause)
    except GateFailed as error:
        if evidence.verdict.state == "failed":
            registry.set_state(loop.store, version, "rejected", str(error), cause)
            return REJECTED, evidence.verdict.reason
        return UNDECIDED, evidence.verdict.reason
    except Blocked as error:
        return BLOCKED, error.what
    return None


def _refit(
    loop: Loop,
    problem: Problem,
    judged_version: ModelVersion,
    judged: Evaluation,
    rows: pl.DataFrame,
    table_version: str,
    parts: Cut,
    cause: str,
) -> tuple[ModelVersion, Evaluation]:
    store, name = loop.store, loop.project.name
    bundle = refitting.refit(
        store, loop.project, loop.pipeline, judged_version.bundle, rows, table_version, cause=cause
    )
    known = registry.of_bundle(store, name, judged_version.model, bundle)
    if known is not None and known.evaluation is not None:  # judged before the process was killed
        return known, get_evaluation(store, known.evaluation)
    evidence = evaluate_refit(
        store,
        judged,
        problem,
        bundle=bundle,
        table_version=table_version,
        rows=parts.judge,
        inspect=scan.admit,
        cause=cause,
    )
    version = registry.register(
        store,
        name,
        judged_version.model,
        bundle=bundle,
        origin="refit",
        evaluation=evidence.id,
        refit_of=judged_version.id,
        cause=cause,
    )
    return version, evidence


def _route(
    loop: Loop,
    endpoint: str,
    problem: Problem,
    version: ModelVersion,
    evidence: Evaluation,
    cause: str,
    contract: str,
) -> tuple[str, str]:
    store, name = loop.store, loop.project.name
    if champion_of(loop, endpoint) is None:
        reason = "the first version that passed its gates"
        promotion.promote(
            store, name, endpoint, version, reason, standing=loop.standing, evidence=[evidence.id], publish=loop.publish
        )
        return PROMOTED, reason
    try:
        started = rollout_walk.start(
            store,
            name,
            endpoint,
            version,
            rollout_walk.terms_of(problem, refit=evidence.relation == "refit"),
            cause,
            contract=contract or None,
            standing=loop.standing,
            publish=loop.publish,
        )
    except Blocked as error:
        return BLOCKED, error.what
    return ROLLING_OUT, started.reason


def fitted_until(manifest: Manifest) -> datetime | None:
    """Event time of the last row that a bundle was fitted on."""
    return datetime.fromisoformat(manifest.fitted_until) if manifest.fitted_until else None
