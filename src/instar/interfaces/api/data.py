"""The API of data: table versions to read, and rows to land, for consoles, notebooks and other programs."""

from __future__ import annotations

import io

import polars as pl

from instar.core.errors import BadInput, EmptySource, MalformedRequest, NotFound, SourceError
from instar.core.identity import Permission
from instar.data import explore, profile, tables
from instar.data.ingest import Delivery, land
from instar.data.kind import declared_checks
from instar.data.tables import TableVersion
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.moments import moment_if

MOST_SAMPLE_ROWS = 1000


def list_tables(request: Request) -> Reply:
    """The newest version of each table."""
    found = tables.tables(request.app.store, request.path["project"])
    return Reply({"tables": [explore.record(version) for version in found]})


def list_versions(request: Request) -> Reply:
    """All versions of a table, oldest first."""
    project, table = request.path["project"], request.path["table"]
    found = tables.versions(request.app.store, project, table)
    if not found:
        raise NotFound("there is no such table", subject=f"table {table} of project {project}")
    return Reply({"versions": [explore.record(version) for version in found]})


def show(request: Request) -> Reply:
    """One version: `?version=3` (default the newest), `?sample=5` for its first rows."""
    sample = request.query.get("sample", "0")
    if not sample.isdecimal() or int(sample) > MOST_SAMPLE_ROWS:
        raise MalformedRequest("that many rows cannot be shown", found=sample, asked=f"0 to {MOST_SAMPLE_ROWS}")
    return Reply(explore.describe(request.app.store, _version(request, "version"), int(sample)))


def show_profile(request: Request) -> Reply:
    """The profile of one version."""
    version = _version(request, "version")
    return Reply({"ref": version.ref, **profile.summary(tables.read_profile(request.app.store, version))})


def diff(request: Request) -> Reply:
    """What changed from version `?from=1` to `?to=2` (default the newest)."""
    return Reply(explore.diff(request.app.store, _version(request, "from"), _version(request, "to")))


def land_rows(request: Request) -> Reply:
    """Land a body of JSON lines in a source; `?name=` is the delivery, `?partition=`, `?landed_at=` as in `ingest`."""
    project = request.app.project_name
    if request.path["project"] != project:
        raise NotFound(
            "this server does not run that project", subject=f"project {request.path['project']}", asked=project
        )
    step = request.app.pipeline.step(request.path["table"])
    if step.kind != "source":
        raise BadInput("only a source can be landed in", subject=f"table {step.name}", found=step.kind)
    if not request.body.strip():
        raise EmptySource("it has no rows", subject=f"source {step.name}", asked="JSON lines")
    try:
        rows = pl.read_ndjson(io.BytesIO(request.body), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        first = str(error).split("\n")[0]
        raise SourceError(
            "the body cannot be read as JSON lines", subject=f"source {step.name}", found=first
        ) from error
    landed = moment_if(request.query.get("landed_at"), "landed_at") or request.app.store.clock.event()
    delivery = Delivery(request.query.get("name", "api"), rows, landed)
    version = land(
        request.app.store,
        project,
        step,
        [delivery],
        request.query.get("partition"),
        cause=request.actor.name,
        checks=declared_checks(request.app.pipeline, step.name),
    )
    return Reply(explore.record(version), 201)


def _version(request: Request, parameter: str) -> TableVersion:
    number = request.query.get(parameter)
    table = request.path["table"]
    return tables.get(request.app.store, request.path["project"], f"{table}@{number}" if number else table)


_TABLE = "/api/projects/{project}/tables/{table}"
routes = [
    Route("GET", "/api/projects/{project}/tables", Permission.READ, list_tables),
    Route("GET", _TABLE, Permission.READ, show),
    Route("GET", _TABLE + "/versions", Permission.READ, list_versions),
    Route("GET", _TABLE + "/profile", Permission.READ, show_profile),
    Route("GET", _TABLE + "/diff", Permission.READ, diff),
    Route("POST", _TABLE + "/rows", Permission.WRITE_DATA, land_rows),
]
