"""Standing shadows: versions that answer every call on the record only, for as long as somebody wants to compare.

A rollout has shadows of its own, the candidate; these stay whatever is rolled out, e.g. a frozen model or a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from instar.core.errors import Blocked
from instar.core.store import Store
from instar.operate import rollout_walk as walk
from instar.release import registry
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Shadow
from instar.serve.traffic.routing import Revision


def keep(
    store: Store,
    project: str,
    endpoint: str,
    standing: Sequence[Shadow],
    reason: str,
    *,
    publish: Callable[[Store], object] = snapshot.publish,
) -> Revision:
    """Make `standing` the endpoint's standing shadows, in place of those before; champion and rollout stay.

    A version that answers in another place already, as champion, canary or candidate, has no second one.

    Raises:
        Blocked: The endpoint has no policy yet.
        NotFound: A version is not registered.
    """
    walk.resume(store, project, publish=publish)
    before = routing.current(store, endpoint)
    if before is None:
        raise Blocked("nothing answers there yet", subject=f"endpoint {endpoint}", next_step="Promote a version first.")
    policy = before.policy
    candidates = [one for one in policy.shadows if one.role == walk.CANDIDATE]
    bundles = dict(before.bundles)
    for one in standing:
        if one.version not in bundles:
            bundles[one.version] = registry.find(store, project, f"{endpoint}@{one.version}").bundle
    revision = routing.set_policy(
        store,
        project,
        endpoint,
        champion=policy.champion,
        canary=policy.canary,
        shadows=walk.without_double_places(candidates, standing, [version for version, _, _ in policy.shares()]),
        arms=policy.arms,
        sticky=policy.sticky,
        rules=policy.rules,
        bundles=bundles,
        cause=reason,
        expected=policy.number,
    )
    publish(store)
    return revision
