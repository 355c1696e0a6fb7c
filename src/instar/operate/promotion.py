"""Promotion and rollback by decision of a person or a pipeline, outside the walk of a rollout.

The first version of an endpoint has nobody to be compared with: it is promoted. Later, `instar promote` and `instar
rollback` overrule a running rollout, which ends as superseded and says by whom. Nothing is ever deleted: returning to
the champion before is a new policy revision.
"""

from __future__ import annotations

from collections.abc import Sequence

from instar.core import journal
from instar.core.database import Transaction
from instar.core.errors import Conflict, NotFound
from instar.core.store import Store
from instar.operate import rollout
from instar.operate import rollout_walk as walk
from instar.operate.rollout_rule import SUPERSEDED
from instar.release import approval, registry
from instar.release.registry import ModelVersion
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Policy, Shadow
from instar.serve.traffic.routing import Revision


def promote(
    store: Store,
    project: str,
    endpoint: str,
    version: ModelVersion,
    reason: str,
    *,
    standing: Sequence[Shadow] = (),
    evidence: Sequence[str] = (),
    publish: walk.Publish = snapshot.publish,
) -> Revision:
    """Make a version the champion at once; a rollout that runs ends as superseded, and so do arms. Rules stay.

    Args:
        reason: Why, for the record.
        standing: Shadows which the endpoint keeps for versions that have no other place.
        evidence: Ids of the records that led to it, e.g. `actn_…`.

    Raises:
        Blocked: No approval allows the version to be routed to.
    """
    allowed = approval.require_approved(store, version)
    walk.resume(store, project, publish=publish)
    before = routing.current(store, endpoint)
    end_rollout(store, project, endpoint, f"{store.actor.name} promoted {endpoint}@{version.number}: {reason}")
    kept = before.policy.without_arms() if before else Policy(endpoint, project, 0, None)
    beside = [one for one in kept.shadows if one.role != walk.CANDIDATE]
    bundles = {**(before.bundles if before else {}), version.number: version.bundle}
    for one in standing:
        if one.version not in bundles:
            bundles[one.version] = registry.find(store, project, f"{endpoint}@{one.version}").bundle
    revision = routing.set_policy(
        store,
        project,
        endpoint,
        champion=version.number,
        shadows=walk.without_double_places(beside, standing, [version.number]),
        sticky=kept.sticky,
        rules=kept.rules,
        bundles=bundles,
        cause=reason,
        evidence=[version.id, allowed.id, *evidence],
        expected=before.policy.number if before else 0,
    )
    publish(store)
    return revision


def rollback(
    store: Store, project: str, endpoint: str, reason: str, *, publish: walk.Publish = snapshot.publish
) -> Revision:
    """Take back the last change of what answers.

    While a rollout runs, the incumbent answers alone again. Otherwise the champion before the present one returns. Arms end;
    rules stay. An earlier policy as a whole returns by `traffic.back`.

    Raises:
        NotFound: The project has no such endpoint.
        Conflict: There never was another champion.
    """
    walk.resume(store, project, publish=publish)
    current = routing.current(store, endpoint)
    if current is None or current.policy.project != project:
        raise NotFound(
            "nothing answers there yet",
            subject=f"endpoint {endpoint}",
            next_step="See what answers, and where: instar live",
        )
    ended = end_rollout(store, project, endpoint, f"{store.actor.name} rolled it back: {reason}")
    champion = current.policy.champion
    if champion is None:
        raise Conflict("it has no champion", subject=f"endpoint {endpoint}")
    bundles, kept = dict(current.bundles), current.policy.without_arms()
    if not ended:
        earlier = _champion_before(store, endpoint, champion)
        champion = earlier.policy.champion
        bundles |= earlier.bundles
    revision = routing.set_policy(
        store,
        project,
        endpoint,
        champion=champion,
        shadows=[one for one in kept.shadows if one.role != walk.CANDIDATE and one.version != champion],
        sticky=kept.sticky,
        rules=kept.rules,
        bundles=bundles,
        cause=f"rollback: {reason}",
        evidence=[current.id],
        expected=current.policy.number,
    )
    publish(store)
    return revision


def _champion_before(store: Store, endpoint: str, champion: int) -> Revision:
    for revision in reversed(routing.history(store, endpoint)):
        if revision.policy.champion not in (None, champion):
            return revision
    raise Conflict("there never was another champion", subject=f"endpoint {endpoint}", found=f"{endpoint}@{champion}")


def end_rollout(store: Store, project: str, endpoint: str, reason: str) -> bool:
    """End the endpoint's running rollout because somebody decided otherwise; False when none runs.

    The caller sets the policy that takes its place.
    """

    def work(tx: Transaction) -> bool:
        ended = rollout.supersede(tx, endpoint, store.clock.event(), reason, None)
        if ended is None:
            return False
        body = {"endpoint": endpoint, "candidate": ended.candidate, "stage": SUPERSEDED, "reason": reason}
        journal.append(tx, store.clock, store.actor, project, "rollout superseded", ended.id, body)
        return True

    return store.database.write(work, durable=True)
