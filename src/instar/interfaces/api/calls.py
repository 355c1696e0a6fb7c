"""The record over HTTP: calls are searched, verified, anchored; a person is erased, and calls are held back from that."""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core.errors import BadInput, NotAllowed, NotFound
from instar.core.identity import Permission
from instar.interfaces.api.operate import log_of
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.cli.audit import audit_document, erasure_document, found_document, query_of, selector_of
from instar.interfaces.moments import moment_if
from instar.operate import anchoring, audit
from instar.operate.trace_records import plain
from instar.serve.log import erasing, holds, searching

TEXTS = ("endpoint", "caller", "reason", "key", "entity", "request_id", "since", "until", "cursor")
NUMBERS = ("version", "status", "limit")
LISTS = ("input", "score")


class NewErasure(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/erasures`: one of `entity`, `key` and `input` (`"customer_id=42"`), and why."""

    why: str
    entity: str | None = None
    key: str | None = None
    input: str | None = None
    endpoint: str | None = None


class NewHold(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/holds`."""

    endpoint: str
    why: str
    since: str | None = None
    until: str | None = None


class Why(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a release."""

    why: str


def search(request: Request) -> Reply:
    """Calls on the record, newest first, by what they were: `?caller=`, `?version=`, `?input=carrier=UA`, `?score=>0.5`, …"""
    found = searched(request)
    return Reply(found_document(found))


def searched(request: Request) -> searching.Found:
    """The page that a request's query asks for.

    Raises:
        BadInput: A parameter is unknown or cannot be read.
    """
    unknown = sorted(set(request.query) - {*TEXTS, *NUMBERS, *LISTS})
    if unknown:
        raise BadInput("there is no such filter", found=unknown[0], asked=", ".join((*TEXTS, *NUMBERS, *LISTS)))
    asked: dict[str, Any] = {name: request.query[name] for name in TEXTS if request.query.get(name)}
    asked |= {name: _number(name, request.query[name]) for name in NUMBERS if request.query.get(name)}
    several = {name: tuple(filter(None, request.query_lists.get(name, ()))) for name in LISTS}
    asked |= {"inputs": several["input"], "score": several["score"]}
    store = request.app.store
    log, among = log_of(store), request.caller.endpoints
    return searching.search(store, log, request.path["project"], query_of(asked), among=among)


def show(request: Request) -> Reply:
    """One prediction by its id, or row 0 of a call."""
    store, project = request.app.store, request.path["project"]
    row = log_of(store).find(request.path["prediction"])
    if row["endpoint"] not in log_of(store).endpoints_of(project) or not request.caller.reaches(row["endpoint"]):
        raise NotFound("there is no such prediction in this project", subject=request.path["prediction"])
    return Reply(plain(row))


def verify(request: Request) -> Reply:
    """An audit of a project: does all that is on the record still hold together? `?since=`, `?sample=`."""
    since, sample = request.query.get("since"), request.query.get("sample")
    try:
        share = float(sample) if sample else 1.0
    except ValueError:
        raise BadInput("that is no share", found=repr(sample), asked="0 to 1") from None
    found = audit.verify(request.app.store, request.path["project"], since=moment_if(since), sample=share)
    return Reply(audit_document(found))


def anchor(request: Request) -> Reply:
    """The journal's head, for whoever keeps it elsewhere; not signed."""
    return Reply(vars(anchoring.head(request.app.store, request.path["project"])))


def erase(request: Request) -> Reply:
    """Ask for a person to be erased; done as calls are sealed, within minutes: 202."""
    body = request.json(NewErasure)
    _require_reached(request, body.endpoint)
    selector = selector_of(body.entity, body.key, body.input)
    asked = erasing.ask(request.app.store, request.path["project"], selector, body.why, body.endpoint)
    return Reply(erasure_document(asked), 202)


def list_erasures(request: Request) -> Reply:
    """Erasures of a project, oldest first, without whom they were about."""
    found = erasing.erasures(request.app.store, request.path["project"])
    return Reply([erasure_document(one) for one in found if reached(request, one.endpoint)])


def hold(request: Request) -> Reply:
    """Place a hold on calls of an endpoint."""
    body = request.json(NewHold)
    _require_reached(request, body.endpoint)
    span = (moment_if(body.since), moment_if(body.until))
    one = holds.place(request.app.store, request.path["project"], body.endpoint, body.why, *span)
    return Reply(plain(vars(one)), 201)


def list_holds(request: Request) -> Reply:
    """Holds that stand."""
    found = holds.standing(request.app.store, request.path["project"])
    return Reply([plain(vars(one)) for one in found if reached(request, one.endpoint)])


def release(request: Request) -> Reply:
    """Release a hold."""
    if request.caller.endpoints is not None:
        standing = holds.standing(request.app.store, request.path["project"])
        _require_reached(request, next((one.endpoint for one in standing if one.id == request.path["hold"]), None))
    holds.release(request.app.store, request.path["project"], request.path["hold"], request.json(Why).why)
    return Reply({"released": request.path["hold"]})


def reached(request: Request, endpoint: str | None) -> bool:
    """Whether the caller may know of what is about an endpoint; with None, about all of the project."""
    return request.caller.endpoints is None or (endpoint is not None and request.caller.reaches(endpoint))


def _require_reached(request: Request, endpoint: str | None) -> None:
    if not reached(request, endpoint):
        raise NotAllowed(
            f"the token of {request.caller.name} is for some endpoints alone", subject=f"endpoint {endpoint or 'not named'}",
            asked=", ".join(sorted(request.caller.endpoints or ())),
        )  # fmt: skip


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise BadInput("that is no number", subject=name, found=repr(text))
    return int(text)


_P = "/api/projects/{project}"
routes = [
    Route("GET", f"{_P}/calls", Permission.READ, search, narrows=True),
    Route("GET", f"{_P}/calls/{{prediction:path}}", Permission.READ, show, narrows=True),
    Route("GET", f"{_P}/audit", Permission.AUDIT, verify),
    Route("GET", f"{_P}/anchor", Permission.AUDIT, anchor),
    Route("GET", f"{_P}/erasures", Permission.READ, list_erasures, narrows=True),
    Route("POST", f"{_P}/erasures", Permission.OPERATE, erase, narrows=True),
    Route("GET", f"{_P}/holds", Permission.READ, list_holds, narrows=True),
    Route("POST", f"{_P}/holds", Permission.OPERATE, hold, narrows=True),
    Route("POST", f"{_P}/holds/{{hold}}/release", Permission.OPERATE, release, narrows=True),
]
