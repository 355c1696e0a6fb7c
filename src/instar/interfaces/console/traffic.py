"""The page on which the traffic of an endpoint is changed: forms for each kind of change, and what it would do before it is done.

A form asks this page itself what would change, which changes nothing. What is shown then carries the one call of the API that
makes it so, with the number of the policy that was looked at; the page's script sends it when the reader confirms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from instar.core.errors import BadInput
from instar.interfaces.api.routes import Request
from instar.interfaces.console.serve import who_answers
from instar.operate import traffic
from instar.operate.traffic import Change
from instar.release import registry
from instar.release.registry import ModelVersion
from instar.serve.traffic import policy_document, routing
from instar.serve.traffic.policy import Policy, Shadow
from instar.serve.traffic.routing import Revision

FIELDS = ("change", "reason", "version", "share", "role", "caller", "to", "document")
WEIGHT = "weight."  # and the version: one field for each
MOST_VERSIONS = 20  # of those that have no place in the policy


def page(request: Request) -> dict[str, Any]:
    """Who answers at an endpoint, forms to change it, and what the change that is asked for would do."""
    now = _now(request)
    made = _asked_for(request, now) if request.query.get("change") else None
    return {**_forms(request, now), "change": _shown(request, now, made) if made else None}


def page_asked(request: Request) -> dict[str, Any]:
    """The forms as they were filled in, when what they ask for cannot be done."""
    return {**_forms(request, _now(request)), "change": None}


def _now(request: Request) -> Revision:
    return traffic.current(request.app.store, request.path["project"], request.path["endpoint"])


def _forms(request: Request, now: Revision) -> dict[str, Any]:
    store, project, policy = request.app.store, now.policy.project, now.policy
    shares = {version: share for version, _, share in policy.shares()}
    return {
        "project": project,
        "endpoint": policy.endpoint,
        "number": policy.number,
        "asked": {name: request.query.get(name, "") for name in FIELDS} | _weights(request.query),
        "versions": [
            {
                "number": one.number,
                "state": one.state,
                "share": shares.get(one.number, 0.0),
                "champion": one.number == policy.champion,
            }
            for one in _to_choose_from(registry.versions(store, project, policy.endpoint), policy)
        ],
        "shadows": [{"version": one.version, "role": one.role, "share": one.share} for one in policy.shadows],
        "pins": [
            {"caller": rule.when[0].caller, "version": rule.version}
            for rule in policy.rules
            if len(rule.when) == 1 and rule.name == f"pin {rule.when[0].caller}"
        ],
        "revisions": [
            {"number": one.policy.number, "event_at": one.event_at, "cause": one.cause}
            for one in reversed(routing.history(store, policy.endpoint)[:-1])
        ],
        "document": policy_document.toml(policy),
    }


def _to_choose_from(found: list[ModelVersion], policy: Policy) -> list[ModelVersion]:
    """Versions with a place in the policy, and the newest of the others; the newest first."""
    placed = {one.number for one in found if one.number in policy.versions}
    others = [one.number for one in found if one.number not in placed][-MOST_VERSIONS:]
    return [one for one in reversed(found) if one.number in placed.union(others)]


def _asked_for(request: Request, now: Revision) -> Change:
    """The change that a form asks for, not done."""
    query, project, endpoint = request.query, now.policy.project, now.policy.endpoint
    store, reason, kind = request.app.store, query.get("reason", ""), query["change"]
    if kind == "back":
        number = _whole("to", query.get("to", ""))
        return traffic.back(store, project, endpoint, reason, to=number, dry_run=True)
    edit = EDITS.get(kind)
    if edit is None:
        raise BadInput("there is no such change", found=kind[:100], asked=", ".join((*EDITS, "back")))
    return traffic.change(store, project, endpoint, edit(now.policy, query), reason, dry_run=True)


def _shown(request: Request, now: Revision, made: Change) -> dict[str, Any]:
    """What the change does, and the call of the API that does it."""
    project, endpoint, reason = now.policy.project, now.policy.endpoint, request.query["reason"]
    back = request.query["change"] == "back"
    body: dict[str, Any] = {"reason": reason}
    body |= {"to": int(request.query["to"])} if back else {"policy": policy_document.plain(made.policy)}
    return {
        "difference": policy_document.difference(now.policy, made.policy),
        "ends": made.ends,
        "reason": reason,
        "policy": who_answers(made.policy, now.bundles),
        "call": {
            "method": "POST" if back else "PUT",
            "path": f"/api/projects/{project}/endpoints/{endpoint}/{'back' if back else 'policy'}",
            "if_match": f'"{now.policy.number}"',
            "body": body,
        },
    }


def _weights(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if name.startswith(WEIGHT)}


def _weighed(policy: Policy, query: Mapping[str, str]) -> Policy:
    """The champion's field is left empty: it has what the others leave."""
    given = {
        _whole("version", name.removeprefix(WEIGHT)): _per_cent(name, value)
        for name, value in _weights(query).items()
        if value.strip()
    }
    return traffic.with_weights(policy, given)


def _shadowed(policy: Policy, query: Mapping[str, str]) -> Policy:
    share = _per_cent("share", query.get("share", "").strip() or "100")
    role = query.get("role", "").strip() or "shadow"
    return traffic.with_shadow(policy, Shadow(_version(query), role, share))


def _unshadowed(policy: Policy, query: Mapping[str, str]) -> Policy:
    return traffic.without_shadow(policy, _version(query))


def _pinned(policy: Policy, query: Mapping[str, str]) -> Policy:
    return traffic.with_pin(policy, _caller(query), _version(query))


def _unpinned(policy: Policy, query: Mapping[str, str]) -> Policy:
    return traffic.with_pin(policy, _caller(query), None)


def _written(policy: Policy, query: Mapping[str, str]) -> Policy:
    document = policy_document.read(query.get("document", "").encode(), "the policy as it stands in the form")
    return document.draft(policy.project, policy.endpoint)


EDITS: dict[str, Callable[[Policy, Mapping[str, str]], Policy]] = {
    "weights": _weighed,
    "shadow": _shadowed,
    "no shadow": _unshadowed,
    "pin": _pinned,
    "unpin": _unpinned,
    "policy": _written,
}


def _version(query: Mapping[str, str]) -> int:
    return _whole("version", query.get("version", ""))


def _caller(query: Mapping[str, str]) -> str:
    caller = query.get("caller", "").strip()
    if not caller:
        raise BadInput("the caller is missing", asked="the name of a token or a user, as calls on the record have it")
    return caller


def _whole(name: str, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdecimal() or len(text) > 9:
        raise BadInput("that is no number", subject=name, found=repr(text[:40]), asked="a whole number, as in 3")
    return int(text)


def _per_cent(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput("that is no share", subject=name, found=repr(text[:40]), asked="per cent, as in 10") from None
