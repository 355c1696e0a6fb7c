"""The console's table of routes: every page with its JSON twin, in the order of the life cycle, and the files they load."""

from __future__ import annotations

from instar.core.errors import BadInput, Blocked, NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Bound, Reply, Request, Route
from instar.interfaces.console import (
    access,
    calls,
    data,
    differing,
    experiments,
    files,
    operate,
    overview,
    plan,
    release,
    serve,
    traffic,
    train,
)
from instar.interfaces.console.render import HERE, ROOT, page, redirect, shown, url

ASSETS = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "sign.js": "text/javascript; charset=utf-8",
    "current.js": "text/javascript; charset=utf-8",
    "confirm.js": "text/javascript; charset=utf-8",
    "links.js": "text/javascript; charset=utf-8",
    "instar.svg": "image/svg+xml",
}


def _home(request: Request) -> Reply:
    """Console: to the project of this server, or to the first one that the caller may read."""
    caller, own = request.caller, request.app.project_name
    if caller.endpoints is not None:
        return redirect(url(own, "models") if caller.may(Permission.READ, own) else url("access"))
    if caller.may(Permission.READ, own):
        return redirect(url(own))
    readable = sorted(project for project in caller.roles if caller.may(Permission.READ, project))
    return redirect(url(readable[0]) if readable else url("access"))


def _of_project(request: Request) -> Reply:
    """Console: from a project's address, as MLflow's clients have it, to the project."""
    return redirect(url(request.path["project"]))


def _asset(request: Request) -> Reply:
    """Console: a style sheet, script or picture that its pages load."""
    name = request.path["file"]
    if name not in ASSETS:
        raise NotFound("the console has no such file", subject=name)
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-cache"}
    return Reply((HERE / "assets" / name).read_bytes(), 200, ASSETS[name], headers)


routes: list[Route] = [
    Route("GET", "/", Permission.KNOWN, _home, page=True),
    Route("GET", ROOT, Permission.KNOWN, _home, page=True),
    Route("GET", "/projects/{project}", Permission.READ, _of_project, page=True),
    Route("GET", f"{ROOT}/assets/{{file}}", Permission.PUBLIC, _asset),
    *shown("/sign-in", access.sign_in, Permission.PUBLIC),
    *page("/access", "access.html", access.access, permission=Permission.KNOWN, bound=Bound.SOMEWHERE),
    *page("/{project}", "overview.html", overview.overview),
    *page("/{project}/tables", "tables.html", data.tables),
    *page("/{project}/tables/{table}", "table.html", data.table),
    *page("/{project}/tables/{table}/versions/{number}", "table.html", data.table),
    *page("/{project}/executions/{execution}", "execution.html", plan.execution),
    *page("/{project}/experiments", "experiments.html", experiments.experiments, experiments.experiments_asked),
    *page("/{project}/runs", "runs.html", experiments.runs, experiments.runs_asked),
    *page("/{project}/compare", "compare.html", experiments.comparison),
    *page("/{project}/studies", "studies.html", experiments.tunings),
    *page("/{project}/studies/{study}", "study.html", experiments.tuning),
    *page("/{project}/runs/{run}", "run.html", train.run),
    *page("/{project}/runs/{run}/file", "file.html", files.file),
    *page("/{project}/models", "models.html", release.models, narrows=True),
    *page("/{project}/models/{model}/{number}", "version.html", release.version),
    *page("/{project}/endpoints/{endpoint}", "endpoint.html", serve.endpoint),
    *page(
        "/{project}/endpoints/{endpoint}/traffic",
        "traffic.html",
        traffic.page,
        traffic.page_asked,
        permission=Permission.OPERATE,
        told=(BadInput, Blocked, NotFound),
    ),
    *page("/{project}/endpoints/{endpoint}/differences", "differences.html", differing.page),
    *page("/{project}/calls", "calls.html", calls.calls, calls.calls_asked, narrows=True),
    *page("/{project}/alerts", "alerts.html", operate.alerts, narrows=True),
    *page("/{project}/journal", "journal.html", operate.journal),
    *page("/{project}/predictions/{call}/{row}", "prediction.html", operate.prediction),
    *page("/{project}/trace", "trace.html", operate.traced),
    *shown("/{project}/find", operate.find),
    *shown("/{project}/records/{id}", operate.record),
]
