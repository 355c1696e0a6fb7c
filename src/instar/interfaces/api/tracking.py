"""Reading what was tracked over HTTP: experiments, a search over runs, histories in pages, and the files of a run."""

from __future__ import annotations

import mimetypes
from typing import Any

from instar.core.errors import BadInput
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.api.train import run_of
from instar.train import artifacts, experiment_search, experiments, histories, run_search, runs, sampling

MOST = 10_000  # of a page

# What a browser may show in our own name: nothing in these runs.
SHOWN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "application/json"})


def list_experiments(request: Request) -> Reply:
    """Experiments of a project; `?filter=`, `?order_by=` (repeatable), `?view=`, `?limit=`, `?token=` of the page before."""
    query = request.query
    page = experiment_search.search(
        request.app.store,
        [request.path["project"]],
        filter=query.get("filter", ""),
        order_by=request.query_lists.get("order_by", ()),
        view=query.get("view", "active"),
        limit=_number(query, "limit", 1000),
        token=query.get("token"),
    )
    return Reply({"experiments": [experiments.document(one) for one in page.items], "next": page.token})


def search_runs(request: Request) -> Reply:
    """Runs that pass a search, e.g. `?filter=metrics.loss < 0.5`; `?order_by=` (repeatable), `?experiment=`, `?view=`,
    `?columns=metrics.loss, params.depth` (only these are fetched), `?limit=`, `?token=` of the page before. The answer's
    `without` names the runs that lack the first value that is sorted by; they come last.
    """
    query = request.query
    with request.app.store.database.read() as tx:
        found = run_search.find(
            tx, [request.path["project"]], _experiment(request), query.get("filter", ""),
            request.query_lists.get("order_by", ()), query.get("view", "active"), _number(query, "limit", 100),
            query.get("token"),
        )  # fmt: skip
        listed = runs.load(tx, found.keys, run_search.columns(query.get("columns", "")))
    without = [run.id for run in listed if run.key in found.without]
    return Reply({"runs": [runs.document(run) for run in listed], "without": without, "next": found.token})


def count_runs(request: Request) -> Reply:
    """How many runs pass a search: `?filter=`, `?experiment=`, `?view=`."""
    query = request.query
    number = run_search.count(
        request.app.store, projects=[request.path["project"]], experiments=_experiment(request),
        filter=query.get("filter", ""), view=query.get("view", "active"),
    )  # fmt: skip
    return Reply({"count": number})


def curve(request: Request) -> Reply:
    """One metric of a run as at most `?buckets=` (200) stretches: smallest, largest, mean, first and last value of each;
    `?from=` and `?to=` are steps. Values that are no number, or infinite, are null.
    """
    query, run = request.query, run_of(request)
    found = sampling.sampled(
        request.app.store, run.id, request.path["metric"], buckets=_number(query, "buckets", 200),
        start_step=_step(query, "from"), end_step=_step(query, "to"),
    )  # fmt: skip
    return Reply({"metric": request.path["metric"], "buckets": [sampling.document(bucket) for bucket in found]})


def page_of_history(request: Request) -> Reply:
    """Values of one metric of a run by step, in pages: `?limit=`, `?token=` of the page before."""
    run = run_of(request)
    page = histories.history(
        request.app.store, run.id, request.path["metric"], limit=_number(request.query, "limit", MOST),
        token=request.query.get("token"),
    )  # fmt: skip
    values = [
        {"step": one.step, "value": one.value if one.value == one.value else None, "at": one.at.isoformat()}
        for one in page.items
    ]
    return Reply({"metric": request.path["metric"], "values": values, "next": page.token})


def list_files(request: Request) -> Reply:
    """All files of a run, with their size in bytes and the digest of their content."""
    found = artifacts.all_artifacts(request.app.store, run_of(request).id)
    return Reply({"artifacts": [{"path": one.path, "size": one.size, "blob": one.blob} for one in found]})


def send_file(request: Request) -> Reply:
    """One file of a run. Pages and pictures with scripts are sent as downloads: they must not act as this server's own."""
    path = request.path["path"]
    file = artifacts.open(request.app.store, run_of(request).id, path)
    media = mimetypes.guess_type(path)[0] or "application/octet-stream"
    headers = {
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "content-disposition": "inline" if media in SHOWN else "attachment",
    }
    return Reply(file=file, media_type=media, headers=headers)


def _experiment(request: Request) -> list[str] | None:
    name = request.query.get("experiment")
    if name is None:
        return None
    found = experiments.by_name(request.app.store, request.path["project"], name)
    return [found.id] if found is not None else []


def _number(query: Any, name: str, most: int) -> int:
    text = query.get(name, str(most))
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise BadInput(f"that is no {name}", found=text[:40], asked=f"a number from 1 to {MOST}")
    return int(text)


def _step(query: Any, name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.removeprefix("-").isdigit() or len(text) > 19:
        raise BadInput("that is no step", found=text[:40], asked="a whole number")
    return int(text)


routes = [
    Route("GET", "/api/projects/{project}/experiments", Permission.READ, list_experiments),
    Route("GET", "/api/projects/{project}/search/runs", Permission.READ, search_runs),
    Route("GET", "/api/projects/{project}/search/count", Permission.READ, count_runs),
    Route("GET", "/api/projects/{project}/runs/{run}/curve/{metric}", Permission.READ, curve),
    Route("GET", "/api/projects/{project}/runs/{run}/history/{metric}", Permission.READ, page_of_history),
    Route("GET", "/api/projects/{project}/runs/{run}/artifacts", Permission.READ, list_files),
    Route("GET", "/api/projects/{project}/runs/{run}/artifacts/{path:path}", Permission.READ, send_file),
]
