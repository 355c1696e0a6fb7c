"""Operating over HTTP: outcomes come in; alerts, measurements, rollouts, actions, and traces go out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec

from instar.core.errors import BadInput, NotAllowed, NotFound
from instar.core.identity import SYSTEM, Permission
from instar.core.store import Store
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.cli.operate import live_document
from instar.interfaces.moments import moment_if
from instar.operate import actions, alerts, promotion, rollout, trace
from instar.operate.belonging import require_in
from instar.operate.live import live
from instar.operate.measurement import measurements
from instar.operate.outcomes import Item, post
from instar.release import registry
from instar.serve.log.calls import CallLog
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.derived import derive
from instar.serve.traffic.routing import Revision

MOST_OUTCOMES = 100_000  # of one posting: it is one transaction
MOST_LISTED = 1000
TRUTHS = frozenset({0.0, 1.0})  # every task is binary as yet


class NewOutcomes(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/outcomes`."""

    outcomes: list[Item]


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a promotion (with `version`, as `model@3`) or a rollback."""

    reason: str
    version: str | None = None


def post_outcomes(request: Request) -> Reply:
    """Record outcomes, all or none: 200; 202 when some wait for their call; 409 for another value; 400 when malformed.

    A caller reports on calls of endpoints that it may ask.
    """
    items = request.json(NewOutcomes).outcomes
    if len(items) > MOST_OUTCOMES:
        raise BadInput("the posting has too many outcomes", found=len(items), asked=f"{MOST_OUTCOMES} or fewer")
    store = request.app.store
    seen = log_of(store).seen if request.caller.may_ask_all() else _allowed(request)
    posted = post(store, request.app.project_name, items, seen, TRUTHS)
    counts = {state: posted.count(state) for state in ("recorded", "parked", "corrected", "unchanged")}
    body = {**counts, "outcomes": [vars(receipt) for receipt in posted.receipts]}
    return Reply(body, 202 if counts["parked"] else 200)


def _allowed(request: Request) -> Callable[[str], bool]:
    """Whether a call is in the log, asked by somebody who may not ask every endpoint of the store."""
    store, caller = request.app.store, request.caller
    log, owners = log_of(store), {one.policy.endpoint: one.policy.project for one in routing.endpoints(store)}
    all_that_are = all(caller.may_ask(endpoint, project) for endpoint, project in owners.items())

    def seen(call: str) -> bool:
        endpoint = log.endpoint_of(call)
        if endpoint is None and (caller.endpoints is not None or not all_that_are):
            # It would wait, and then be joined whosever the call is.
            raise NotFound(
                "no such call is on the record, or not yet", subject=call,
                next_step="Send it again in some minutes, or with a token that is not limited to endpoints.",
            )  # fmt: skip
        if endpoint is not None and not caller.may_ask(endpoint, owners.get(endpoint, endpoint)):
            raise NotAllowed(
                f"{caller.name} may not report on calls of this endpoint", subject=call, found=f"endpoint {endpoint}",
                asked="a token for it",
            )  # fmt: skip
        return endpoint is not None

    return seen


def list_alerts(request: Request) -> Reply:
    """Alerts of a project, latest first; `?endpoint=`, `?state=open`."""
    query = request.query
    found = alerts.alerts(
        request.app.store, request.path["project"], endpoint=query.get("endpoint"), state=query.get("state")
    )
    return Reply([vars(one) for one in found if request.caller.reaches(one.endpoint)])


def list_measurements(request: Request) -> Reply:
    """Measurements of a project, latest window first; `?endpoint=`, `?monitor=`, `?subject=`, `?since=`, `?limit=`."""
    query, caller, limit = request.query, request.caller, _limit(request.query.get("limit"))
    asked = {query["endpoint"]} if "endpoint" in query else caller.endpoints or {None}
    found = [
        one
        for endpoint in asked
        if endpoint is None or caller.reaches(endpoint)
        for one in measurements(
            request.app.store,
            request.path["project"],
            endpoint=endpoint,
            monitor=query.get("monitor"),
            subject=query.get("subject"),
            since=moment_if(query.get("since")),
            limit=limit,
        )
    ]
    if len(asked) > 1:
        found.sort(key=lambda one: one.window_end, reverse=True)
    return Reply([vars(one) for one in found[:limit]])


def list_rollouts(request: Request) -> Reply:
    """Rollouts of a project, latest first; `?endpoint=`."""
    found = rollout.rollouts(request.app.store, request.path["project"], request.query.get("endpoint"))
    return Reply([_rollout(one) for one in found if request.caller.reaches(one.endpoint)])


def show_rollout(request: Request) -> Reply:
    """One rollout with every look at it and the evidence of each."""
    found = rollout.get(request.app.store, request.path["rollout"])
    if found.project != request.path["project"] or not request.caller.reaches(found.endpoint):
        raise NotFound("there is no such rollout", subject=found.id)
    looks = [vars(look) for look in rollout.looks(request.app.store, found.id)]
    return Reply({**_rollout(found), "looks": looks})


def list_actions(request: Request) -> Reply:
    """Actions of a project, latest first; `?endpoint=`, `?kind=`, `?state=`."""
    query = request.query
    found = actions.actions(
        request.app.store,
        request.path["project"],
        endpoint=query.get("endpoint"),
        kind=query.get("kind"),
        state=query.get("state"),
    )
    return Reply([vars(one) for one in found if request.caller.reaches(one.endpoint)])


def show_live(request: Request) -> Reply:
    """What answers at each endpoint of a project, now or `?at=` an event time; `?endpoint=`."""
    query = request.query
    found = live(request.app.store, request.path["project"], moment_if(query.get("at")), query.get("endpoint"))
    return Reply([live_document(one) for one in found if request.caller.reaches(one.endpoint)])


def show_trace(request: Request) -> Reply:
    """The trace of `?id=`: a prediction, table@3, model@2 or any id; `?forward=1` for what it touched."""
    name = request.query.get("id", "")
    require_in(request.app.store, log_of(request.app.store), request.path["project"], name)
    walk = trace.forward if request.query.get("forward", "") not in ("", "0", "false") else trace.backward
    return Reply(walk(request.app.store, log_of(request.app.store), request.path["project"], name).as_json())


def promote(request: Request) -> Reply:
    """Make a version the champion at once; a running rollout ends as superseded."""
    project, endpoint, body = request.path["project"], request.path["endpoint"], request.json(Reason)
    if body.version is None:
        raise BadInput("the version to promote is missing", asked=f'"version": "{endpoint}@3"')
    store = request.app.store
    version = registry.find(store, project, body.version, derive(store, project))
    if version.model != endpoint:
        raise BadInput("it is a version of another model", found=version.name, asked=f"a version of {endpoint}")
    revision = promotion.promote(store, project, endpoint, version, body.reason)
    return Reply(_answers(store, revision))


def roll_back(request: Request) -> Reply:
    """End the endpoint's rollout, or without one return to the champion before."""
    project, endpoint, body = request.path["project"], request.path["endpoint"], request.json(Reason)
    store = request.app.store
    return Reply(_answers(store, promotion.rollback(store, project, endpoint, body.reason)))


