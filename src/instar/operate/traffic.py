"""Changes of an endpoint's traffic by hand: weights, rules, pinned callers, shadows, or a whole policy at once.

A change is a new policy revision with who and why. A version that callers come to hear needs an approval that holds; one that
only the record hears needs none. One rollout walks at a time: a change of who answers ends it as superseded and says so, and a
change of rules or shadows leaves it in peace.

    change(store, "flights", "delay", with_weights(now, {3: 90, 5: 10}), "compare 5 with 3", expected=7)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from instar.core.errors import BadInput, Blocked, Conflict, NotFound
from instar.core.store import Store
from instar.operate import promotion, rollout
from instar.operate import rollout_walk as walk
from instar.release import approval, bars, registry
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.endpoint_signature import signature_of
from instar.serve.traffic.policy import Arm, Condition, Policy, Rule, Shadow
from instar.serve.traffic.policy_check import check
from instar.serve.traffic.routing import Revision
from instar.train.bundle import load_manifest

MOST_REASON = 2000  # letters

Allow = Callable[[Store, registry.ModelVersion], str | None]


@dataclass(frozen=True)
class Change:
    """What a change is, or would be.

    Attributes:
        before: The revision that held; None for a new endpoint.
        policy: What holds from now on.
        revision: Of `policy`; None when nothing was done.
        ends: Id of the rollout that ended because of it, or would.
    """

    before: Revision | None
    policy: Policy
    revision: Revision | None
    ends: str | None


def change(
    store: Store,
    project: str,
    endpoint: str,
    draft: Policy,
    reason: str,
    *,
    expected: int | None = None,
    dry_run: bool = False,
    publish: walk.Publish = snapshot.publish,
    allow: Allow | None = None,
) -> Change:
    """Make a policy the endpoint's.

    Args:
        draft: Number, project, endpoint and who retires are taken from the record and not from it.
        reason: Why, for the record.
        expected: Number of the revision that was looked at; 0 for a new endpoint.
        dry_run: Find out only whether it could be done, and what it would be.
        allow: Gives the evidence that lets a version answer callers, instead of its approval.

    Raises:
        BadInput: The policy contradicts itself, or there is no reason.
        NotFound: A version is not registered.
        Blocked: A version may not answer callers, or cannot answer this endpoint's calls.
        Conflict: The policy has changed since it was looked at, or another project has the endpoint.
    """
    if not reason.strip() or len(reason) > MOST_REASON:
        raise BadInput("a change of traffic needs a reason", subject=f"endpoint {endpoint}", asked="1 to 2000 letters")
    if not dry_run:
        walk.resume(store, project, publish=publish)
    before = routing.current(store, endpoint)
    if before is not None and before.policy.project != project:
        raise NotFound("the project has no such endpoint", subject=f"endpoint {endpoint}")
    number = before.policy.number if before is not None else 0
    if expected is not None and expected != number:
        raise Conflict(
            "its policy has changed since it was looked at", subject=f"endpoint {endpoint}", found=f"revision {number}",
            asked=f"revision {expected}", next_step="Look at the current policy and decide again.",
        )  # fmt: skip
    retiring = before.policy.retiring if before is not None else None
    draft = msgspec.structs.replace(draft, endpoint=endpoint, project=project, number=number, retiring=retiring)
    check(draft)
    bundles, evidence = _admitted(store, project, draft, before, allow or _approved)
    running = rollout.running(store, endpoint)
    ends = running.id if running is not None and _moves_answers(before, draft) else None
    if dry_run or (before is not None and before.policy == draft):
        return Change(before, draft, None, ends)
    if ends is not None:
        promotion.end_rollout(store, project, endpoint, f"{store.actor.name} set another policy: {reason}")
        draft = msgspec.structs.replace(draft, shadows=_without_candidate(draft, running))
    made = routing.set_policy(
        store, project, endpoint, champion=draft.champion, canary=draft.canary, shadows=draft.shadows, arms=draft.arms,
        sticky=draft.sticky, rules=draft.rules, bundles=bundles, cause=reason, evidence=evidence, expected=number,
    )  # fmt: skip
    publish(store)
    return Change(before, made.policy, made, ends)


def back(
    store: Store,
    project: str,
    endpoint: str,
    reason: str,
    *,
    to: int | None = None,
    dry_run: bool = False,
    publish: walk.Publish = snapshot.publish,
) -> Change:
    """Make an earlier revision's policy the endpoint's again, by a new revision.

    What answered then may answer again though its approval has expired since; one that was withdrawn, or barred, may not.

    Args:
        to: Number of the revision; the one before the present by default.

    Raises:
        NotFound: The endpoint has no such revision.
    """
    now = current(store, project, endpoint)
    number = now.policy.number - 1 if to is None else to
    target = routing.get(store, endpoint, number)
    return change(
        store, project, endpoint, target.policy, f"back to revision {number}: {reason}",
        expected=now.policy.number, dry_run=dry_run, publish=publish, allow=_answered_before,
    )  # fmt: skip


def current(store: Store, project: str, endpoint: str) -> Revision:
    """The endpoint's present revision.

    Raises:
        NotFound: The project has no such endpoint.
    """
    found = routing.current(store, endpoint)
    if found is None or found.policy.project != project:
        raise NotFound(
            "the project has no such endpoint", subject=f"endpoint {endpoint}",
            next_step="See what answers, and where: instar live",
        )  # fmt: skip
    return found


def with_weights(policy: Policy, weights: Mapping[int, float]) -> Policy:
    """The policy with arms of these weights by version, in per cent; the champion has what they leave.

    Arms keep their names; a new one is named after its version. A canary ends.

    Raises:
        BadInput: The champion is named, and the weights are not 100 together.
    """
    total = sum(weights.values())
    if policy.champion in weights and abs(total - 100) > 1e-9:
        raise BadInput(
            "with the champion among them, weights are 100 together",
            subject=f"endpoint {policy.endpoint}",
            found=f"{total:g}",
            next_step="Leave the champion out: it has what the others leave.",
        )
    names = {arm.version: arm.name for arm in policy.arms}
    arms = tuple(
        Arm(names.get(version, f"v{version}"), version, weight)
        for version, weight in weights.items()
        if version != policy.champion and weight > 0
    )
    gone = {arm.name for arm in policy.arms} - {arm.name for arm in arms}
    rules = tuple(rule for rule in policy.rules if rule.arm not in gone)
    shadows = tuple(one for one in policy.shadows if one.version not in {arm.version for arm in arms})
    return msgspec.structs.replace(policy, canary=None, arms=arms, rules=rules, shadows=shadows)


def with_shadow(policy: Policy, shadow: Shadow) -> Policy:
    """The policy with a shadow more, or with another share or role of one it has."""
    others = tuple(one for one in policy.shadows if one.version != shadow.version)
    return msgspec.structs.replace(policy, shadows=(*others, shadow))


def without_shadow(policy: Policy, version: int) -> Policy:
    """The policy with a shadow less.

    Raises:
        NotFound: That version is no shadow.
    """
    others = tuple(one for one in policy.shadows if one.version != version)
    if len(others) == len(policy.shadows):
        raise NotFound("that version is no shadow", subject=f"endpoint {policy.endpoint}", found=f"version {version}")
    return msgspec.structs.replace(policy, shadows=others)


def with_pin(policy: Policy, caller: str, version: int | None) -> Policy:
    """The policy in which a caller is always answered by one version, before any other rule; with None, no more.

    Raises:
        NotFound: The caller was not pinned.
    """
    name = f"pin {caller}"
    others = tuple(rule for rule in policy.rules if rule.name != name)
    if version is None:
        if len(others) == len(policy.rules):
            raise NotFound("that caller is not pinned", subject=f"endpoint {policy.endpoint}", found=caller)
        return msgspec.structs.replace(policy, rules=others)
    return msgspec.structs.replace(policy, rules=(Rule(name, (Condition(caller=caller),), version), *others))


def _admitted(
    store: Store, project: str, draft: Policy, before: Revision | None, allow: Allow
) -> tuple[dict[int, str], list[str]]:
    """Bundles of all versions, and the evidence for those that come to answer more callers than before."""
    bundles = dict(before.bundles) if before is not None else {}
    had = exposure(before.policy) if before is not None else {}
    evidence = []
    for version in draft.versions:
        if version not in bundles:
            bundles[version] = registry.find(store, project, f"{draft.endpoint}@{version}").bundle
    for version, part in exposure(draft).items():
        known = had.get(version, (0.0, frozenset()))
        if part[0] > known[0] or not part[1] <= known[1]:
            found = registry.find(store, project, f"{draft.endpoint}@{version}")
            given = allow(store, found)
            evidence += [found.id, *([given] if given else [])]
    signature_of(draft, {version: load_manifest(store.blobs, bundles[version]) for version in draft.versions})
    return bundles, evidence


def exposure(policy: Policy) -> dict[int, tuple[float, frozenset[tuple[Condition, ...]]]]:
    """Which callers hear a version: its share of calls that no rule takes, and the conditions of rules that lead to it."""
    arms = {arm.name: arm.version for arm in policy.arms}
    shares: dict[int, float] = {}
    for version, _, share in policy.shares():
        shares[version] = shares.get(version, 0.0) + share
    rules: dict[int, set[tuple[Condition, ...]]] = {}
    for rule in policy.rules:
        version = rule.version if rule.version is not None else arms[rule.arm or ""]
        rules.setdefault(version, set()).add(rule.when)
    return {
        version: (shares.get(version, 0.0), frozenset(rules.get(version, ())))
        for version in dict.fromkeys([*shares, *rules])
    }


def _approved(store: Store, version: registry.ModelVersion) -> str | None:
    held = bars.barred(store, version)
    if held is not None:
        raise Blocked(
            f"it is barred until {held.until:%Y-%m-%d %H:%M}Z: {held.reason}", subject=version.name,
            next_step="Wait for the end of the cool-down, or bring another candidate.",
        )  # fmt: skip
    return approval.require_approved(store, version).id


def _answered_before(store: Store, version: registry.ModelVersion) -> str | None:
    given = approval.approvals(store, version.project, version=version.id)
    if bars.barred(store, version) is None and any(one.state == "approved" for one in given):
        return given[-1].id
    return _approved(store, version)


def _moves_answers(before: Revision | None, draft: Policy) -> bool:
    if before is None:
        return False
    policy = before.policy
    return (policy.champion, policy.canary, policy.arms) != (draft.champion, draft.canary, draft.arms)


def _without_candidate(draft: Policy, ended: rollout.Rollout | None) -> tuple[Shadow, ...]:
    """Who was a rollout's candidate in shadow is nobody's candidate when it has ended."""
    return tuple(
        one for one in draft.shadows
        if one.role != walk.CANDIDATE or ended is None or one.version != ended.candidate
    )  # fmt: skip
