"""What answers: the traffic policy of an endpoint as a value, and the choice of a route for one call.

Pure and light: gateways decide each call here, from a snapshot; `routing.py` keeps the revisions on the record.
"""

from __future__ import annotations

import re

import msgspec
from blake3 import blake3

from instar.core.errors import BadInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")

CHAMPION, CANARY, PINNED = "champion", "canary", "pinned"


class Canary(msgspec.Struct, frozen=True):
    """A candidate which answers a share of the calls, in per cent. It answers all others too, but that answer is not returned."""

    version: int
    share: float


class Shadow(msgspec.Struct, frozen=True):
    """A version that answers every call on the record only; `role` says what for, e.g. `candidate` or `frozen`."""

    version: int
    role: str = "shadow"


class Policy(msgspec.Struct, frozen=True):
    """One immutable, numbered state of an endpoint's traffic.

    Attributes:
        number: Revision, from 1 without gaps.
        champion: Version that answers; None before there is one, and the endpoint answers 503.
        canary: Candidate with a share of the answers.
        shadows: Versions that answer on the record only.
    """

    endpoint: str
    project: str
    number: int
    champion: int | None
    canary: Canary | None = None
    shadows: tuple[Shadow, ...] = ()

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions that the policy names, each once."""
        named = [self.champion, self.canary.version if self.canary else None, *(s.version for s in self.shadows)]
        return tuple(dict.fromkeys(v for v in named if v is not None))


class Route(msgspec.Struct, frozen=True):
    """Which version's answer a call gets, and why: `champion`, `canary` or `pinned`."""

    version: int
    reason: str


def choose(policy: Policy, key: str) -> Route | None:
    """Route of a call: sticky, the same key always falls on the same side of a given share.

    A key that is on the canary's side at 2 per cent stays there at 5: a growing share only ever adds keys.

    Args:
        key: Routing key of the call; its id where the caller gives none.

    Returns:
        None when the policy has no champion.
    """
    if policy.champion is None:
        return None
    canary = policy.canary
    if canary is not None and canary.share > 0 and position(policy.endpoint, key) * 100.0 < canary.share:
        return Route(canary.version, CANARY)
    return Route(policy.champion, CHAMPION)


def position(endpoint: str, key: str) -> float:
    """Place of a key on [0, 1), even over keys and independent between endpoints."""
    return int.from_bytes(blake3(f"{endpoint}\0{key}".encode()).digest(8), "big") / 2.0**64


def check(policy: Policy) -> None:
    """Raises BadInput unless a policy makes sense by itself."""
    subject = f"policy of endpoint {policy.endpoint}"
    if not _NAME.match(policy.endpoint):
        raise BadInput(
            "that is no name for an endpoint",
            subject=subject,
            found=repr(policy.endpoint),
            asked="letters, digits, _, - and ., 100 at most",
        )
    if policy.canary is not None:
        if not 0 <= policy.canary.share <= 100:
            raise BadInput(
                "a canary's share is in per cent", subject=subject, found=policy.canary.share, asked="0 to 100"
            )
        if policy.champion is None or policy.canary.version == policy.champion:
            raise BadInput(
                "a canary needs a champion beside it, which it is not itself",
                subject=subject,
                found=f"version {policy.canary.version}",
            )
    answering = {policy.champion, policy.canary.version if policy.canary else None}
    seen: set[int] = set()
    for shadow in policy.shadows:
        if shadow.version in answering or shadow.version in seen:
            raise BadInput(
                "a version has one place in a policy",
                subject=subject,
                found=f"version {shadow.version} as shadow and elsewhere",
                next_step="Leave the shadow out: the answers of champion and canary are on the record anyway.",
            )
        seen.add(shadow.version)
        if shadow.role in (CHAMPION, CANARY, PINNED, ""):
            raise BadInput(
                "a shadow's role may not be that of an answering version", subject=subject, found=shadow.role
            )
