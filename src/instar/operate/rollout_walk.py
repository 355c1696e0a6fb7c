"""The walk of a rollout: one candidate goes from shadow over growing shares to champion, and the endpoint follows.

`rollout_rule` decides, `pairing` gathers what it decides upon, `rollout` is the record. Each change is journalled in the
transaction that makes it. The record comes first and the policy is derived from it: a rollout whose policy is not yet set
(`applied` is false) is finished by `settle`, so that a crash between the two loses nothing and decides nothing twice.

One rollout at a time per endpoint: a newer candidate supersedes it, and each names the other. A candidate that was put
out for cause is barred until `cool_down` has passed.

    rollout = start(store, "flights", "delay", version, terms, cause="actn_…")
    rollout, decision = look(store, rollout, evidence)     # once each time that evidence may have changed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import msgspec
import sqlalchemy as sa

from instar.core import journal, lineage
from instar.core.database import Transaction
from instar.core.errors import Blocked, Conflict, NotFound
from instar.core.ids import new_id
from instar.core.store import Store
from instar.operate import rollout as record
from instar.operate.rollout import Rollout, body_of, from_row, keep_look, row_of, running_in, supersede
from instar.operate.rollout_rule import CANARY, CHAMPION, SHADOW, Decision, Evidence, Move, Terms, advance
from instar.plan.project import Problem
from instar.release import approval, bars, registry
from instar.release.registry import ModelVersion
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Canary, Shadow
from instar.serve.traffic.policy_check import SHORTEST_LEASE_SECONDS

CANDIDATE = "candidate"  # role of a rollout's version while it answers in shadow

Publish = Callable[[Store], object]


def terms_of(problem: Problem, *, refit: bool) -> Terms:
    """The terms of a rollout under a problem's contract.

    Args:
        refit: The candidate is a refit of the champion's own recipe.
    """
    asked = problem.rollout
    return Terms(
        shadow=asked.shadow,
        steps=tuple(asked.steps),
        bake=asked.bake,
        patience=asked.patience,
        cool_down=asked.cool_down,
        cost=asked.rollback.cost,
        errors=asked.rollback.errors,
        no_worse=problem.gates.no_worse,
        min_rows=problem.split.min_rows,
        min_outcomes=asked.min_outcomes,
        group=asked.group,
        lease=max(asked.lease, timedelta(seconds=SHORTEST_LEASE_SECONDS)),
        refit=refit,
        affected_by_answer=problem.outcome.affected_by_answer,
    )


def start(
    store: Store,
    project: str,
    endpoint: str,
    version: ModelVersion,
    terms: Terms,
    cause: str,
    *,
    contract: str | None = None,
    standing: Sequence[Shadow] = (),
    publish: Publish = snapshot.publish,
) -> Rollout:
    """Put a candidate beside the champion, in shadow; the same candidate again changes nothing.

    Args:
        version: The registered candidate.
        cause: Id of the action, or who asked.
        contract: Revision that set the terms.
        standing: Shadows which the endpoint keeps for versions that have no other place, e.g. a frozen model.
        publish: Tells the gateways.

    Raises:
        Blocked: The endpoint has no champion yet, or the candidate is barred or not approved.
        Conflict: The candidate is the champion.
    """
    resume(store, project, publish=publish)
    revision = routing.current(store, endpoint)
    if revision is None or revision.policy.champion is None:
        raise Blocked(
            "it has no champion to compare a candidate with",
            subject=f"endpoint {endpoint}",
            next_step=f"Make the first version its champion: instar promote {endpoint}@{version.number}.",
        )
    incumbent = revision.policy.champion
    if incumbent == version.number:
        raise Conflict("that version is the champion already", subject=f"{endpoint}@{version.number}")
    if revision.policy.arms:
        raise Blocked(
            "its calls are shared between arms, and a rollout would take them away",
            subject=f"endpoint {endpoint}",
            found=", ".join(f"{arm.name}: {endpoint}@{arm.version}" for arm in revision.policy.arms),
            next_step=f"End the comparison first: instar route weights {endpoint} {incumbent}=100",
        )
    approval.require_approved(store, version)
    held = bars.barred(store, version)
    if held is not None:
        raise Blocked(
            f"it is barred until {held.until:%Y-%m-%d %H:%M}Z: {held.reason}",
            subject=version.name,
            next_step="Wait for the end of the cool-down, or bring another candidate.",
        )
    name = new_id("roll")

    def work(tx: Transaction) -> Rollout:
        now = store.clock.event()
        running_now = running_in(tx, endpoint)
        if running_now is not None and running_now.bundle == version.bundle:
            return running_now
        supersede(tx, endpoint, now, f"superseded by {name}, candidate {endpoint}@{version.number}", name)
        new = Rollout(
            id=name,
            project=project,
            endpoint=endpoint,
            candidate=version.number,
            bundle=version.bundle,
            incumbent=incumbent,
            stage=SHADOW,
            step=-1,
            since=now,
            terms=terms,
            standing=tuple(standing),
            contract=contract,
            cause=cause,
            started_at=now,
            ended_at=None,
            reason=f"in shadow of {endpoint}@{incumbent}",
            superseded_by=None,
            barred_until=None,
            applied=False,
            recorded_at=store.clock.wall(),
        )
        tx.execute(record.rollout.insert().values(**row_of(new)))
        lineage.link(tx, project, version.id, "is rolled out by", name)
        body = body_of(new) | {
            "terms": msgspec.to_builtins(terms),
            "supersedes": running_now.id if running_now else None,
        }
        journal.append(tx, store.clock, store.actor, project, "rollout started", name, body)
        return new

    return settle(store, store.database.write(work, durable=True), publish=publish)


def look(
    store: Store, current: Rollout, evidence: Evidence, *, publish: Publish = snapshot.publish
) -> tuple[Rollout, Decision]:
    """Look once at a running rollout: decide, keep the look, and make the endpoint follow.

    Returns:
        The rollout as it stands now, and the decision.

    Raises:
        Conflict: It has ended, or moved during the look.
    """
    current = settle(store, current, publish=publish)
    if current.ended_at is not None:
        raise Conflict("the rollout has ended", subject=f"rollout {current.id}", found=current.stage)
    decision = advance(current.place, current.terms, evidence, store.clock.event())
    moved = store.database.write(
        lambda tx: _decide(tx, store, current, decision), durable=decision.move is not Move.WAIT
    )
    return settle(store, moved, publish=publish), decision


def _decide(tx: Transaction, store: Store, current: Rollout, decision: Decision) -> Rollout:
    found = tx.execute(sa.select(record.rollout).where(record.rollout.c.id == current.id).with_for_update()).one()
    if (found.stage, found.step) != (current.stage, current.step):
        raise Conflict(
            "it has moved since it was looked at", subject=f"rollout {current.id}", found=f"{found.stage} {found.step}",
            asked=f"{current.stage} {current.step}", next_step="Read it again.",
        )  # fmt: skip
    now = store.clock.event()
    keep_look(tx, current.id, decision, now)
    if decision.move is Move.WAIT:
        return current
    running_on = decision.move is Move.ADVANCE
    values = {
        "stage": decision.stage,
        "step": decision.step,
        "since": now,
        "reason": decision.reason,
        "ended_at": None if running_on else now,
        "barred_until": now + current.terms.cool_down if decision.for_cause else None,
        "applied": False,
    }
    tx.execute(record.rollout.update().where(record.rollout.c.id == current.id).values(**values))
    moved = from_row({**found._mapping, **values})
    body = body_of(moved) | {"move": decision.move.value, "rule": decision.rule, "reason": decision.reason}
    body["evidence"] = decision.facts
    journal.append(tx, store.clock, store.actor, current.project, f"rollout {_done(decision.move)}", current.id, body)
    return moved


def _done(move: Move) -> str:
    return {
        Move.ADVANCE: "advanced",
        Move.PROMOTE: "promoted",
        Move.ROLL_BACK: "rolled back",
        Move.REJECT: "rejected",
    }[move]


def settle(store: Store, current: Rollout, *, publish: Publish = snapshot.publish) -> Rollout:
    """Make the endpoint's policy follow a rollout, if it does not yet; safe to repeat."""
    current = record.get(store, current.id)  # somebody may have settled or superseded it since it was read
    if current.applied:
        return current
    revision = routing.current(store, current.endpoint)
    if revision is None:
        raise NotFound("it has no policy", subject=f"endpoint {current.endpoint}")
    policy = revision.policy
    champion = current.candidate if current.stage == CHAMPION else current.incumbent
    lease = current.terms.lease.total_seconds()
    canary = Canary(current.candidate, current.share, lease) if current.stage == CANARY else None
    beside = [one for one in policy.shadows if one.role != CANDIDATE]
    if current.stage == SHADOW:
        beside = [one for one in beside if one.version != current.candidate]
        beside.append(Shadow(current.candidate, CANDIDATE))
    routing.set_policy(
        store,
        current.project,
        current.endpoint,
        champion=champion,
        canary=canary,
        shadows=without_double_places(beside, current.standing, [champion, *([canary.version] if canary else [])]),
        sticky=policy.sticky,
        rules=policy.rules,
        bundles=_bundles(store, current, revision.bundles),
        cause=f"rollout {current.id}: {current.reason}",
        evidence=[current.id],
    )
    publish(store)
    if current.barred_until is not None:
        version = registry.find(store, current.project, f"{current.endpoint}@{current.candidate}")
        bars.bar(store, version, current.barred_until, current.reason, current.id)
    done = record.rollout.update().where(record.rollout.c.id == current.id).values(applied=True)
    store.database.write(lambda tx: tx.execute(done))
    return from_row({**row_of(current), "applied": True})


def without_double_places(
    beside: Sequence[Shadow], standing: Sequence[Shadow], answering: Iterable[int]
) -> list[Shadow]:
    """The shadows of a policy: a version has one place in it, and answering comes before being watched."""
    taken = set(answering)
    found: list[Shadow] = []
    for one in (*beside, *standing):
        if one.version not in taken:
            found.append(one)
            taken.add(one.version)
    return found


def _bundles(store: Store, current: Rollout, known: dict[int, str]) -> dict[int, str]:
    named = {current.candidate: current.bundle, **known}
    for one in (*current.standing, Shadow(current.incumbent)):
        if one.version not in named:
            named[one.version] = registry.find(store, current.project, f"{current.endpoint}@{one.version}").bundle
    return named


def resume(store: Store, project: str, *, publish: Publish = snapshot.publish) -> list[Rollout]:
    """Finish what a crash left half done: rollouts whose policy does not follow yet. Controllers call it at start."""
    query = sa.select(record.rollout).where(record.rollout.c.project == project, record.rollout.c.applied.is_(False))
    with store.database.read() as tx:
        left = [from_row(row._mapping) for row in tx.execute(query.order_by(record.rollout.c.id))]
    return [settle(store, one, publish=publish) for one in left]
