"""Pages about models: their versions, and one version with its card, the gates' verdict and the report of its evaluation."""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core import lineage
from instar.core.identity import Permission
from instar.core.store import Store
from instar.evaluate.evaluation import Evaluation, evaluations, get_evaluation
from instar.interfaces.api.routes import Request
from instar.interfaces.console import plan
from instar.release import registry
from instar.release.card import card
from instar.serve.traffic import routing


def models(request: Request) -> dict[str, Any]:
    """The registered models of a project and all their versions."""
    store, project = request.app.store, request.path["project"]
    names = sorted({one.model for one in registry.versions(store, project) if request.caller.reaches(one.model)})
    return {"project": project, "models": [_model(store, project, name) for name in names]}


def _model(store: Store, project: str, name: str) -> dict[str, Any]:
    found = registry.versions(store, project, name)
    return {
        "name": name,
        "aliases": registry.aliases(store, project, name),
        "places": _places(store, name),
        "versions": found[::-1],
    }


def latest_versions(store: Store, project: str) -> list[dict[str, Any]]:
    """Each model with its newest version and the number of all."""
    found: dict[str, dict[str, Any]] = {}
    for one in registry.versions(store, project):
        before = found.get(one.model, {"versions": 0})
        found[one.model] = {"name": one.model, "latest": one, "versions": before["versions"] + 1}
    for name, model in found.items():
        model["places"] = _places(store, name)
    return list(found.values())


def _places(store: Store, model: str) -> dict[int, str]:
    """The place of each version in the policy of the model's endpoint: champion, canary or a shadow's role."""
    revision = routing.current(store, model)
    if revision is None:
        return {}
    policy = revision.policy
    places = {one.version: one.role for one in policy.shadows}
    places |= {rule.version: rule.reason for rule in policy.rules if rule.version is not None}
    places |= {version: place for version, place, _ in reversed(policy.shares())}
    return places


def version(request: Request) -> dict[str, Any]:
    """One model version: its card, what the gates said, and what the evaluation reports."""
    store, project = request.app.store, request.path["project"]
    found = registry.find(store, project, f"{request.path['model']}@{request.path['number']}")
    evaluation = get_evaluation(store, found.evaluation) if found.evaluation else None
    contract = plan.contract(store, project)
    with store.database.read() as tx:
        effects = lineage.down(tx, found.id, 1)
    return {
        "project": project,
        "version": found,
        "place": _places(store, found.model).get(found.number),
        "objective": contract.objective if contract else None,
        "terms": contract.contract["problem"].get(found.model) if contract else None,
        "card": card(store, found),
        "evaluation": evaluation,
        "report": _report(store, evaluation) if evaluation else None,
        "others": [one for one in evaluations(store, project, bundle=found.bundle) if one.id != found.evaluation],
        "effects": effects,
        "may_approve": request.caller.may(Permission.APPROVE, project),
    }


def _report(store: Store, evaluation: Evaluation) -> Any:
    return msgspec.json.decode(store.blobs.get(evaluation.report_json))
