"""One turn of the life cycle: the only file that walks all stages, for `instar run`, for retraining and for the demo.

    turn(loop)      # run what changed, judge what came of it, send candidates on their way
    tick(loop)      # look at what is live: rollouts, monitors, alerts, and what the contract's policy does about them

`tick` is what the controllers call again and again; it is quick when nothing is due, and everything that it does follows
the clock's event time. Imports are a line; here the circle closes, by calling down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from instar.core.errors import InstarError
from instar.data import profile, tables
from instar.evaluate import evaluation
from instar.operate import actions, alerts, measurement, monitor, pairing, rollout, rollout_walk, route_keeping
from instar.operate.actions import PLANNED, RETRAIN, RUNNING, Action
from instar.operate.monitor import Reference
from instar.operate.proposal import (
    Loop,
    Proposal,
    champion_of,
    fitted_until,
    propose,
)
from instar.operate.rollout import Rollout
from instar.operate.rollout_rule import Decision, Move
from instar.plan import runner, schedule
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Problem
from instar.plan.runner import Event, Manner, Walk
from instar.release import registry
from instar.release.registry import ModelVersion
from instar.train.bundle import Manifest, load_manifest

log = logging.getLogger("instar.cycle")

MOST_TIMES_TAKEN_UP = 3  # a retraining whose process dies each time is given up

__all__ = ["Loop", "Moved", "Proposal", "Tick", "Turn", "champion_of", "fit", "propose", "tick", "turn"]


@dataclass(frozen=True)
class Turn:
    """What one turn made: the walk of the pipeline, and what became of its models."""

    walk: Walk
    proposals: tuple[Proposal, ...] = ()


@dataclass(frozen=True)
class Moved:
    """A rollout that was looked at and did not stay where it was."""

    rollout: Rollout
    decision: Decision


@dataclass(frozen=True)
class Tick:
    """What one look at everything live found and did."""

    moved: tuple[Moved, ...] = ()
    opened: tuple[alerts.Alert, ...] = ()
    closed: tuple[alerts.Alert, ...] = ()
    retrained: tuple[tuple[Action, Proposal | None], ...] = field(default=())


def turn(
    loop: Loop,
    *,
    targets: Iterable[str] | None = None,
    parameters: Mapping[str, object] | None = None,
    start: Iterable[str] = (),
    until: Iterable[str] = (),
    force: Iterable[str] = (),
    cause: str = "user",
    on_event: Callable[[Event], None] | None = None,
    manner: Manner | None = None,
) -> Turn:
    """Walk the pipeline; then judge, register and route what its model steps made, baselines first.

    The arguments are those of `runner.execute`.
    """
    walk = runner.execute(
        loop.store, loop.project, loop.pipeline, loop.kinds, targets, parameters,
        start=start, until=until, force=force, cause=cause, on_event=on_event, manner=_here(loop, manner),
    )  # fmt: skip
    made = [one for one in walk.steps if one.kind in ("baseline", "model") and one.ref]
    rollout_walk.resume(loop.store, loop.project.name, publish=loop.publish)
    proposals = []
    for one in sorted(made, key=lambda one: one.kind != "baseline"):
        problem = loop.pipeline.step(one.step).problem
        if problem is not None and one.ref is not None:
            proposals.append(propose(loop, problem, one.ref, cause=cause, contract=walk.contract))
    if proposals:
        loop.publish(loop.store)  # a process that was killed may have decided and told nobody
    return Turn(walk, tuple(proposals))


def fit(loop: Loop, step: str, *, like: Manifest | None = None, cause: str = "user") -> tuple[str, str]:
    """Fit one model step on what has landed; returns the bundle's digest and the contract revision.

    Args:
        like: Fit this recipe with its parameters again, instead of searching anew.
        cause: Who or which action wants it.
    """
    pipeline = _pinned(loop.pipeline, step, like) if like is not None else loop.pipeline
    walk = runner.execute(loop.store, loop.project, pipeline, loop.kinds, [step], cause=cause, manner=_here(loop, None))
    bundle = walk.step(step).ref
    assert bundle is not None
    return bundle, walk.contract


def _here(loop: Loop, manner: Manner | None) -> Manner:
    """The manner of a walk of this loop: steps that need processes of their own find its store."""
    manner = manner or Manner()
    return manner if manner.place else replace(manner, place=loop.place)


def tick(loop: Loop) -> Tick:
    """Look once at every endpoint of the project, in event time; safe to repeat, and after a crash."""
    rollout_walk.resume(loop.store, loop.project.name, publish=loop.publish)
    found = Tick()
    for name, problem in loop.project.contract.problem.items():
        champion = champion_of(loop, name)
        if champion is not None:
            found = _joined(found, _look(loop, name, problem, champion))
    # Endpoints without a problem have no rollout to look at, and are looked after all the same.
    kept = route_keeping.look(loop.store, loop.project.name, but=loop.project.contract.problem)
    return _joined(found, Tick((), kept.opened, kept.closed, ()))


def _look(loop: Loop, endpoint: str, problem: Problem, champion: ModelVersion) -> Tick:
    moved = _advance(loop, endpoint, problem)
    kept = route_keeping.look(loop.store, loop.project.name, only=[endpoint])
    seen = monitor.Watched((), alerts.Changed())
    if _look_due(loop, endpoint, problem):
        reference = reference_of(loop, champion)
        seen = monitor.watch(loop.store, loop.project.name, endpoint, problem, loop.log, reference)
    retrained = _answer(loop, endpoint, problem, champion)
    changed = (*kept.opened, *seen.changed.opened), (*kept.closed, *seen.changed.closed)
    return Tick(moved, *changed, retrained)


def _advance(loop: Loop, endpoint: str, problem: Problem) -> tuple[Moved, ...]:
    running = rollout.running(loop.store, endpoint)
    if running is None:
        return ()
    evidence = pairing.gather(loop.store, loop.log, running, problem.cost)
    moved, decision = rollout_walk.look(loop.store, running, evidence, publish=loop.publish)
    return () if decision.move is Move.WAIT else (Moved(moved, decision),)


def _look_due(loop: Loop, endpoint: str, problem: Problem) -> bool:
    last = measurement.measurements(loop.store, loop.project.name, endpoint=endpoint, monitor="errors", limit=1)
    return not last or loop.store.clock.event() - last[0].window_end >= problem.monitor.every


def reference_of(loop: Loop, champion: ModelVersion) -> Reference:
    """What the champion's live traffic and cost are compared with."""
    store = loop.store
    manifest = load_manifest(store.blobs, champion.bundle)
    judged = evaluation.get_evaluation(store, champion.evaluation) if champion.evaluation else None
    cost = judged.metrics.get("candidate", {}).get("cost", {}).get("value") if judged else None
    return Reference(
        version=champion.number,
        inputs=tuple(column.name for column in manifest.inputs if column.privacy != "personal"),
        profile=profile.from_bytes(store.blobs.get(manifest.profile)) if manifest.profile else None,
        profile_id=manifest.profile,
        cost=cost,
        cost_id=judged.id if judged else None,
        fitted_until=fitted_until(manifest),
    )


