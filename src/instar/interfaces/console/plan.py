"""Pages about what is wanted and the walks to it: the contract in effect, walks of the pipeline, one execution of a step."""

from __future__ import annotations

from typing import Any

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.interfaces.api.routes import Request
from instar.plan import executions, output, revisions

SHOWN_LOG = 64 * 1024  # letters of a log that its page shows, the last ones


def contract(store: Store, project: str) -> revisions.ContractRevision | None:
    """The contract in effect."""
    with store.database.read() as tx:
        return revisions.current(tx, project)


def walks(store: Store, project: str, limit: int) -> list[executions.PipelineRun]:
    """The newest walks of the pipeline."""
    with store.database.read() as tx:
        return executions.pipeline_runs(tx, project, limit)


def execution(request: Request) -> dict[str, Any]:
    """One execution of a step: why it ran, what it printed, and what it made."""
    name = request.path["execution"]
    with request.app.store.database.read() as tx:
        found = executions.get(tx, name)
    if found is None or found.project != request.path["project"]:
        raise NotFound("there is no such execution", subject=name, next_step="See instar status.")
    log = output.read(request.app.store, found.id, found.log)
    return {"project": found.project, "execution": found, "log": log[-SHOWN_LOG:], "cut": len(log) > SHOWN_LOG}
