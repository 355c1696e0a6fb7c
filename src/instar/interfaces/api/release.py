"""Models over HTTP: versions, cards and evaluations to read; approvals, waivers and names to give."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission
from instar.evaluate import evaluation as evaluations
from instar.evaluate.evaluation import Evaluation
from instar.interfaces.api.routes import Reply, Request, Route
from instar.operate import review
from instar.release import approval, registry, waivers
from instar.release.card import card
from instar.release.registry import ModelVersion
from instar.serve.traffic.derived import derive

# A report is a page of its own with its style inside: it runs nothing and reaches nothing.
REPORT_HEADERS = {
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


class Approve(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/approve`; `expires_at` is RFC 3339, in event time."""

    note: str = ""
    expires_at: datetime | None = None


class Withdraw(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/withdraw`."""

    reason: str


class Waive(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/waivers`."""

    gate: str
    reason: str
    expires_at: datetime


class Point(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT …/aliases/{alias}`; null takes the name away."""

    version: int | None


class Stage(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT …/stage`."""

    stage: str


def list_models(request: Request) -> Reply:
    """Every version of every model of the project."""
    found = registry.versions(request.app.store, request.path["project"])
    return Reply({"models": [registry.document(version) for version in found if request.caller.reaches(version.model)]})


def list_versions(request: Request) -> Reply:
    """The versions of one model, and the names set for them."""
    store, project, model = request.app.store, request.path["project"], request.path["model"]
    found = registry.versions(store, project, model)
    if not found:
        raise NotFound("there is no such model", subject=f"model {model} of project {project}")
    names = registry.aliases(store, project, model)
    return Reply({"model": model, "aliases": names, "versions": [registry.document(version) for version in found]})


def show_version(request: Request) -> Reply:
    """The card of a version, named by its number, an alias, `champion` or `challenger`."""
    version = _version(request)
    own = request.app.project_if_any
    contract = own if own is not None and own.name == version.project else None
    return Reply(card(request.app.store, version, contract))


def judge_again(request: Request) -> Reply:
    """Evaluate a version on the newest gold table, against what answers today."""
    version = _version(request)
    return Reply(evaluations.document(review.judge_again(request.app.loop(), version)), status=201)


def approve(request: Request) -> Reply:
    """Approve a version on its evidence, by the policy of its problem."""
    body: Approve = request.json(Approve)
    given = review.approve(
        request.app.store,
        request.app.project_if_any,
        _version(request),
        note=body.note,
        expires_at=_aware(body.expires_at),
    )
    return Reply(approval.document(given), status=201)


def withdraw(request: Request) -> Reply:
    """Take back what allows a version; where it answers now it goes on until its route is changed."""
    taken = approval.withdraw(request.app.store, _version(request), request.json(Withdraw).reason)
    return Reply({"withdrawn": [approval.document(one) for one in taken]})


def waive(request: Request) -> Reply:
    """Pass over one gate of an evaluation, by name, for a reason and until a time."""
    body: Waive = request.json(Waive)
    ends = _aware(body.expires_at)
    assert ends is not None
    given = waivers.waive(request.app.store, _evaluation(request), body.gate, body.reason, ends)
    return Reply({"id": given.id, "evaluation": given.evaluation, "gate": given.gate}, status=201)


def set_alias(request: Request) -> Reply:
    """Point a name at a version, or take it away."""
    body: Point = request.json(Point)
    project, model, alias = request.path["project"], request.path["model"], request.path["alias"]
    registry.set_alias(request.app.store, project, model, alias, body.version, derive(request.app.store, project))
    return Reply({"model": model, "aliases": registry.aliases(request.app.store, project, model)})


def set_stage(request: Request) -> Reply:
    """Set the free-text stage of a version."""
    body: Stage = request.json(Stage)
    return Reply(registry.document(registry.set_stage(request.app.store, _version(request), body.stage)))


def list_evaluations(request: Request) -> Reply:
    """Evaluations of the project, oldest first; `?problem=`, `?bundle=`."""
    query = request.query
    found = evaluations.evaluations(
        request.app.store, request.path["project"], problem=query.get("problem"), bundle=query.get("bundle")
    )
    return Reply({"evaluations": [evaluations.document(one) for one in found]})


def show_evaluation(request: Request) -> Reply:
    """One evaluation with its verdict, as the waivers that hold now leave it."""
    found, store = _evaluation(request), request.app.store
    effective = waivers.effective_verdict(store, found, store.clock.event())
    return Reply({**evaluations.document(found), "effective": effective.state})


def show_report(request: Request) -> Reply:
    """The report of an evaluation: a page, or with `?format=json` the document."""
    found = _evaluation(request)
    if request.query.get("format") == "json":
        return Reply(msgspec.json.decode(request.app.store.blobs.get(found.report_json)))
    page = request.app.store.blobs.get(found.report_html)
    return Reply(page, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)


def _version(request: Request) -> ModelVersion:
    ref = f"{request.path['model']}@{request.path['version']}"
    return review.find_version(request.app.store, request.path["project"], ref)


def _evaluation(request: Request) -> Evaluation:
    found = evaluations.get_evaluation(request.app.store, request.path["evaluation"])
    if found.project != request.path["project"]:  # do not tell a reader of one project of another's evidence
        raise NotFound("there is no such evaluation", subject=request.path["evaluation"])
    return found


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise BadInput(
            "a time without a zone", found=moment.isoformat(), asked="RFC 3339, such as 2026-01-31T00:00:00Z"
        )
    return None if moment is None else moment.astimezone(UTC)


_MODEL = "/api/projects/{project}/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_EVALUATION = "/api/projects/{project}/evaluations/{evaluation}"

routes = [
    Route("GET", "/api/projects/{project}/models", Permission.READ, list_models, narrows=True),
    Route("GET", _MODEL, Permission.READ, list_versions),
    Route("PUT", _MODEL + "/aliases/{alias}", Permission.RELEASE, set_alias),
    Route("GET", _VERSION, Permission.READ, show_version),
    Route("PUT", _VERSION + "/stage", Permission.RELEASE, set_stage),
    Route("POST", _VERSION + "/evaluate", Permission.RELEASE, judge_again),
    Route("POST", _VERSION + "/approve", Permission.APPROVE, approve),
    Route("POST", _VERSION + "/withdraw", Permission.APPROVE, withdraw),
    Route("GET", "/api/projects/{project}/evaluations", Permission.READ, list_evaluations),
    Route("GET", _EVALUATION, Permission.READ, show_evaluation),
    Route("GET", _EVALUATION + "/report", Permission.READ, show_report),
    Route("POST", _EVALUATION + "/waivers", Permission.APPROVE, waive),
]