def _answer(
    loop: Loop, endpoint: str, problem: Problem, champion: ModelVersion
) -> tuple[tuple[Action, Proposal | None], ...]:
    """Do what the contract's policy asks for about open alerts and due schedules."""
    store, name = loop.store, loop.project.name
    # Controllers take turns under a lease, so what is half done is what a process left that was killed.
    left = [one for state in (RUNNING, PLANNED) for one in _retrainings(loop, endpoint, state)]
    done = [_retrain(loop, endpoint, one, champion) for one in left]
    last = _last_training(loop, endpoint)
    asked = actions.wanted(
        endpoint,
        problem.retrain.when,
        alerts.alerts(store, name, endpoint=endpoint, state=alerts.OPEN),
        last,
        store.clock.event(),
        problem.retrain.min_interval,
        schedule.due,
    )
    for wanted in asked:
        if wanted.kind == RETRAIN and not _grown(loop, problem, last):
            continue
        action, is_new = actions.request(store, name, endpoint, wanted, loop.project.revision)
        if not is_new and action.state != PLANNED:
            continue
        if wanted.kind == RETRAIN:
            done.append(_retrain(loop, endpoint, action, champion))
        else:
            log.warning("%s", next((a.text for a in [alerts.get(store, wanted.cause)]), wanted.cause))
            actions.finish(store, action.id, {"notified": "log"})
    return tuple(done)


