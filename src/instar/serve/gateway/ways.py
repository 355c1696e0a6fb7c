"""Where calls of an endpoint can go: made when a snapshot is taken up, chosen from at each call.

A way is a route with the workers behind it: one that answers, and those that only the record hears. Shadows have workers of
their own, and where such a worker has too much to do they hear no more calls; so an answer never waits for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from instar.serve.gateway.worker_group import WorkerGroup
from instar.serve.log import record
from instar.serve.protocol import wire
from instar.serve.protocol.signature import Signature
from instar.serve.traffic.policy import CANARY, CHAMPION, LAPSED, PINNED, Policy, Route, Shadow
from instar.serve.traffic.resolving import Headers, Resolver, sampled
from instar.serve.traffic.routes import EndpointRoute, VersionRoute, bundle_folder

SHADOW_BACKLOG = 256  # calls in a worker beyond which shadows hear no more, so that answers have the machine


@dataclass(frozen=True)
class Leg:
    """One worker's part in a route: the worker, the plan there, and how many messages come back.

    Attributes:
        shadow: Only the record hears it, and it is left out where its worker has too much to do.
    """

    line: WorkerGroup
    plan: int
    messages: int
    shadow: bool = False

    def full(self) -> bool:
        """Is it to be left out now?"""
        return self.shadow and self.line.backlog >= SHADOW_BACKLOG


@dataclass(frozen=True)
class Way:
    """Where a call goes once its route is chosen.

    Attributes:
        first: The leg which answers.
        others: Legs only for the record.
        laters: Messages for the record alone that will come, over all legs.
        sampled: Shadows that hear some of the calls: version, share in per cent, leg.
    """

    version: int
    reason: str
    first: Leg
    others: tuple[Leg, ...]
    laters: int
    sampled: tuple[tuple[int, float, Leg], ...] = ()
    _drawn: dict[int, Way] = field(default_factory=dict, compare=False, repr=False)

    def drawn(self, endpoint: str, call: str) -> Way:
        """The way of one call, with those of its sampled shadows that hear it."""
        mask = 0
        for place, (version, share, _) in enumerate(self.sampled):
            mask |= sampled(endpoint, version, share, call) << place
        way = self._drawn.get(mask)
        if way is None:
            legs = tuple(leg for place, (_, _, leg) in enumerate(self.sampled) if mask >> place & 1)
            way = replace(self, others=self.others + legs, laters=self.laters + len(legs), sampled=(), _drawn={})
            self._drawn[mask] = way
        return way


@dataclass(frozen=True)
class Endpoint:
    """One endpoint as it answers now.

    Attributes:
        champion: The way of a call that nothing else takes; None before there is a champion.
        resolver: Chooses the route; None where the champion answers every call.
        ways: By route, for those that the resolver can choose.
        call_seconds: Of a call whose caller does not say how long it has, and at most of any; None: the server's limit.
        building: Versions whose environment is being built, or is to be.
        lapsed: The champion's way with the reason that the canary's lease has lapsed, where there is a canary.
    """

    name: str
    policy: Policy
    signature: Signature
    schema: record.Schema
    champion: Way | None
    pinned: dict[int, Way]
    resolver: Resolver | None = None
    ways: dict[Route, Way] = field(default_factory=dict)
    lapsed: Way | None = None
    decides: bool = True  # the champion answers with decisions, not with numbers alone
    bundles: dict[int, str] = field(default_factory=dict)
    call_seconds: float | None = None
    building: frozenset[int] = frozenset()

    def state(self, version: int | None = None) -> str:
        """Is the champion, or that version, loaded (`warm`), or will a call load it (`cold`)?"""
        way = self.champion if version is None else self.pinned.get(version)
        return "warm" if way is not None and self.bundles[way.version] in way.first.line.warm else "cold"

    def way(self, key: str | None, call: str, caller: str, headers: Headers) -> Way | None:
        """Where a call goes; None without a champion.

        Args:
            key: Its routing key, if it has one.
            call: Its id.
        """
        way = self.champion
        if self.resolver is not None:
            route = self.resolver.route(key, call, caller, headers)
            # A version that does not load has no way: its calls are the champion's.
            way = self.ways.get(route, way) if route is not None else None
        return way if way is None or not way.sampled else way.drawn(self.name, call)

    def without_canary(self) -> Endpoint:
        """As it answers when nobody watches the canary."""
        return replace(self, ways={**self.ways, Route(self.policy.canary.version, CANARY): self.lapsed}) if (
            self.policy.canary is not None and self.lapsed is not None
        ) else self  # fmt: skip

    def all_ways(self) -> list[Way]:
        """Every way that a call can go."""
        found = [self.champion, self.lapsed, *self.ways.values(), *self.pinned.values()]
        return [way for way in found if way is not None]


class Board(Protocol):
    """Who knows the workers: `switchboard.Switchboard` is it."""

    store_folder: Path

    def group(self, worker: str) -> WorkerGroup:
        """A worker by name."""

    def next_plan(self) -> int:
        """A number for a plan."""


class Builder:
    """Makes one endpoint with all its ways.

    Args:
        usable: Versions that load.
    """

    def __init__(self, board: Board, name: str, route: EndpointRoute, usable: set[int], schema: record.Schema) -> None:
        self._board, self._name, self._route = board, name, route
        self._usable, self._schema = usable, schema

    def endpoint(self) -> Endpoint:
        """The endpoint."""
        route = self._route
        policy, resolver = route.policy, Resolver(route.policy)
        # A champion that failed to load at the start still gets its way: its calls are refused with the reason.
        champion = None if policy.champion is None else self._way(Route(policy.champion, CHAMPION))
        lapsed = None
        if policy.champion is not None and policy.canary is not None:
            lapsed = self._way(Route(policy.champion, CHAMPION), LAPSED)
        ways = {} if resolver.plain else {one: self._way(one) for one in resolver.routes if one.version in self._usable}
        pinned = {number: self._way(Route(number, PINNED), alone=True) for number in sorted(self._usable)}
        decides = policy.champion is None or route.versions[policy.champion].threshold is not None
        bundles = {number: version.bundle for number, version in route.versions.items()}
        return Endpoint(
            self._name, policy, route.signature, self._schema, champion, pinned,
            None if resolver.plain else resolver, ways, lapsed, decides, bundles,
            route.terms.call_seconds, frozenset(number for number, one in route.versions.items() if one.building),
        )  # fmt: skip

    def _way(self, chosen: Route, reason: str | None = None, *, alone: bool = False) -> Way:
        """The way of calls with a route.

        Args:
            reason: The route reason, where it is another than the route's own.
            alone: No other version hears the call.
        """
        reason = reason or chosen.reason
        role = record.PINNED if alone else chosen.reason
        versions = self._route.versions
        home = versions[chosen.version].worker
        first, later = [self._part(versions[chosen.version], role)], dict[str, list[wire.PlanVersion]]()
        for version, beside in () if alone else self._pair(chosen):
            worker = versions[version].worker
            (first if worker == home else later.setdefault(worker, [])).append(self._part(versions[version], beside))
        paired = set(later)
        some: list[Shadow] = []
        for shadow in () if alone else self._route.policy.shadows:
            if shadow.version in self._usable and shadow.version != chosen.version:
                if shadow.share >= 100:
                    worker = versions[shadow.version].worker
                    later.setdefault(worker, []).append(self._part(versions[shadow.version], shadow.role))
                else:
                    some.append(shadow)
        answers = self._leg(home, first, later.pop(home, []), reason)
        others = tuple(self._leg(one, [], parts, reason, shadow=one not in paired) for one, parts in later.items())
        drawn = tuple((shadow.version, shadow.share, self._sampled(shadow, reason)) for shadow in some)
        return Way(chosen.version, reason, answers, others, len(others) + answers.messages - 1, drawn)

    def _pair(self, chosen: Route) -> list[tuple[int, str]]:
        """Champion and canary answer each other's calls on the record, so that they can be compared in pairs."""
        policy = self._route.policy
        if policy.canary is None or policy.champion is None:
            return []
        if chosen.reason == CANARY:
            found = (policy.champion, CHAMPION)
        elif chosen.reason == CHAMPION:
            found = (policy.canary.version, CANARY)
        else:
            return []
        return [found] if found[0] in self._usable else []

    def _sampled(self, shadow: Shadow, reason: str) -> Leg:
        version = self._route.versions[shadow.version]
        return self._leg(version.worker, [], [self._part(version, shadow.role)], reason, shadow=True)

    def _leg(
        self, worker: str, first: Sequence[wire.PlanVersion], later: Sequence[wire.PlanVersion], reason: str,
        *, shadow: bool = False,
    ) -> Leg:  # fmt: skip
        """A worker's part in a route, and the plan that tells it."""
        route = self._route
        parameters: dict[str, str | int] = {"policy": route.policy.number, "reason": reason}
        plan = wire.Plan(
            self._board.next_plan(), self._name, self._schema.number, route.signature, tuple(first), tuple(later),
            parameters,
        )  # fmt: skip
        group = self._board.group(worker)
        group.plan(plan)
        return Leg(group, plan.number, bool(first) + bool(later), shadow)

    def _part(self, route: VersionRoute, role: str) -> wire.PlanVersion:
        folder = str(bundle_folder(self._board.store_folder, route.bundle))
        return wire.PlanVersion(route.version, role, route.bundle, folder, route.columns, route.threshold)
