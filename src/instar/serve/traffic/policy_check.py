"""What makes no sense in a traffic policy: asked before a revision is made, so that a gateway never meets it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from instar.core.errors import BadInput
from instar.serve.traffic.policy import CALLER, CANARY, CHAMPION, HEADER, KEY, PINNED, Condition, Policy, Rule

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}\Z")  # RFC 9110, token, in lower case

MOST_RULES = 100  # each is asked at each call
MOST_ARMS = 20
MOST_SHADOWS = 20
SHORTEST_LEASE_SECONDS = 1.0  # gateways look at leases once a second


def check_name(endpoint: str) -> None:
    """Raises BadInput unless an endpoint may have that name: it stands in addresses and names a folder."""
    if not _NAME.match(endpoint):
        raise BadInput(
            "that is no name for an endpoint",
            subject=f"endpoint {endpoint[:100]}",
            found=repr(endpoint[:100]),
            asked="letters, digits, _, - and ., 100 at most",
        )


def check(policy: Policy) -> None:
    """Raises BadInput unless a policy makes sense by itself."""
    subject = f"policy of endpoint {policy.endpoint}"
    check_name(policy.endpoint)
    for version in (*policy.versions, *([policy.retiring.version] if policy.retiring else [])):
        if version < 1:
            raise BadInput("versions are counted from 1", subject=subject, found=version)
    _check_canary(policy, subject)
    _check_arms(policy, subject)
    _check_rules(policy, subject)
    _check_shadows(policy, subject)
    if policy.sticky not in (KEY, CALLER) and not (
        policy.sticky.startswith(HEADER) and _HEADER.match(policy.sticky.removeprefix(HEADER))
    ):
        raise BadInput(
            "calls cannot be kept together by that",
            subject=subject,
            found=repr(policy.sticky),
            asked="key, caller, or header:NAME with the name in lower case",
        )


def _check_canary(policy: Policy, subject: str) -> None:
    canary = policy.canary
    if canary is None:
        return
    if not 0 <= canary.share <= 100:
        raise BadInput("a canary's share is in per cent", subject=subject, found=canary.share, asked="0 to 100")
    if not SHORTEST_LEASE_SECONDS <= canary.lease < math.inf:
        raise BadInput(
            "a canary's lease is too short",
            subject=subject,
            found=f"{canary.lease:g} s",
            asked=f"{SHORTEST_LEASE_SECONDS:g} s or more",
        )
    if policy.champion is None or canary.version == policy.champion:
        raise BadInput(
            "a canary needs a champion beside it, which it is not itself",
            subject=subject,
            found=f"version {canary.version}",
        )
    if policy.arms:
        raise BadInput(
            "a canary and arms would share the same calls twice",
            subject=subject,
            found=f"canary {canary.version} beside {len(policy.arms)} arms",
            next_step="Make the canary an arm, or take the arms away.",
        )


def _check_arms(policy: Policy, subject: str) -> None:
    if not policy.arms:
        return
    if policy.champion is None:
        raise BadInput("arms need a champion, who answers where they end", subject=subject)
    if len(policy.arms) > MOST_ARMS:
        raise BadInput("it has too many arms", subject=subject, found=len(policy.arms), asked=f"{MOST_ARMS} at most")
    _once((arm.name for arm in policy.arms), "two arms have one name", subject)
    _once((arm.version for arm in policy.arms), "a version is one arm at most", subject)
    for arm in policy.arms:
        _name(arm.name, "an arm", subject)
        if not 0 <= arm.weight <= 100:
            raise BadInput("an arm's weight is in per cent", subject=subject, found=arm.weight, asked="0 to 100")
    total = math.fsum(arm.weight for arm in policy.arms)
    if total > 100 + 1e-9:
        raise BadInput("the arms' weights are more than all calls", subject=subject, found=f"{total:g} %")


def _check_rules(policy: Policy, subject: str) -> None:
    if len(policy.rules) > MOST_RULES:
        raise BadInput("it has too many rules", subject=subject, found=len(policy.rules), asked=f"{MOST_RULES} at most")
    _once((rule.name for rule in policy.rules), "two rules have one name", subject)
    arms = {arm.name for arm in policy.arms}
    for rule in policy.rules:
        _name(rule.name, "a rule", subject)
        if (rule.version is None) == (rule.arm is None):
            raise BadInput("a rule leads to a version or to an arm", subject=f"{subject}, rule {rule.name}")
        if rule.arm is not None and rule.arm not in arms:
            raise BadInput(
                "a rule leads to an arm that is not there",
                subject=f"{subject}, rule {rule.name}",
                found=rule.arm,
                asked=", ".join(sorted(arms)) or "a version: it has no arms",
            )
        _check_conditions(rule, f"{subject}, rule {rule.name}")


def _check_conditions(rule: Rule, subject: str) -> None:
    if not rule.when:
        raise BadInput(
            "a rule without a condition would take every call",
            subject=subject,
            next_step="Make its version the champion instead.",
        )
    for one in rule.when:
        _check_condition(one, subject)


def _check_condition(one: Condition, subject: str) -> None:
    named = [name for name in ("header", "tag", "caller") if getattr(one, name) is not None]
    if len(named) != 1:
        raise BadInput(
            "a condition is about one thing", subject=subject, found=", ".join(named) or "nothing",
            asked="header, tag or caller",
        )  # fmt: skip
    if one.caller is not None and (one.equals is not None or one.prefix is not None):
        raise BadInput("a caller is named exactly", subject=subject, found=str(one), asked='caller = "NAME" alone')
    if one.equals is not None and one.prefix is not None:
        raise BadInput("a condition asks for a value or for its beginning", subject=subject, found="is and prefix")
    if one.header is not None and not _HEADER.match(one.header):
        raise BadInput("that is no name of a header", subject=subject, found=repr(one.header), asked="lower case")
    if one.header in ("authorization", "cookie"):
        raise BadInput(
            "a secret decides nothing, since the policy would show it",
            subject=subject,
            found=f"header {one.header}",
            asked="the caller's name",
        )
    if one.tag is not None and (not one.tag or any(letter in one.tag for letter in ",= \0")):
        raise BadInput("that is no name of a tag", subject=subject, found=repr(one.tag))


def _check_shadows(policy: Policy, subject: str) -> None:
    if len(policy.shadows) > MOST_SHADOWS:
        raise BadInput(
            "it has too many shadows", subject=subject, found=len(policy.shadows), asked=f"{MOST_SHADOWS} at most"
        )
    seen: set[int] = set()
    answering = {version for version, _, _ in policy.shares()}  # who answers the calls of a rule alone hears the others
    for shadow in policy.shadows:
        if shadow.version in answering or shadow.version in seen:
            raise BadInput(
                "a version has one place in a policy",
                subject=subject,
                found=f"version {shadow.version} as shadow and elsewhere",
                next_step="Leave the shadow out: the answers of versions that answer are on the record anyway.",
            )
        seen.add(shadow.version)
        if shadow.role in (CHAMPION, CANARY, PINNED, ""):
            raise BadInput(
                "a shadow's role may not be that of an answering version", subject=subject, found=shadow.role
            )
        if not 0 < shadow.share <= 100:
            raise BadInput(
                "a shadow's share is in per cent", subject=subject, found=shadow.share, asked="above 0, to 100"
            )


def _name(name: str, of: str, subject: str) -> None:
    if not name or len(name) > 100 or not name.isprintable():
        raise BadInput(f"that is no name of {of}", subject=subject, found=repr(name), asked="1 to 100 letters")


def _once(values: Iterable[Any], what: str, subject: str) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise BadInput(what, subject=subject, found=value)
        seen.add(value)