def _answers(store: Store, revision: Revision) -> dict[str, Any]:
    """What answers from now on, told when every gateway answers from it."""
    policy = revision.policy
    effect = snapshot.take_effect(store)
    champion = f"{policy.endpoint}@{policy.champion}"
    return {"endpoint": policy.endpoint, "policy": policy.number, "champion": champion, "effect": effect.document()}


def log_of(store: Store) -> CallLog:
    """The prediction log of the server's store, kept with its decoded segments from one request to the next."""
    return _log_of(replace(store, actor=SYSTEM))  # whoever reads it reads the same


@lru_cache(maxsize=1)
def _log_of(store: Store) -> CallLog:
    return CallLog(store)


def _rollout(one: rollout.Rollout) -> dict[str, Any]:
    terms = msgspec.to_builtins(one.terms)
    return {**vars(one), "terms": terms, "standing": msgspec.to_builtins(one.standing), "share": one.share}


def _limit(text: str | None) -> int:
    if text is None:
        return MOST_LISTED
    if not text.isdecimal() or not 1 <= int(text) <= MOST_LISTED:
        raise BadInput("the limit is no such number", found=repr(text), asked=f"1 to {MOST_LISTED}")
    return int(text)


def _recorded_in(request: Request) -> str:
    return request.app.project_name  # outcomes go to the server's own project


_P = "/api/projects/{project}"
routes = [
    Route("POST", "/api/outcomes", Permission.PREDICT, post_outcomes, bound=_recorded_in, narrows=True),
    Route("GET", f"{_P}/alerts", Permission.READ, list_alerts, narrows=True),
    Route("GET", f"{_P}/measurements", Permission.READ, list_measurements, narrows=True),
    Route("GET", f"{_P}/rollouts", Permission.READ, list_rollouts, narrows=True),
    Route("GET", f"{_P}/rollouts/{{rollout}}", Permission.READ, show_rollout, narrows=True),
    Route("GET", f"{_P}/actions", Permission.READ, list_actions, narrows=True),
    Route("GET", f"{_P}/live", Permission.READ, show_live, narrows=True),
    Route("GET", f"{_P}/trace", Permission.READ, show_trace),
    Route("POST", f"{_P}/endpoints/{{endpoint}}/promote", Permission.OPERATE, promote),
    Route("POST", f"{_P}/endpoints/{{endpoint}}/rollback", Permission.OPERATE, roll_back),
]
