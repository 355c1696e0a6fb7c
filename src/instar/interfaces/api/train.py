"""Runs over HTTP: listing and showing them, and logging ad hoc ones."""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.train import bundle, bundles, proofs, runs

MOST_RUNS = 1000


class NewRun(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/runs`."""

    experiment: str
    parameters: dict[str, str | int | float | bool | None] = {}
    tags: dict[str, str] = {}
    inputs: list[str] = []


class NewMetrics(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/metrics`."""

    metrics: dict[str, float]
    step: int = 0


class End(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/end`: without an error the run has finished."""

    error: str | None = None


def list_runs(request: Request) -> Reply:
    """Runs of a project, the newest first; `?experiment=`, `?step=`, `?state=`, `?limit=`."""
    query = request.query
    found = runs.list_runs(
        request.app.store,
        request.path["project"],
        experiment=query.get("experiment"),
        step=query.get("step"),
        state=query.get("state"),
        limit=_limit(query.get("limit", "100")),
    )
    return Reply({"runs": [runs.document(run) for run in found]})


def show_run(request: Request) -> Reply:
    """One run with its bundles, and the verdicts of those who made it again."""
    found = run_of(request)
    with request.app.store.database.read() as tx:
        made = bundles.of_run(tx, found.id)
    return Reply({**runs.document(found), "bundles": made, "reproductions": _proofs(request, found)})


def list_reproductions(request: Request) -> Reply:
    """Verdicts of those who made a run again, the newest first: who, when, and the first cause where it differs."""
    return Reply({"reproductions": _proofs(request, run_of(request))})


def metric_history(request: Request) -> Reply:
    """All values of one metric of a run."""
    history = runs.metric_history(request.app.store, run_of(request).id, request.path["metric"])
    values = [
        {
            "step": metric.step,
            "value": metric.value if metric.value == metric.value else None,
            "at": metric.at.isoformat(),
        }
        for metric in history
    ]
    return Reply({"metric": request.path["metric"], "values": values})


def start_run(request: Request) -> Reply:
    """Start an ad hoc run."""
    body: NewRun = request.json(NewRun)
    run = runs.start(
        request.app.store,
        request.path["project"],
        experiment=body.experiment,
        parameters=body.parameters,
        tags=body.tags,
        inputs=body.inputs,
        cause=request.actor.name,
        capture=False,  # it runs elsewhere: nothing of this process is its own
    )
    return Reply(runs.document(run), status=201)


def log_metrics(request: Request) -> Reply:
    """Log values of metrics of a run."""
    body: NewMetrics = request.json(NewMetrics)
    runs.log_metrics(request.app.store, run_of(request).id, body.metrics, body.step)
    return Reply({"logged": len(body.metrics)})


def end_run(request: Request) -> Reply:
    """End a run, well or with an error."""
    body: End = request.json(End)
    run, store = run_of(request), request.app.store
    return Reply(runs.document(runs.fail(store, run.id, body.error) if body.error else runs.finish(store, run.id)))


def show_bundle(request: Request) -> Reply:
    """The manifest of a bundle of the project."""
    digest = request.path["digest"]
    with request.app.store.database.read() as tx:
        known = bundles.has(tx, request.path["project"], digest)
    if not known:
        raise NotFound("the project has no such bundle", subject=f"bundle {digest}")
    return Reply(msgspec.to_builtins(bundle.load_manifest(request.app.store.blobs, digest)))


def _proofs(request: Request, run: runs.Run) -> list[dict[str, Any]]:
    return [proofs.document(one) for one in proofs.of_run(request.app.store, run.project, run.id)]


def run_of(request: Request) -> runs.Run:
    """The run of the path, which must be the project's."""
    run = runs.get_run(request.app.store, request.path["run"])
    if run.project != request.path["project"]:  # do not tell a reader of one project of another's runs
        raise NotFound("there is no such run", subject=f"run {request.path['run']}")
    return run


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_RUNS:
        raise BadInput("that is no limit", found=text, asked=f"a number from 1 to {MOST_RUNS}")
    return int(text)


routes = [
    Route("GET", "/api/projects/{project}/runs", Permission.READ, list_runs),
    Route("POST", "/api/projects/{project}/runs", Permission.TRAIN, start_run),
    Route("GET", "/api/projects/{project}/runs/{run}", Permission.READ, show_run),
    Route("GET", "/api/projects/{project}/runs/{run}/reproductions", Permission.READ, list_reproductions),
    Route("GET", "/api/projects/{project}/runs/{run}/metrics/{metric}", Permission.READ, metric_history),
    Route("POST", "/api/projects/{project}/runs/{run}/metrics", Permission.TRAIN, log_metrics),
    Route("POST", "/api/projects/{project}/runs/{run}/end", Permission.TRAIN, end_run),
    Route("GET", "/api/projects/{project}/bundles/{digest}", Permission.READ, show_bundle),
]
