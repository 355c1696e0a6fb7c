"""The console's first page: one project round its life cycle, from the objective to the latest journal entries."""

from __future__ import annotations

from typing import Any

from instar.core import journal
from instar.data import versions
from instar.evaluate.evaluation import evaluations
from instar.interfaces.api.routes import Request
from instar.interfaces.console import data, plan, release, serve
from instar.operate import alerts, rollout
from instar.train import run_search
from instar.train.runs import list_runs

LATEST = 8


def overview(request: Request) -> dict[str, Any]:
    """One project round its life cycle."""
    store, project = request.app.store, request.path["project"]
    contract = plan.contract(store, project)
    tables = data.in_order(versions.tables(store, project))
    runs = list_runs(store, project, limit=LATEST)
    verdicts = evaluations(store, project)
    models = release.latest_versions(store, project)
    endpoints = serve.endpoints(store, project)
    opened = alerts.alerts(store, project, state=alerts.OPEN)
    with store.database.read() as tx:
        entries = journal.latest(tx, project, LATEST)
    problems = [{"name": name, **terms} for name, terms in contract.contract["problem"].items()] if contract else []
    return {
        "project": project,
        "contract": contract,
        "problems": problems,
        "walks": plan.walks(store, project, 3),
        "tables": tables,
        "runs": runs,
        "evaluations": verdicts[::-1][:LATEST],
        "models": models,
        "endpoints": endpoints,
        "alerts": opened,
        "rollouts": [one for one in rollout.rollouts(store, project) if one.ended_at is None],
        "entries": entries,
        "steps": [
            _step("plan", len(problems), "problem", "problems"),
            _step("data", len(tables), "table", "tables"),
            _step("train", run_search.count(store, projects=[project]), "run", "runs"),
            _step("evaluate", len(verdicts), "verdict", "verdicts"),
            _step("release", sum(one["versions"] for one in models), "model version", "model versions"),
            _step("serve", len(endpoints), "endpoint", "endpoints"),
            _step("operate", len(opened), "open alert", "open alerts", alarm=bool(opened)),
        ],
    }


def _step(name: str, count: int, one: str, many: str, alarm: bool = False) -> dict[str, Any]:
    return {"name": name, "count": count, "what": one if count == 1 else many, "alarm": alarm}
