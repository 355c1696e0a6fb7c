"""Pages about endpoints: what answers and with which share, how that came about, and what it costs over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.api.routes import Request
from instar.interfaces.console import chart
from instar.interfaces.console.chart import Chart, Line, Mark
from instar.operate import alerts, rollout
from instar.operate.measurement import Measurement, measurements
from instar.serve.root import condition, costs
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Policy
from instar.serve.traffic.routing import Revision

SMOOTHED = 7  # windows: costs of single days jump


def endpoints(store: Store, project: str) -> list[dict[str, Any]]:
    """What answers at each endpoint of a project."""
    return [_described(one) for one in routing.endpoints(store, project)]


def endpoint(request: Request) -> dict[str, Any]:
    """One endpoint: what answers, its policy revisions, rollouts, alerts, and cost by version over time."""
    store, project, name = request.app.store, request.path["project"], request.path["endpoint"]
    history = routing.history(store, name)
    if not history or history[-1].policy.project != project:
        raise NotFound("there is no such endpoint", subject=f"endpoint {name}", next_step="See instar live.")
    now = _described(history[-1])
    states = condition.read(store.folder)
    for one in now["answers"]:
        known = states.get(one["bundle"])
        one |= {"state": known.state if known else "cold", "problem": known.problem if known else None}
    found = measurements(store, project, endpoint=name, monitor="cost")
    return {
        "project": project,
        "endpoint": name,
        "may_change": request.caller.may(Permission.OPERATE, project),
        "now": now,
        "cost": cost(found, name, history),
        "measured": _latest(measurements(store, project, endpoint=name, limit=400)),
        "rollouts": rollout.rollouts(store, project, name),
        "alerts": alerts.alerts(store, project, endpoint=name)[:20],
        "used": [asdict(one) for one in costs.costs(store, endpoint=name)],
        "revisions": [_described(one) for one in reversed(history)],
    }


def _described(revision: Revision) -> dict[str, Any]:
    policy = revision.policy
    return {
        "id": revision.id,
        "endpoint": policy.endpoint,
        "number": policy.number,
        "cause": revision.cause,
        "actor": revision.actor,
        "event_at": revision.event_at,
        **who_answers(policy, revision.bundles),
    }


def who_answers(policy: Policy, bundles: Mapping[int, str]) -> dict[str, Any]:
    """What a policy makes of calls: its rules in their order, and each version with its share and place.

    Args:
        bundles: Digests by version, as far as they are known.
    """
    arms = {arm.name: arm.version for arm in policy.arms}
    # Who answers the calls of a rule alone has no share of the others.
    answers: list[tuple[int, str, float, float | None]]
    answers = [(version, place, share / 100, None) for version, place, share in policy.shares()]
    had = {version for version, *_ in answers}
    ruled = dict.fromkeys(rule.version for rule in policy.rules if rule.version is not None and rule.version not in had)
    answers += [(version, "by rule", 0.0, None) for version in ruled if version is not None]
    answers += [(one.version, one.role, 0.0, one.share / 100) for one in policy.shadows]
    return {
        "answers": [
            {
                "version": version,
                "role": role,
                "share": part,
                "heard": heard,
                "bundle": bundles.get(version),
                "state": "",
                "problem": None,
            }
            for version, role, part, heard in answers
        ],
        "rules": [
            {
                "name": rule.name,
                "when": [str(one) for one in rule.when],
                "version": rule.version if rule.version is not None else arms[rule.arm or ""],
                "reason": rule.reason,
            }
            for rule in policy.rules
        ],
        "sticky": policy.sticky if policy.arms or policy.canary else None,
        "lease": policy.canary.lease if policy.canary else None,
        "retiring": policy.retiring.version if policy.retiring else None,
        "retiring_until": datetime.fromtimestamp(policy.retiring.until / 1e6, UTC) if policy.retiring else None,
    }


def cost(found: Sequence[Measurement], endpoint: str, history: Sequence[Revision]) -> Chart:
    """Cost per prediction over time, a mean over the last windows weighted by rows: of the answers returned and of each version.

    Versions that have no place in today's policy are drawn faintly.
    """
    by_subject: dict[str, list[Measurement]] = {}
    for one in sorted(found, key=lambda one: one.window_end):
        by_subject.setdefault(one.subject, []).append(one)
    policy = history[-1].policy
    roles = {one.version: one.role for one in policy.shadows}
    if policy.canary:
        roles[policy.canary.version] = "canary"
    if policy.champion is not None:
        roles[policy.champion] = "champion"
    lines = []
    for subject, looks in sorted(by_subject.items(), key=lambda item: _order(item[0])):
        version = _order(subject)
        role = "answers returned" if version < 0 else roles.get(version)
        name = f"{subject}, {role}" if role else subject
        lines.append(Line(name, smoothed(looks), faint=role is None))
    return chart.lines(
        lines, promotions(history), "cost per prediction over the last windows; dotted: another champion"
    )


def smoothed(looks: Sequence[Measurement]) -> list[tuple[datetime, float | None]]:
    """Each window's end with a mean of the last values, weighted by their rows; windows that overlap are smooth already."""
    apart = [look for look, after in pairwise(looks) if after.window_start >= look.window_end]
    last = SMOOTHED if len(apart) > len(looks) / 2 else 1
    points: list[tuple[datetime, float | None]] = []
    for place, look in enumerate(looks):
        some = [one for one in looks[max(place + 1 - last, 0) : place + 1] if one.value is not None and one.n]
        rows = sum(one.n for one in some)
        points.append((look.window_end, sum((one.value or 0.0) * one.n for one in some) / rows if rows else None))
    return points


def promotions(history: Sequence[Revision]) -> list[Mark]:
    """The moments at which another version became champion."""
    marks, before = [], None
    for revision in history:
        champion = revision.policy.champion
        if champion is not None and champion != before:
            marks.append(Mark(revision.event_at, f"{revision.policy.endpoint}@{champion} champion: {revision.cause}"))
        before = champion
    return marks


def _order(subject: str) -> int:
    """Version number of `delay@3`; -1 for the endpoint itself, so that it comes first."""
    _, mark, number = subject.rpartition("@")
    return int(number) if mark and number.isdecimal() else -1


def _latest(found: Sequence[Measurement]) -> list[Measurement]:
    """The newest measurement of each thing, those of single columns left out."""
    seen: dict[tuple[str, str], Measurement] = {}
    for one in found:
        if one.monitor != "drift":
            seen.setdefault((one.monitor, one.subject), one)
    return sorted(seen.values(), key=lambda one: (one.monitor, _order(one.subject)))
