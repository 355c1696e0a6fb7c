"""Following rows through pinned table versions by declared keys, for a trace that never guesses.

A row is followed into a table version that it was made from when that table declares a key, the row carries all of the
key's columns, rows with that key are there, and they agree with the row on every other column in which both hold a
value. Then the hop is *row*. In every other case it is *version only*, and the hop says why: no key, a missing column,
no such row, or rows of that key which hold other values (as when a join took the observation of an earlier hour).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from instar.core import lineage
from instar.core.database import Transaction
from instar.core.store import Store
from instar.data import tables
from instar.data.tables import TableVersion
from instar.operate.trace_records import ROW, Hop, describe

SHOWN_ROWS = 5
MOST_HOPS = 40  # table versions one walk names; an endless chain of appends says nothing more
# What bronze adds to a row: where it came from.
LANDED = {"_source": "source", "_row": "source_row", "_landed_at": "landed_at"}


@dataclass(frozen=True)
class Found:
    """Rows of a table version, or why there are none to name."""

    rows: tuple[dict[str, Any], ...] = ()
    why: str = ""


def entity_row(store: Store, version: TableVersion, entity: str) -> Found:
    """The row of a version that a call named by its entity: one of the key's columns, read as text, equals it."""
    if not version.key:
        return Found(why=f"{version.table} declares no key")
    names = [name for name in version.key if name in version.schema]
    same = pl.any_horizontal(pl.col(name).cast(pl.String) == entity for name in names)
    rows = tables.scan(store, version).filter(same).head(SHOWN_ROWS).collect().to_dicts() if names else []
    if len(rows) != 1:
        return Found(why=f"{len(rows) or 'no'} rows of {version.ref} have the key {entity}")
    return Found((rows[0],))


def rows_behind(store: Store, version: TableVersion, row: dict[str, Any]) -> Found:
    """The rows of `version` that `row`, of a table made from it, came from."""
    if not version.key:
        return Found(why=f"{version.table} declares no key")
    missing = [name for name in version.key if row.get(name) is None]
    if missing:
        return Found(why=f"the row does not carry {missing[0]}, part of the key of {version.table}")
    same = pl.all_horizontal(pl.col(name) == pl.lit(row[name]) for name in version.key)
    found = tables.scan(store, version).filter(same).head(SHOWN_ROWS).collect()
    if not found.height:
        return Found(why=f"{version.ref} has no row of that key")
    shared = [name for name in found.columns if name in row and name not in version.key]
    agreeing = [one for one in found.to_dicts() if all(_equal(one[name], row[name]) for name in shared)]
    if not agreeing:
        return Found(why=f"the rows of {version.ref} with that key hold other values")
    return Found(tuple(agreeing))


def _equal(left: Any, right: Any) -> bool:
    # What is not known on one side, as the truth of a row to be served, contradicts nothing.
    return left is None or right is None or left == right


def table_hop(
    store: Store, project: str, version: TableVersion, found: Found, relation: str, budget: list[int] | None = None
) -> Hop:
    """The hop of a table version, with the rows found in it, and behind it all that it was made from."""
    budget = [MOST_HOPS] if budget is None else budget
    budget[0] -= 1
    hop = describe(store, project, version.id, relation)
    facts = dict(hop.facts)
    if found.rows:
        facts["row" if len(found.rows) == 1 else "row_candidates"] = (
            found.rows[0] if len(found.rows) == 1 else list(found.rows)
        )
        facts |= {fact: found.rows[0][name] for name, fact in LANDED.items() if name in found.rows[0]}
    elif found.why:
        facts["why"] = found.why
    hop = replace(hop, facts=facts, precision=ROW if found.rows else hop.precision)
    with store.database.read() as tx:
        sources = made_from(tx, version.id)
    behind = []
    for source, how in sources:
        if budget[0] <= 0:
            break
        above = tables.get(store, project, source)
        if found.rows and above.content == version.content:
            rows = found  # restored from it: the very same rows
        elif len(found.rows) >= 1:
            rows = rows_behind(store, above, found.rows[0])
        else:
            rows = Found()
        behind.append(table_hop(store, project, above, rows, how, budget))
    return hop.to(*behind)


def made_from(tx: Transaction, version: str) -> list[tuple[str, str]]:
    """Table versions that a version was made from, with the execution or relation that made it."""
    found = []
    for edge in lineage.up(tx, version, depth=1):
        if edge.source.startswith("tver_"):
            found.append((edge.source, edge.relation))
        elif edge.source.startswith("exec_"):
            inputs = [one for one in lineage.up(tx, edge.source, depth=1) if one.source.startswith("tver_")]
            found += [(one.source, f"input of {edge.source}") for one in inputs]
    return list(dict.fromkeys(found))
