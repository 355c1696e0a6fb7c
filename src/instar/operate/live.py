"""What answers, now or at any time: read from the policy revisions, the only truth about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.operate.rollout import Rollout, rollouts
from instar.release import registry
from instar.serve.publishing import waiting
from instar.serve.publishing.waiting import Waiting
from instar.serve.root import condition
from instar.serve.traffic import routing
from instar.serve.traffic.routing import Revision

BUILDING = "building"


@dataclass(frozen=True)
class Answering:
    """One version's part in what answers.

    Attributes:
        role: `champion`, `canary`, `arm NAME`, `rule NAME`, `pinned`, or a shadow's own.
        share: Of the calls that no rule takes, in per cent; 0 for one that answers a rule's calls or on the record only.
        heard: Share of the calls that a shadow hears, in per cent.
        state: Now: `building` (its environment is being built, and it answers when that is ready); in a server that runs `warm`,
            `cold` (the next call loads it) or `failing`; empty for another time.
        problem: Why it fails.
    """

    version: str
    id: str
    bundle: str
    role: str
    share: float
    heard: float | None = None
    state: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Live:
    """What answered at an endpoint at one moment of event time.

    Attributes:
        policy: Number of the policy revision; `revision` is its id.
        since: When it took effect, by whom (`actor`) and why (`cause`).
        kept: The champion before, which stays loaded until `kept_until` (wall clock), so that the way back is short.
        rollout: Id of the rollout that ran, and `stage` where it stands.
    """

    endpoint: str
    at: datetime
    policy: int
    revision: str
    since: datetime
    actor: str
    cause: str
    answering: tuple[Answering, ...]
    kept: str | None = None
    kept_until: datetime | None = None
    rollout: str | None = None
    stage: str | None = None


def live(store: Store, project: str, at: datetime | None = None, endpoint: str | None = None) -> list[Live]:
    """What answered at `at` (event time; now by default), for each endpoint of the project or the one named.

    Endpoints that did not exist yet are left out.

    Raises:
        NotFound: The project has no endpoint of that name.
    """
    moment = at or store.clock.event()
    names = [one.policy.endpoint for one in routing.endpoints(store, project)]
    if endpoint is not None and endpoint not in names:
        raise NotFound("the project has no such endpoint", subject=endpoint, found=", ".join(names) or "none")
    conditions = condition.read(store.folder) if at is None else None
    found = []
    for name in names if endpoint is None else [endpoint]:
        revision = routing.as_of(store, name, moment)
        if revision is not None:
            found.append(_with_condition(_live(store, project, revision, moment), conditions))
    return found if at is not None else [_with_building(one, waiting.read(store.folder)) for one in found]


def _with_building(found: Live, waits: Sequence[Waiting]) -> Live:
    by_name = {one.name: one for one in waits if one.endpoint == found.endpoint}

    def said(one: Answering) -> Answering:
        wait = by_name.get(one.version)
        if wait is None:
            return one
        return replace(one, state=condition.FAILING if wait.failed else BUILDING, problem=wait.words)

    return replace(found, answering=tuple(map(said, found.answering)))


def _with_condition(found: Live, conditions: dict[str, condition.Condition] | None) -> Live:
    if not conditions:  # no server runs, or it has loaded nothing yet
        return found
    cold = condition.Condition(condition.COLD)
    known = [(one, conditions.get(one.bundle, cold)) for one in found.answering]
    return replace(found, answering=tuple(replace(one, state=now.state, problem=now.problem) for one, now in known))


def _live(store: Store, project: str, revision: Revision, moment: datetime) -> Live:
    policy = revision.policy
    ids = {one.number: one.id for one in registry.versions(store, project, policy.endpoint)}

    def part(version: int, role: str, share: float = 0.0, heard: float | None = None) -> Answering:
        name, bundle = f"{policy.endpoint}@{version}", revision.bundles[version]
        return Answering(name, ids.get(version, ""), bundle, role, share, heard)

    arms = {arm.name: arm.version for arm in policy.arms}
    answering = [part(version, role, share) for version, role, share in policy.shares()]
    answering += [part(rule.version or arms[rule.arm or ""], rule.reason) for rule in policy.rules]
    answering += [part(one.version, one.role, heard=one.share) for one in policy.shadows]
    kept = policy.at(routing.microseconds(store.clock.wall())).retiring
    walked = _rollout_at(store, project, policy.endpoint, moment)
    return Live(
        policy.endpoint,
        moment,
        policy.number,
        revision.id,
        revision.event_at,
        revision.actor,
        revision.cause,
        tuple(answering),
        None if kept is None else f"{policy.endpoint}@{kept.version}",
        None if kept is None else datetime.fromtimestamp(kept.until / 1e6, UTC),
        walked.id if walked else None,
        ("canary" if policy.canary else "shadow") if walked else None,
    )


def _rollout_at(store: Store, project: str, endpoint: str, moment: datetime) -> Rollout | None:
    for one in rollouts(store, project, endpoint):
        if one.started_at <= moment and (one.ended_at is None or moment < one.ended_at):
            return one
    return None
