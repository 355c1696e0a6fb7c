"""What answers: the traffic policy of an endpoint as a value, at every moment between two decisions about it.

Pure and light: gateways read it from a snapshot. `resolving.py` chooses the route of a call by it, `policy_check.py` says what
makes no sense, `routing.py` keeps the revisions on the record, and `policy_document.py` is how people write one down.

    Policy("delay", "flights", 7, champion=3, arms=(Arm("b", 5, 10.0),),
           rules=(Rule("beta", (Condition(header="x-beta", equals="yes"),), version=5),))
"""

from __future__ import annotations

import msgspec

CHAMPION, CANARY, PINNED = "champion", "canary", "pinned"
LAPSED = "champion, lease lapsed"  # the route of a call that would have been the canary's
KEY, CALLER, HEADER = "key", "caller", "header:"  # by what a caller's calls stay together

LEASE_SECONDS = 3600.0  # the controllers look every few seconds; a look that fits a model takes long


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate which answers a share of the calls, in per cent. It answers all others too, but that answer is not returned.

    Attributes:
        lease: Seconds for which gateways give it its share without hearing that controllers still watch it; then the
            champion answers alone.
    """

    version: int
    share: float
    lease: float = LEASE_SECONDS


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that answers on the record only.

    Attributes:
        role: What for, e.g. `candidate` or `frozen`.
        share: Of the calls, in per cent.
    """

    version: int
    role: str = "shadow"
    share: float = 100.0


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side of a randomised comparison: its version alone answers `weight` per cent of the calls.

    What the arms leave of 100 is the champion's. Which keys an arm has depends on weights alone (`resolving.py`).
    """

    name: str
    version: int
    weight: float


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that a rule asks of a call: exactly one of `header`, `tag` and `caller` is named.

    Attributes:
        header: Name of a header, in lower case.
        tag: Name of a tag, from `Instar-Tag: name=value`.
        caller: Who calls, exactly.
        equals, prefix: What the value of header or tag must be, or begin with; with neither it must be there.
    """

    header: str | None = None
    tag: str | None = None
    caller: str | None = None
    equals: str | None = msgspec.field(default=None, name="is")
    prefix: str | None = None

    def __str__(self) -> str:
        if self.caller is not None:
            return f"caller is {self.caller}"
        named = f"header {self.header}" if self.header is not None else f"tag {self.tag}"
        if self.equals is not None:
            return f"{named} is {self.equals}"
        return f"{named} is there" if self.prefix is None else f"{named} begins with {self.prefix}"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Calls that meet all conditions go to one version, or to the version of an arm. The first rule that fits holds."""

    name: str
    when: tuple[Condition, ...]
    version: int | None = None
    arm: str | None = None

    @property
    def reason(self) -> str:
        """The route reason of its calls: `pinned` where it is about who calls and nothing else."""
        return PINNED if all(one.caller is not None for one in self.when) else f"rule {self.name}"


class Retiring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The champion before, which stays loaded until a wall time (microseconds since 1970), so that the way back is short."""

    version: int
    until: int


class Policy(msgspec.Struct, frozen=True):
    """One immutable, numbered state of an endpoint's traffic.

    Attributes:
        number: Revision, from 1 without gaps.
        champion: Version that answers; None before there is one, and the endpoint answers 503.
        canary: Candidate with a share of the answers; never beside arms.
        shadows: Versions that answer on the record only.
        arms: Sides of a randomised comparison.
        sticky: By what calls stay on their side: `key` (header `Instar-Key`), `caller`, or `header:NAME`. A call without
            it is drawn by its id.
        rules: Asked in order, before arms and canary.
        retiring: The champion before, while it is kept loaded.
    """

    endpoint: str
    project: str
    number: int
    champion: int | None
    canary: Canary | None = None
    shadows: tuple[Shadow, ...] = ()
    arms: tuple[Arm, ...] = ()
    sticky: str = KEY
    rules: tuple[Rule, ...] = ()
    retiring: Retiring | None = None

    @property
    def answering(self) -> tuple[int, ...]:
        """Versions whose answers callers may get, each once, the champion first."""
        named = [self.champion, self.canary.version if self.canary else None, *(one.version for one in self.arms)]
        named += [one.version for one in self.rules]
        return tuple(dict.fromkeys(version for version in named if version is not None))

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions that the policy routes to, each once."""
        return tuple(dict.fromkeys([*self.answering, *(shadow.version for shadow in self.shadows)]))

    @property
    def left(self) -> float:
        """What arms leave to the champion, in per cent."""
        return max(0.0, 100.0 - sum(arm.weight for arm in self.arms))

    def shares(self) -> list[tuple[int, str, float]]:
        """Who answers calls that no rule takes: version, place (`champion`, `canary`, `arm NAME`) and share in per cent."""
        found: list[tuple[int, str, float]] = []
        canary = self.canary.share if self.canary else 0.0
        if self.champion is not None:
            found.append((self.champion, CHAMPION, self.left if self.arms else 100.0 - canary))
        if self.canary is not None:
            found.append((self.canary.version, CANARY, canary))
        return found + [(arm.version, arm_reason(arm.name), arm.weight) for arm in self.arms]

    def without_arms(self) -> Policy:
        """The policy after its comparison: the champion has all calls again that no rule takes."""
        rules = tuple(rule for rule in self.rules if rule.arm is None)
        return msgspec.structs.replace(self, arms=(), rules=rules)

    def at(self, wall: int) -> Policy:
        """The policy as it holds at a wall time: without a champion before whose time is over."""
        over = self.retiring is not None and self.retiring.until <= wall
        return msgspec.structs.replace(self, retiring=None) if over else self


class Route(msgspec.Struct, frozen=True):
    """Which version's answer a call gets, and why: `champion`, `canary`, `arm NAME`, `rule NAME` or `pinned`."""

    version: int
    reason: str


def arm_reason(name: str) -> str:
    """The route reason of an arm's calls."""
    return f"arm {name}"
