"""`champion` and `challenger`: the names of versions that follow from an endpoint's policy, whenever such a name is resolved."""

from __future__ import annotations

from instar.core.store import Store
from instar.release.aliases import FREE, Derive
from instar.serve.traffic import routing


def derive(store: Store, project: str) -> Derive:
    """How the two names of a project's models are resolved, for `registry.find` and `registry.set_alias`."""
    return lambda model, alias: champion_of(store, model, alias, project)


def champion_of(store: Store, endpoint: str, alias: str, project: str | None = None) -> int | None:
    """The version that `champion` or `challenger` names now, from the endpoint's policy.

    Without an endpoint of that name (in the project, if one is named) both are aliases like any other: `FREE`.
    """
    revision = routing.current(store, endpoint)
    if revision is None or (project is not None and revision.policy.project != project):
        return FREE
    if alias == "champion":
        return revision.policy.champion
    canary = revision.policy.canary
    candidates = [one.version for one in revision.policy.shadows if one.role == "candidate"]
    return canary.version if canary is not None else next(iter(candidates), None)
