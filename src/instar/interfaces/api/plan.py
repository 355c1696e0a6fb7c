"""The API of planning: the contract in force, and the state of the pipeline's steps."""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core import journal
from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Bound, Reply, Request, Route
from instar.plan import executions, output, runner
from instar.plan.executions import Execution

MOST = 10_000  # executions in one answer


def projects(request: Request) -> Reply:
    """The projects that the store holds records of, and the one that this server works for."""
    with request.app.store.database.read() as tx:
        known = journal.projects(tx)
    seen = [name for name in known if request.caller.may(Permission.READ, name)]
    return Reply({"projects": seen, "own": request.app.project_name})


def contract(request: Request) -> Reply:
    """The project's contract: objective, problems, costs, gates and policies, with its revision."""
    _own(request)
    project = request.app.project
    return Reply(
        {"project": project.name, "revision": project.revision, "contract": msgspec.to_builtins(project.contract)}
    )


def steps(request: Request) -> Reply:
    """The steps of the pipeline, and which of them are current."""
    _own(request)
    app = request.app
    found = runner.status(app.store, app.project, app.pipeline, app.kinds())
    return Reply([one.record() for one in found])


def executions_of(request: Request) -> Reply:
    """Executions, the newest first: of one `step`, or of one walk (`pipe`); at most `limit`."""
    query = request.query
    limit = query.get("limit", "100")
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST:
        raise BadInput("that is no limit", found=limit, asked=f"a number from 1 to {MOST}")
    with request.app.store.database.read() as tx:
        found = executions.listed(
            tx, request.path["project"], step=query.get("step"), pipe=query.get("pipe"), limit=int(limit)
        )
    return Reply([execution_record(one) for one in found])


def execution(request: Request) -> Reply:
    """One execution: why it ran, what its key is made of, and what it made."""
    one = _execution(request)
    return Reply({**execution_record(one), "reasons": one.reasons, "ingredients": one.ingredients})


def execution_log(request: Request) -> Reply:
    """What an execution printed and logged, as text; of one that runs, so far."""
    one = _execution(request)
    text = output.read(request.app.store, one.id, one.log)
    return Reply(text.encode(), media_type="text/plain; charset=utf-8")


def schedules_of(request: Request) -> Reply:
    """The schedules of the contract in effect: when each is due next, and what came of the last time."""
    from instar.operate import schedules

    _own(request)
    return Reply([one.record() for one in schedules.standing(request.app.loop())])


def execution_record(one: Execution) -> dict[str, Any]:
    """An execution as JSON values, without the long list of what its key is made of."""
    return {
        "execution": one.id,
        "pipe": one.pipe,
        "step": one.step,
        "partition": one.partition,
        "kind": one.kind,
        "state": one.state,
        "attempt": one.attempt,
        "cause": one.cause,
        "actor": one.actor,
        "key": one.key,
        "parameters": one.parameters,
        "started": one.started.isoformat(),
        "ended": one.ended.isoformat() if one.ended else None,
        "ref": one.ref,
        "digest": one.digest,
        "error": one.error,
        "log": one.log,
    }


def _execution(request: Request) -> Execution:
    name = request.path["execution"]
    with request.app.store.database.read() as tx:
        found = executions.get(tx, name)
    if found is None or found.project != request.path["project"]:
        raise NotFound("there is no such execution", subject=name, next_step="See instar status.")
    return found


def _own(request: Request) -> None:
    if request.path["project"] != request.app.project_name:
        raise NotFound(
            "this server works for another project",
            subject=f"project {request.path['project']}",
            found=request.app.project_name,
        )


_PROJECT = "/api/projects/{project}"
routes = [
    Route("GET", "/api/projects", Permission.READ, projects, bound=Bound.SOMEWHERE, narrows=True),
    Route("GET", "/api/projects/{project}/contract", Permission.READ, contract),
    Route("GET", "/api/projects/{project}/steps", Permission.READ, steps),
    Route("GET", f"{_PROJECT}/executions", Permission.READ, executions_of),
    Route("GET", f"{_PROJECT}/executions/{{execution}}", Permission.READ, execution),
    Route("GET", f"{_PROJECT}/executions/{{execution}}/log", Permission.READ, execution_log),
    Route("GET", f"{_PROJECT}/schedules", Permission.READ, schedules_of),
]
