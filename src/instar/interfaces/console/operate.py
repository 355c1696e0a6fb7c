"""Pages that look back: alerts and what was done, the journal, one prediction's trace, and the way from any id to its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instar.core import journal as journals
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.data import versions
from instar.interfaces.api.operate import log_of
from instar.interfaces.api.routes import Reply, Request
from instar.interfaces.console.render import redirect, report_url, url
from instar.operate import actions, rollout, trace
from instar.operate import alerts as records
from instar.operate.belonging import require_in
from instar.release import registry
from instar.release.approval import approvals
from instar.serve.traffic import routing

A_PAGE = 100  # journal entries


def alerts(request: Request) -> dict[str, Any]:
    """Alerts, newest first, and what was done about them."""
    store, project = request.app.store, request.path["project"]
    return {
        "project": project,
        "alerts": [one for one in records.alerts(store, project) if request.caller.reaches(one.endpoint)],
        "actions": [one for one in actions.actions(store, project) if request.caller.reaches(one.endpoint)],
    }


def journal(request: Request) -> dict[str, Any]:
    """The journal, newest entries first."""
    project = request.path["project"]
    before = request.query.get("before", "")
    with request.app.store.database.read() as tx:
        found = journals.latest(tx, project, A_PAGE, before=int(before) if before.isdecimal() else None)
    older = found[-1].number if len(found) == A_PAGE and found[-1].number > 1 else None
    return {"project": project, "entries": found, "older": older}


def prediction(request: Request) -> dict[str, Any]:
    """One prediction: what was asked and answered, what became of it, and the way back to the rows of bronze."""
    store, project = request.app.store, request.path["project"]
    name = f"{request.path['call']}/{request.path['row']}"
    require_in(store, log_of(store), project, name)
    found = trace.backward(store, log_of(store), project, name)
    return {"project": project, "prediction": name, "trace": found.as_json()}


def traced(request: Request) -> dict[str, Any]:
    """The trace of any record: back to its causes, or with `?forward=1` to all that it touched."""
    store, project, name = request.app.store, request.path["project"], request.query.get("id", "")
    forward = request.query.get("forward", "") not in ("", "0", "false")
    require_in(store, log_of(store), project, name)
    walk = trace.forward if forward else trace.backward
    found = walk(store, log_of(store), project, name)
    return {"project": project, "id": name, "forward": forward, "trace": found.as_json()}


def find(request: Request) -> Reply:
    """Console: from what somebody typed to the page of that record."""
    return _see(request.app.store, request.path["project"], request.query.get("id", "").strip())


def record(request: Request) -> Reply:
    """Console: from the id of any record to its page."""
    return _see(request.app.store, request.path["project"], request.path["id"])


def _see(store: Store, project: str, name: str) -> Reply:
    kind, mark, _ = name.partition("_" if "_" in name[:6] else ":")
    if kind == "eval" and mark:
        return redirect(report_url(project, name))
    way = WAYS.get(kind) if mark else None
    if way is not None:
        return redirect(url(project, *way(store, project, name)))
    # Not an id: a table or a model by its name, as people write it.
    bare, _, number = name.partition("@")
    if any(one.table == bare for one in versions.tables(store, project)):
        return redirect(url(project, "tables", bare, *(("versions", number) if number else ())))
    if bare and registry.versions(store, project, bare):
        found = registry.find(store, project, name)
        return redirect(url(project, "models", found.model, found.number))
    raise NotFound(
        "nothing on the record has that name",
        subject=repr(name),
        asked="an id such as call_…/0, or table@3, or model@2",
    )


def _table_version(store: Store, project: str, name: str) -> tuple[object, ...]:
    found = versions.get(store, project, name)
    return "tables", found.table, "versions", found.number


def _model_version(store: Store, project: str, name: str) -> tuple[object, ...]:
    found = registry.find(store, project, name)
    return "models", found.model, found.number


def _digest(store: Store, project: str, name: str) -> tuple[object, ...]:
    for one in registry.versions(store, project):
        if one.bundle == name:
            return "models", one.model, one.number
    with store.database.read() as tx:
        if journals.entries(tx, project, kind="contract revision", subject=name):
            return ()  # the overview tells what the contract says
    raise NotFound("no bundle and no contract revision has this digest", subject=name)


def _approval(store: Store, project: str, name: str) -> tuple[object, ...]:
    for one in approvals(store, project):
        if one.id == name:
            return _model_version(store, project, one.version)
    raise NotFound("there is no such approval", subject=name)


def _revision(store: Store, project: str, name: str) -> tuple[object, ...]:
    for endpoint in routing.endpoints(store, project):
        if any(one.id == name for one in routing.history(store, endpoint.policy.endpoint)):
            return "endpoints", endpoint.policy.endpoint
    raise NotFound("there is no such policy revision", subject=name)


def _rollout(store: Store, project: str, name: str) -> tuple[object, ...]:
    found = rollout.get(store, name)
    if found.project != project:
        raise NotFound("there is no such rollout in this project", subject=name)
    return "endpoints", found.endpoint


def _prediction(store: Store, project: str, name: str) -> tuple[object, ...]:
    call, _, row = name.partition("/")
    return "predictions", call, row or "0"


# From the prefix of an id to the page that shows the record.
WAYS: dict[str, Callable[[Store, str, str], tuple[object, ...]]] = {
    "tver": _table_version,
    "run": lambda store, project, name: ("runs", name),
    "exec": lambda store, project, name: ("executions", name),
    "stdy": lambda store, project, name: ("studies", name),
    "mver": _model_version,
    "b3": _digest,
    "appr": _approval,
    "prev": _revision,
    "roll": _rollout,
    "alrt": lambda store, project, name: ("alerts",),
    "actn": lambda store, project, name: ("alerts",),
    "call": _prediction,
}
