"""The API of an endpoint's traffic: its policy to read and to set, the way back, and where two versions differ."""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core.errors import BadInput, Conflict, InstarError
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.api.operate import log_of
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.api.status import body_of
from instar.interfaces.cli.route import described
from instar.interfaces.moments import moment_of
from instar.operate import differences, traffic
from instar.operate.differences import Differences
from instar.operate.pairing import PredictionLog
from instar.operate.traffic import Change
from instar.serve.publishing import snapshot
from instar.serve.traffic import policy_document, routing
from instar.serve.traffic.policy import Policy
from instar.serve.traffic.policy_document import PolicyDocument

WAIT_SECONDS = 10.0  # for gateways to take up what was set


class NewPolicy(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT …/policy`."""

    policy: PolicyDocument
    reason: str
    dry_run: bool = False


class Back(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/back`; `to` is the number of a revision, the one before by default."""

    reason: str
    to: int | None = None
    dry_run: bool = False


def show_policy(request: Request) -> Reply:
    """The endpoint's policy as a document, and its revision, whose number is the ETag."""
    found = traffic.current(request.app.store, request.path["project"], request.path["endpoint"])
    body = {"document": policy_document.plain(found.policy), "revision": described(found)}
    return Reply(body, headers={"etag": _tag(found.policy)})


def set_policy(request: Request) -> Reply:
    """Make a policy the endpoint's: 200 when all gateways answer from it; 412 unless `If-Match` names the one that holds.

    `If-Match: "7"` says which revision was looked at; for a new endpoint it is `"0"`.
    """
    body = request.json(NewPolicy)
    project, endpoint = request.path["project"], request.path["endpoint"]
    store = request.app.store
    if "if-match" not in request.headers:
        raise BadInput(
            "a change names the policy that it was decided upon", subject=f"endpoint {endpoint}",
            asked='the header If-Match with the ETag of the policy, or "0" for a new endpoint',
        )  # fmt: skip
    held = _held(store, project, endpoint)
    if (moved := _moved(request, held)) is not None:
        return moved
    done = traffic.change(
        store, project, endpoint, body.policy.draft(project, endpoint), body.reason,
        expected=held.number, dry_run=body.dry_run,
    )  # fmt: skip
    return _changed(store, done)


def go_back(request: Request) -> Reply:
    """Make the policy of an earlier revision the endpoint's again, as a new one; 412 when `If-Match` names one that is over."""
    body = request.json(Back)
    project, endpoint = request.path["project"], request.path["endpoint"]
    store = request.app.store
    if (moved := _moved(request, _held(store, project, endpoint))) is not None:
        return moved
    return _changed(store, traffic.back(store, project, endpoint, body.reason, to=body.to, dry_run=body.dry_run))


def compare(request: Request) -> Reply:
    """Where two versions differ on the same calls: `?versions=3&versions=5`, `?since=`, `?until=`, `?by=` an input."""
    return Reply(differences.document(compared(request, log_of(request.app.store))))


def compared(request: Request, log: PredictionLog) -> Differences:
    """The comparison that a request asks for."""
    store, endpoint, lists = request.app.store, request.path["endpoint"], request.query_lists
    now = traffic.current(store, request.path["project"], endpoint)
    first, second = differences.two_versions(now.policy, [_version(text) for text in lists.get("versions", ())])
    until = moment_of(request.query["until"]) if "until" in request.query else store.clock.event()
    since = moment_of(request.query["since"]) if "since" in request.query else until - differences.SPAN
    return differences.compare(log, endpoint, first, second, since=since, until=until, by=lists.get("by", ()))


def _held(store: Store, project: str, endpoint: str) -> Policy:
    """The policy that holds; the empty one with number 0 where the project has no such endpoint yet."""
    now = routing.current(store, endpoint)
    return now.policy if now is not None and now.policy.project == project else Policy(endpoint, project, 0, None)


def _moved(request: Request, held: Policy) -> Reply | None:
    """The refusal of a change that was decided upon another policy than the one that holds."""
    wanted = request.headers.get("if-match", _tag(held))
    if wanted.strip() == _tag(held):
        return None
    moved = Conflict(
        "its policy has changed since it was looked at", subject=f"endpoint {held.endpoint}",
        found=f"revision {held.number}", asked=f"revision {wanted}", next_step="Look at it and decide again.",
    )  # fmt: skip
    return Reply(body_of(moved), 412)


def _changed(store: Store, done: Change) -> Reply:
    body: dict[str, Any] = {
        "document": policy_document.plain(done.policy),
        "difference": policy_document.difference(done.before.policy if done.before else None, done.policy),
        "ends": done.ends,
        "revision": described(done.revision) if done.revision is not None else None,
        "effect": None,
    }
    if done.revision is not None:
        try:
            body["effect"] = snapshot.take_effect(store, WAIT_SECONDS).document()
        except InstarError as late:
            # It is decided and on the record, and a gateway that is late takes it up when it can.
            body["effect"] = {"problem": str(late)}
    return Reply(body, headers={"etag": _tag(done.policy)})


def _tag(policy: Policy) -> str:
    return f'"{policy.number}"'


def _version(text: str) -> int:
    number = text.rpartition("@")[2]
    if not number.isascii() or not number.isdecimal():
        raise BadInput("that is no version", found=repr(text), asked="a number, as in 3")
    return int(number)


_E = "/api/projects/{project}/endpoints/{endpoint}"
routes = [
    Route("GET", f"{_E}/policy", Permission.READ, show_policy),
    Route("PUT", f"{_E}/policy", Permission.OPERATE, set_policy),
    Route("POST", f"{_E}/back", Permission.OPERATE, go_back),
    Route("GET", f"{_E}/compare", Permission.READ, compare),
]
