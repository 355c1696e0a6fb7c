"""Searching experiments by name, time and tag, in the language of all searches; newest first unless asked otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train.experiments import Experiment, with_tags
from instar.train.pages import Page, read_token, write_token
from instar.train.search_grammar import parse, parse_orders
from instar.train.search_order import sorting
from instar.train.search_query import Condition, Places, Rows, condition
from instar.train.search_words import Type, Vocabulary, prefixes
from instar.train.tracking_tables import ACTIVE, DELETED, experiment_table, experiment_tag_table

VIEWS = {"active": (ACTIVE,), "deleted": (DELETED,), "all": (ACTIVE, DELETED)}

_ATTRIBUTES: dict[str, tuple[str, Type]] = {
    "experiment_id": ("experiment_id", "text"),
    "id": ("experiment_id", "text"),
    "name": ("name", "text"),
    "project": ("project", "text"),
    "creation_time": ("creation_time", "time"),
    "created": ("creation_time", "time"),
    "last_update_time": ("last_update_time", "time"),
    "updated": ("last_update_time", "time"),
    "lifecycle": ("lifecycle", "text"),
    "lifecycle_stage": ("lifecycle", "text"),
    "state": ("lifecycle", "text"),
}
VOCABULARY = Vocabulary(prefixes("attribute", "tag"), {"tag": "text"}, {"attribute": _ATTRIBUTES})
TIES = (("creation_time", False), ("experiment_id", True))

_at = experiment_table.c
PLACES = Places(
    VOCABULARY,
    _at.id,
    {
        "experiment_id": _at.id,
        "name": _at.name,
        "project": _at.project,
        "creation_time": sa.type_coerce(_at.created, sa.BigInteger),
        "last_update_time": sa.type_coerce(_at.updated, sa.BigInteger),
        "lifecycle": _at.state,
    },
    {"tag": Rows(experiment_tag_table, "experiment", "name", "value")},
)


def search(
    store: Store,
    projects: Sequence[str] | None,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: str = "active",
    limit: int = 1000,
    token: str | None = None,
) -> Page[Experiment]:
    """A page of the experiments that pass a filter.

    Args:
        projects: Only of these projects; None is all.
        view: `"active"`, `"deleted"` or `"all"`.
        token: From the page before; the other arguments must be the same.

    Raises:
        BadInput: The filter, the order, the view or the token cannot be read.
    """
    if view not in VIEWS:
        raise BadInput("there is no such view", found=view, asked=", ".join(VIEWS))
    with store.database.read() as tx:
        dialect = tx.dialect.name
        wanted: list[Condition] = [_at.state.in_(VIEWS[view])]
        if projects is not None:
            wanted.append(_at.project.in_(projects))
        tree = parse(filter, VOCABULARY)
        if tree is not None:
            wanted.append(condition(tree, PLACES, dialect))
        orders = parse_orders(list(order_by), VOCABULARY)
        sort = sorting(orders, PLACES, experiment_table, TIES, frozenset(), dialect)
        question = [sorted(projects or ()), filter, list(order_by), view]
        if token:
            wanted.append(sort.after(read_token(question, token, len(sort.keys))))
        keys = [key.label(f"sort_{number}") for number, (key, _) in enumerate(sort.keys)]
        query = sa.select(experiment_table, *keys).select_from(sort.source).where(*wanted)
        rows = tx.execute(query.order_by(*sort.clauses()).limit(limit + 1)).all()
        found = with_tags(tx, [_experiment(row) for row in rows[:limit]])
    place = tuple(rows[limit - 1])[len(experiment_table.c) :] if len(rows) > limit else None
    return Page(found, write_token(question, place) if place is not None else None)


def _experiment(row: Any) -> Experiment:
    return Experiment(**{column.name: getattr(row, column.name) for column in experiment_table.c})
