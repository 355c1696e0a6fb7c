"""The order of a search and the pages cut from it: by any fields, those without a value last, every line in one place.

Sort values are made so that none is NULL: a rank (0 has a value, 1 is no number, 2 has none) goes before each value that
may be missing. So the place of a line is a list of plain values, and "after that place" is a plain condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from instar.core.errors import BadInput
from instar.train.search_query import Places
from instar.train.search_words import Order


@dataclass(frozen=True)
class Sorting:
    """What to join and to sort by.

    Attributes:
        source: The record's table with what the order needs joined to it.
        keys: Expressions that are never NULL, each with whether it ascends; the last ones make every place unique.
    """

    source: sa.FromClause
    keys: Sequence[tuple[sa.ColumnElement[Any], bool]]

    def clauses(self) -> list[sa.ColumnElement[Any]]:
        """What stands after ORDER BY."""
        return [key.asc() if ascending else key.desc() for key, ascending in self.keys]

    def after(self, place: Sequence[Any]) -> sa.ColumnElement[bool]:
        """The lines after a place."""
        found: sa.ColumnElement[bool] | None = None
        for (key, ascending), value in reversed(list(zip(self.keys, place, strict=True))):
            beyond = key > value if ascending else key < value
            found = beyond if found is None else sa.or_(beyond, sa.and_(key == value, found))
        assert found is not None
        # Said once more in the form that an index on the first key can use.
        first, ascending = self.keys[0]
        return sa.and_(first >= place[0] if ascending else first <= place[0], found)


def sorting(
    orders: Sequence[Order],
    places: Places,
    source: sa.FromClause,
    ties: Sequence[tuple[str, bool]],
    optional: frozenset[str],
    dialect: str,
) -> Sorting:
    """How to sort by `orders`, and where those are equal by the attributes `ties`.

    Args:
        ties: Attributes that every record has, each with whether it ascends; the last is unique.
        optional: Attributes that a record may lack.

    Raises:
        BadInput: Records cannot be sorted by such a field.
    """
    keys: list[tuple[sa.ColumnElement[Any], bool]] = []
    named = set()
    for order in orders:
        kind, key = order.field.kind, order.field.key
        if kind in places.rows:
            source, ranked = _joined(order, places, source, dialect)
            keys += ranked
        elif kind == "attribute":
            named.add(key)
            expression = _plain(places.attributes[key], order.field.type, dialect)
            if key in optional:
                keys.append((sa.case((expression.is_(None), 2), else_=0), True))
                expression = sa.func.coalesce(expression, "" if order.field.type == "text" else 0)
            keys.append((expression, order.ascending))
        else:
            raise BadInput(f"nothing can be sorted by a {kind}", subject="order", found=f"{kind} {key}")
    for key, ascending in ties:
        if key not in named:
            kept = places.vocabulary.field("attribute", key)
            keys.append((_plain(places.attributes[key], kept.type if kept else "text", dialect), ascending))
    return Sorting(source, keys)


def _joined(
    order: Order, places: Places, source: sa.FromClause, dialect: str
) -> tuple[sa.FromClause, list[tuple[sa.ColumnElement[Any], bool]]]:
    rows = places.rows[order.field.kind]
    table = rows.table.alias()
    owner, value = table.c[rows.owner], table.c[rows.value]
    source = source.outerjoin(table, sa.and_(owner == places.key, table.c[rows.name] == order.field.key))
    missing: list[tuple[sa.ColumnElement[bool], int]] = [(owner.is_(None), 2)]
    if rows.nan is not None:
        missing.append((table.c[rows.nan] == 1, 1))
    rank = sa.case(*missing, else_=0)
    text = order.field.type == "text"  # the head of a text decides; beyond it texts count as equal
    return source, [
        (rank, True),
        (sa.func.coalesce(_plain(value, order.field.type, dialect), "" if text else 0.0), order.ascending),
    ]


def _plain(expression: sa.ColumnElement[Any], type_: str, dialect: str) -> sa.ColumnElement[Any]:
    # Texts are sorted by their characters' numbers everywhere, not by the language of one server.
    return expression.collate("C") if type_ == "text" and dialect == "postgresql" else expression
