"""Pages about experiments: the list of them, runs that a search finds, runs side by side, and studies of tuning."""

from __future__ import annotations

from typing import Any

from instar.core.errors import BadInput, NotFound
from instar.interfaces.api.routes import Request
from instar.interfaces.comparison.document import MOST_RUNS, compare
from instar.interfaces.tuning.report import report
from instar.train import experiment_search, run_search, studies
from instar.train import experiments as train_experiments
from instar.train.run_records import Columns, load
from instar.train.runs import get_run

PAGE = 50  # runs on one page
MOST_EXPERIMENTS = 200
MOST_STUDIES = 100
MOST_COLUMNS = 12


def experiments(request: Request) -> dict[str, Any]:
    """The experiments of a project, newest first, with how many runs each has."""
    store, project = request.app.store, request.path["project"]
    view = request.query.get("view", "active")
    found = experiment_search.search(
        store, [project], filter=request.query.get("filter", ""), view=view, limit=MOST_EXPERIMENTS,
        token=request.query.get("token"),
    )  # fmt: skip
    listed = [
        {**vars(one), "runs": run_search.count(store, experiments=[one.id], view=view)} for one in found.items
    ]  # fmt: skip
    return {**experiments_asked(request), "experiments": listed, "next": found.token}


def experiments_asked(request: Request) -> dict[str, Any]:
    """The form above the list, as it was filled in."""
    asked = {"filter": request.query.get("filter", ""), "view": request.query.get("view", "active")}
    return {"project": request.path["project"], "asked": asked}


def runs(request: Request) -> dict[str, Any]:
    """Runs that a search finds, in the order asked for, a page at a time."""
    store, project, query = request.app.store, request.path["project"], request.query
    form = runs_asked(request)
    asked = form["asked"]
    orders = [one.strip() for one in asked["order"].split(",") if one.strip()]
    within = [asked["experiment"]] if asked["experiment"] else None
    chosen = _columns(asked["columns"])
    with store.database.read() as tx:
        found = run_search.find(
            tx, [project], within, asked["filter"], orders, asked["view"], PAGE, query.get("token") or None
        )
        listed = load(tx, found.keys, _wanted(chosen))
    total = run_search.count(store, projects=[project], experiments=within, filter=asked["filter"], view=asked["view"])
    return {
        **form,
        "columns": [f"{kind}.{name}" for kind, name in chosen],
        "chosen": chosen,
        "runs": listed,
        "without": [run.id for run in listed if run.key in found.without],
        "total": total,
        "next": found.token,
    }


def runs_asked(request: Request) -> dict[str, Any]:
    """The form above the list as it was filled in, and the name of the experiment that the list is about."""
    asked = {name: request.query.get(name, "") for name in ("filter", "order", "experiment", "view", "columns")}
    asked["view"] = asked["view"] or "active"
    name = train_experiments.get(request.app.store, asked["experiment"]).name if asked["experiment"] else ""
    return {"project": request.path["project"], "asked": asked, "experiment": name}


def comparison(request: Request) -> dict[str, Any]:
    """Runs side by side: what differs between them."""
    project, names = request.path["project"], list(request.query_lists.get("run", ()))
    if not 1 <= len(names) <= MOST_RUNS:
        raise BadInput(
            "so many runs cannot be compared", found=len(names), asked=f"1 to {MOST_RUNS}",
            next_step="Choose some in the list of runs.",
        )  # fmt: skip
    found = [get_run(request.app.store, name) for name in names]
    for run in found:
        if run.project != project:  # do not show a reader of one project another's runs
            raise NotFound("there is no such run in this project", subject=run.id)
    return {
        "project": project,
        "document": compare(request.app.store, found),
        "metric": request.query.get("metric") or None,
    }


def tunings(request: Request) -> dict[str, Any]:
    """Studies of tuning, newest first."""
    project = request.path["project"]
    found = studies.studies(request.app.store, project, limit=MOST_STUDIES)
    return {"project": project, "studies": [studies.document(one) for one in found]}


def tuning(request: Request) -> dict[str, Any]:
    """One study: its short list by cost, what matters, all trials."""
    app, project = request.app, request.path["project"]
    found = studies.get(app.store, request.path["study"])
    if found.project != project:
        raise NotFound("there is no such study in this project", subject=found.id)
    own = app.project_if_any
    problem = own.contract.problem.get(found.problem) if own is not None and own.name == project else None
    unit = problem.cost.unit if problem is not None else "cost"
    return {"project": project, "report": report(app.store, found, app.search(found), unit)}


def _columns(text: str) -> list[tuple[str, str]]:
    """Columns as people write them: `metrics.loss, params.rate`."""
    kinds = {
        "metrics": "metrics",
        "metric": "metrics",
        "params": "parameters",
        "parameters": "parameters",
        "tags": "tags",
    }
    found = []
    for one in (part.strip() for part in text.split(",")):
        kind, dot, name = one.partition(".")
        if one and (not dot or kind not in kinds):
            raise BadInput("that is no column", found=one, asked="metrics.NAME, params.NAME or tags.NAME")
        if one:
            found.append((kinds[kind], name.strip("`")))
    if len(found) > MOST_COLUMNS:
        raise BadInput("so many columns fit no page", found=len(found), asked=f"at most {MOST_COLUMNS}")
    return found


def _wanted(chosen: list[tuple[str, str]]) -> Columns:
    if not chosen:
        return Columns(tags=(), artifacts=False)
    names = {kind: [name for one, name in chosen if one == kind] for kind in ("metrics", "parameters", "tags")}
    return Columns(names["metrics"], names["parameters"], names["tags"], artifacts=False)