def _retrain(loop: Loop, endpoint: str, action: Action, champion: ModelVersion) -> tuple[Action, Proposal | None]:
    """Fit the recipe again on what has landed, and propose it. A failure is the action's result, not the loop's end."""
    if action.state == RUNNING:
        action, times = actions.take_up(loop.store, action.id)
        if times > MOST_TIMES_TAKEN_UP:
            return actions.finish(
                loop.store, action.id, {"error": f"its process died {times} times"}, failed=True
            ), None
    else:
        actions.start(loop.store, action.id)
    try:
        manifest = load_manifest(loop.store.blobs, champion.bundle)
        # While the rule still answers, what is fitted again is the model that is to replace it.
        step = manifest.step if manifest.kind == "model" else _model_step(loop.pipeline, endpoint).name
        bundle, contract = fit(loop, step, like=manifest if manifest.kind == "model" else None, cause=action.id)
        proposal = propose(loop, endpoint, bundle, cause=action.id, contract=contract)
    except InstarError as error:
        log.exception("retraining of %s failed", endpoint)
        return actions.finish(loop.store, action.id, {"error": str(error)}, failed=True), None
    result = {"outcome": proposal.outcome, "version": proposal.candidate.name, "reason": proposal.reason}
    return actions.finish(loop.store, action.id, result), proposal


def _retrainings(loop: Loop, endpoint: str, state: str) -> list[Action]:
    return actions.actions(loop.store, loop.project.name, endpoint=endpoint, kind=RETRAIN, state=state)


def _last_training(loop: Loop, endpoint: str) -> datetime | None:
    done = actions.actions(loop.store, loop.project.name, endpoint=endpoint, kind=RETRAIN)
    if done:
        return done[0].requested_at
    # What somebody fitted by hand, beside the loop, is no training of the loop's.
    versions = registry.versions(loop.store, loop.project.name, endpoint)
    made = [one for one in versions if one.origin in ("recipe", "refit")]
    return made[-1].event_at if made else None


def _grown(loop: Loop, problem: Problem, last: datetime | None) -> bool:
    """Have the tables that a retraining needs grown since the last one?"""
    if last is None:
        return True
    latest = [tables.latest(loop.store, loop.project.name, table) for table in problem.retrain.fresh]
    return all(version is not None and version.event_at > last for version in latest)


def _model_step(pipeline: Pipeline, problem: str) -> Step:
    return next(step for step in pipeline.steps.values() if step.kind == "model" and step.problem == problem)


def _pinned(pipeline: Pipeline, name: str, like: Manifest) -> Pipeline:
    """The pipeline with one model step held to the parameters of an earlier fit, so that nothing is searched."""
    step = pipeline.step(name)
    held = {key: like.parameters.get(key, value) for key, value in step.parameters.items()}
    fixed = replace(step, parameters=held, options={**step.options, "search": None})
    return replace(pipeline, steps={**pipeline.steps, name: fixed})


def _joined(one: Tick, other: Tick) -> Tick:
    return Tick(
        one.moved + other.moved, one.opened + other.opened, one.closed + other.closed, one.retrained + other.retrained
    )
