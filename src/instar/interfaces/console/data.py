"""Pages about tables: the list by zone, and one version with its schema, profile, checks and neighbours in the lineage."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from instar.core import lineage
from instar.core.store import Store
from instar.data import column_profile, versions
from instar.data.column_profile import ColumnProfile
from instar.data.tables import read_profile
from instar.data.versions import ZONES, TableVersion
from instar.interfaces.api.routes import Request

A_PAGE = 25  # versions
BARS = 24


def tables(request: Request) -> dict[str, Any]:
    """The tables of a project."""
    project = request.path["project"]
    return {"project": project, "tables": in_order(versions.tables(request.app.store, project))}


def in_order(found: Iterable[TableVersion]) -> list[TableVersion]:
    """Tables in the order in which data flows: bronze, silver, gold, quarantine; by name within a zone."""
    return sorted(found, key=lambda one: (ZONES.index(one.zone), one.table))


def table(request: Request) -> dict[str, Any]:
    """One version of a table: schema, profile, checks, what it came from and what came of it."""
    store, project, name = request.app.store, request.path["project"], request.path["table"]
    chosen = request.path.get("number")
    version = versions.get(store, project, f"{name}@{chosen}" if chosen else name)
    before = int(request.query["before"]) if request.query.get("before", "").isdecimal() else None
    known = [one for one in reversed(versions.versions(store, project, name)) if before is None or one.number < before]
    files = versions.files(store, version)
    with store.database.read() as tx:
        causes, effects = lineage.up(tx, version.id, 1), lineage.down(tx, version.id, 1)
    return {
        "project": project,
        "table": name,
        "version": version,
        "columns": columns(store, version),
        "files": {"count": len(files), "bytes": sum(file.size for file in files)},
        "causes": causes,
        "effects": effects,
        "versions": known[:A_PAGE],
        "older": known[A_PAGE - 1].number if len(known) > A_PAGE else None,
    }


def columns(store: Store, version: TableVersion) -> list[dict[str, Any]]:
    """Each column of a version: name, type, summary of its profile, and the heights of its histogram."""
    profile = read_profile(store, version)
    found = []
    for name, datatype in version.schema.items():
        known = profile.columns.get(name)
        found.append(
            {
                "name": name,
                "datatype": datatype,
                "key": name in version.key,
                "summary": column_profile.summary(known) if known else None,
                "bars": bars(known) if known else [],
            }
        )
    return found


def bars(column: ColumnProfile) -> list[float]:
    """Heights from 0 to 1 of a small histogram: numbers in equal bins between their 1st and 99th percentile, else top values."""
    if column.type in column_profile.NUMERIC:
        bounds = column_profile.quantile(column, [0.01, 0.99])
        if not bounds or bounds[0] >= bounds[1]:
            return []
        low, high = bounds
        edges = [low + (high - low) * place / BARS for place in range(BARS + 1)]
        below = column_profile.shares_up_to(column, edges)
        # The first bin is closed on both sides, or its own lower edge would be lost.
        shares = [below[1], *(b - a for a, b in pairwise(below[1:]))]
    else:
        shares = [count / column.rows for _, count in column_profile.heavy_hitters(column, BARS)]
    top = max(shares, default=0.0)
    return [round(share / top, 4) for share in shares] if top > 0 else []
