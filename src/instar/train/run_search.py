"""Searching runs: filter, order, pages, counts and only the columns asked for, over one experiment or a whole store.

    page = search(store, experiments=[id], filter="metrics.cost < 0.5 AND params.model = 'trees'", order_by=["metrics.cost"])
    page = search(store, experiments=[id], filter=..., order_by=..., token=page.token)      # goes on where the first ended

Runs without the value that is sorted by come last, whatever the direction; equal ones follow by start, newest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train import run_fields
from instar.train.pages import Page, read_token, write_token
from instar.train.run_records import Columns, Run, load
from instar.train.search_grammar import parse, parse_orders
from instar.train.search_order import Sorting, sorting
from instar.train.search_query import Condition, condition, owners
from instar.train.search_words import And, Comparison, Order, Tree
from instar.train.tracking_tables import ACTIVE, DELETED, run_table

FEW = 4000  # runs that may be looked at one by one
WORTH = 5  # so many runs are passed along an index in the time that one is looked up
VIEWS = {"active": (ACTIVE,), "deleted": (DELETED,), "all": (ACTIVE, DELETED)}


@dataclass(frozen=True)
class Found:
    """Which runs a page has, as their keys in order, and which of them lack the first value that is sorted by."""

    keys: Sequence[int]
    without: frozenset[int]
    token: str | None


def search(
    store: Store,
    *,
    projects: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: str = "active",
    limit: int = 100,
    token: str | None = None,
    columns: Columns | None = None,
) -> Page[Run]:
    """A page of the runs that pass a filter.

    Args:
        projects: Only runs of these projects; None is all.
        experiments: Only runs of experiments with these ids; None is all.
        order_by: Keys such as `metrics.loss DESC`; the newest first without.
        view: `"active"`, `"deleted"` or `"all"`.
        limit: At most so many.
        token: From the page before; the other arguments must be the same.
        columns: Which metrics, parameters and tags to fetch.

    Raises:
        BadInput: The filter, the order, the view or the token cannot be read.
    """
    with store.database.read() as tx:
        found = find(tx, projects, experiments, filter, order_by, view, limit, token)
        return Page(load(tx, found.keys, columns), found.token)


def count(
    store: Store,
    *,
    projects: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    filter: str = "",
    view: str = "active",
) -> int:
    """How many runs pass a filter, without fetching them.

    Raises:
        BadInput: The filter or the view cannot be read.
    """
    with store.database.read() as tx:
        wanted = _conditions(tx, projects, experiments, filter, view)
        return int(tx.execute(sa.select(sa.func.count()).select_from(run_table).where(*wanted)).scalar_one())


def find(
    tx: Transaction,
    projects: Sequence[str] | None,
    experiments: Sequence[str] | None,
    filter: str,
    order_by: Sequence[str],
    view: str,
    limit: int,
    token: str | None,
) -> Found:
    """The keys of a page of runs, for those who fetch what they need of them themselves.

    Raises:
        BadInput: The filter, the order, the view or the token cannot be read.
    """
    wanted = _conditions(tx, projects, experiments, filter, view)
    orders = parse_orders(list(order_by), run_fields.VOCABULARY)
    sort = sorting(orders, run_fields.PLACES, run_table, run_fields.TIES, run_fields.OPTIONAL, tx.dialect.name)
    question = [sorted(projects or ()), sorted(experiments or ()), filter, list(order_by), view]
    if token:
        wanted.append(sort.after(read_token(question, token, len(sort.keys))))
    rows = _page(tx, sort, wanted, limit)
    more = len(rows) > limit
    rows = rows[:limit]
    ranked = _has_rank(orders)
    without = frozenset(row[0] for row in rows if ranked and row[1] == 2)
    return Found([row[0] for row in rows], without, write_token(question, rows[-1][1:]) if more else None)


def columns(text: str) -> Columns | None:
    """What to fetch for a list of fields such as `metrics.loss, params.depth`; None, for all, when it names none.

    Raises:
        BadInput: It cannot be read.
    """
    if not text.strip():
        return None
    fields = [order.field for order in parse_orders([text], run_fields.VOCABULARY)]
    keys = {kind: [one.key for one in fields if one.kind == kind] for kind in ("metric", "parameter", "tag")}
    return Columns(keys["metric"], keys["parameter"], keys["tag"], artifacts=False)


def _page(tx: Transaction, sort: Sorting, wanted: Sequence[Condition], limit: int) -> list[tuple[Any, ...]]:
    columns = [key.label(f"sort_{number}") for number, (key, _) in enumerate(sort.keys)]
    query = sa.select(run_table.c.key, *columns).select_from(sort.source).where(*wanted)
    return [tuple(row) for row in tx.execute(query.order_by(*sort.clauses()).limit(limit + 1)).fetchall()]


def _has_rank(orders: Sequence[Order]) -> bool:
    if not orders:
        return False
    first = orders[0].field
    return first.kind != "attribute" or first.key in run_fields.OPTIONAL


def _conditions(
    tx: Transaction, projects: Sequence[str] | None, experiments: Sequence[str] | None, filter: str, view: str
) -> list[Condition]:
    if view not in VIEWS:
        raise BadInput("there is no such view", found=view, asked=", ".join(VIEWS))
    at = run_table.c
    found: list[Condition] = []
    chosen: list[tuple[sa.ColumnElement[str], list[str]]] = [
        (column, list(values))
        for column, values in ((at.project, projects), (at.experiment_id, experiments), (at.lifecycle, VIEWS[view]))
        if values is not None
    ]
    tree = parse(filter, run_fields.VOCABULARY)
    few = _few(tx, tree)
    if few is not None and _more(tx, chosen, len(few) * WORTH):
        keys = sa.text("SELECT value FROM json_each(:few)").bindparams(few=f"[{','.join(map(str, few))}]")
        found.append(at.key.in_(keys))
        # No index of all runs then: an expression has none.
        chosen = [(column.concat(""), values) for column, values in chosen]
    found += [column == values[0] if len(values) == 1 else column.in_(values) for column, values in chosen]
    return found if tree is None else [*found, condition(tree, run_fields.PLACES, tx.dialect.name)]


def _more(tx: Transaction, chosen: Sequence[tuple[sa.ColumnElement[str], list[str]]], number: int) -> bool:
    """Whether there are more than so many runs before the filter."""
    some = (
        sa.select(run_table.c.key)
        .where(*(column.in_(values) for column, values in chosen))
        .limit(number + 1)
        .subquery()
    )
    return int(tx.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()) > number


def _few(tx: Transaction, tree: Tree | None) -> list[int] | None:
    """Keys of the only runs that can pass, when one parameter or tag is asked for that few have; else None.

    SQLite counts nothing, so it cannot know that a value is rare. Asked for FEW rows of the index, it shows. PostgreSQL knows.
    """
    if tx.dialect.name == "postgresql":
        return None
    parts = tree.parts if isinstance(tree, And) else (tree,)
    found: list[int] | None = None
    for part in parts:
        query = owners(part, run_fields.PLACES, FEW) if isinstance(part, Comparison) else None
        if query is not None:
            keys = list(tx.execute(query).scalars())
            if len(keys) < FEW and (found is None or len(keys) < len(found)):
                found = keys
    return found
