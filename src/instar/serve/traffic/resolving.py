"""The choice of a route for one call: a pure function of a policy and of what the gateway knows before it reads the body.

Rules are asked in order, and the first that fits holds. Else arms are drawn, else the canary has its share, else the champion
answers. The same policy and the same call always give the same route, on every gateway.

**Who moves when weights change.** Each arm draws a number for each key, exponential with its weight as the rate; the smallest
wins (weighted rendezvous hashing). Odds of any two arms depend on their two weights alone. So a key moves only to an arm whose
weight has grown against the one that it leaves, and where one arm takes from the others in proportion, or there are
two, exactly the share that changed hands moves. A canary that grows only ever adds keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from blake3 import blake3

from instar.serve.traffic.policy import CALLER, CANARY, CHAMPION, HEADER, Condition, Policy, Route, Rule, arm_reason

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case, as ASGI has them
_Asked = dict[str, str]
_Test = Callable[[_Asked, str], bool]

TAG = b"instar-tag"


class Resolver:
    """A policy's choices, worked out once so that a call pays little.

    Attributes:
        routes: All that can be chosen.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._endpoint = policy.endpoint
        self._champion = None if policy.champion is None else Route(policy.champion, CHAMPION)
        self._canary = None if policy.canary is None else Route(policy.canary.version, CANARY)
        self._share = 0.0 if policy.canary is None else policy.canary.share
        self._arms = [(arm, Route(arm.version, arm_reason(arm.name))) for arm in policy.arms if arm.weight > 0]
        self._left = policy.left if policy.arms else 0.0
        by_name = {arm.name: arm.version for arm in policy.arms}
        self._rules = [(_tests(rule), Route(_target(rule, by_name), rule.reason)) for rule in policy.rules]
        named = {one.header for rule in policy.rules for one in rule.when if one.header is not None}
        self._sticky = policy.sticky.removeprefix(HEADER) if policy.sticky.startswith(HEADER) else None
        self._by_caller = policy.sticky == CALLER
        wanted = named | ({self._sticky} if self._sticky is not None else set())
        self._wanted = {name.encode("latin-1"): name for name in wanted}
        self._tags = any(one.tag is not None for rule in policy.rules for one in rule.when)
        found = [
            self._champion,
            self._canary,
            *(route for _, route in self._arms),
            *(route for _, route in self._rules),
        ]
        self.routes = tuple(dict.fromkeys(route for route in found if route is not None))

    @property
    def plain(self) -> bool:
        """The champion answers every call: there is nothing to resolve."""
        return not self._arms and not self._rules and self._canary is None

    def route(self, key: str | None, call: str, caller: str, headers: Headers) -> Route | None:
        """Route of a call; None when nothing takes it and there is no champion.

        Args:
            key: Header `Instar-Key`, if it was sent.
            call: Its id, which stands for the key where there is none.
        """
        asked = self._read(headers) if self._wanted or self._tags else {}
        for tests, route in self._rules:
            if all(test(asked, caller) for test in tests):
                return route
        if self._champion is None:
            return None
        if self._arms:
            return self._drawn(self._key(key, call, caller, asked))
        if self._share > 0 and position(self._endpoint, self._key(key, call, caller, asked)) * 100.0 < self._share:
            return self._canary
        return self._champion

    def _key(self, key: str | None, call: str, caller: str, asked: _Asked) -> str:
        if self._by_caller:
            return caller
        found = key if self._sticky is None else asked.get(self._sticky)
        return call if found is None else found

    def _drawn(self, key: str) -> Route | None:
        best = draw(self._endpoint, "", key) / self._left if self._left > 0 else math.inf
        chosen = self._champion
        for arm, route in self._arms:
            drawn = draw(self._endpoint, arm.name, key) / arm.weight
            if drawn < best:
                best, chosen = drawn, route
        return chosen

    def _read(self, headers: Headers) -> _Asked:
        asked: _Asked = {}
        for name, value in headers:
            known = self._wanted.get(name)
            if known is not None:
                asked.setdefault(
                    known, value.decode("latin-1")
                )  # the first of a repeated header, as it would read in a log
            if name == TAG and self._tags:
                for part in value.decode("latin-1").split(","):
                    tag, _, said = part.strip().partition("=")
                    asked.setdefault("\0" + tag, said)
        return asked


def position(endpoint: str, key: str) -> float:
    """Place of a key on [0, 1), even over keys and independent between endpoints."""
    return int.from_bytes(blake3(f"{endpoint}\0{key}".encode("utf-8", "surrogatepass")).digest(8), "big") / 2.0**64


def draw(endpoint: str, arm: str, key: str) -> float:
    """An arm's number for a key: exponential with rate 1, independent between arms, keys and endpoints."""
    return -math.log1p(-position(f"{endpoint}\0arm\0{arm}", key))


def sampled(endpoint: str, version: int, share: float, call: str) -> bool:
    """Does a shadow hear this call?"""
    return share >= 100.0 or position(f"{endpoint}\0shadow\0{version}", call) * 100.0 < share


def _target(rule: Rule, arms: dict[str, int]) -> int:
    return rule.version if rule.version is not None else arms[rule.arm or ""]


def _tests(rule: Rule) -> tuple[_Test, ...]:
    return tuple(_test(one) for one in rule.when)


def _test(one: Condition) -> _Test:
    if one.caller is not None:
        wanted = one.caller
        return lambda _, caller: caller == wanted
    name = one.header if one.header is not None else f"\0{one.tag}"
    if one.equals is not None:
        value = one.equals
        return lambda asked, _: asked.get(name) == value
    start = one.prefix or ""
    return lambda asked, _: name in asked and asked[name].startswith(start)
