"""From the tree of a filter to SQL: each search hands in where its fields are kept; the answer is one condition.

A record that has no such value answers no to every comparison but `IS NULL`, so that `NOT` is plain logic. Metrics that are
no number are unequal to everything. `LIKE` heeds case and `ILIKE` does not (for ASCII letters); `%` and `_` cannot be escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from instar.core.database import microseconds
from instar.core.errors import BadInput
from instar.train.run_values import halves
from instar.train.search_words import And, Comparison, Not, Or, Tree, Vocabulary

Condition = sa.ColumnElement[bool]
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")
_FARTHEST = 2**63 - 1


@dataclass(frozen=True)
class Rows:
    """Values that a record logged under keys, one row each: metrics, parameters or tags.

    Attributes:
        owner: The column which names the record.
        rest: What a text has beyond the head in `value`; None where it is kept whole.
        nan: 1 where the value is no number; None where that cannot be.
    """

    table: sa.FromClause
    owner: str
    name: str
    value: str
    rest: str | None = None
    nan: str | None = None


@dataclass(frozen=True)
class Places:
    """Where one kind of record keeps what its vocabulary names.

    Attributes:
        key: The column by which rows name the record.
        attributes: The expression of each attribute; a time is in microseconds since 1970.
        rows: The rows of each open kind.
        special: Conditions for fields that are neither, by (kind, key): made from operator, value and dialect.
    """

    vocabulary: Vocabulary
    key: sa.ColumnElement[Any]
    attributes: Mapping[str, sa.ColumnElement[Any]]
    rows: Mapping[str, Rows] = field(default_factory=dict)
    special: Mapping[tuple[str, str], Callable[[Comparison, str], Condition]] = field(default_factory=dict)


def condition(tree: Tree, places: Places, dialect: str) -> Condition:
    """The condition that a tree is.

    Raises:
        BadInput: A time in it cannot be read.
    """
    match tree:
        case And(parts):
            return sa.and_(*(condition(part, places, dialect) for part in parts))
        case Or(parts):
            return sa.or_(*(condition(part, places, dialect) for part in parts))
        case Not(part):
            return sa.not_(condition(part, places, dialect))
        case Comparison():
            return _comparison(tree, places, dialect)


def compare(comparison: Comparison, expression: sa.ColumnElement[Any], dialect: str) -> Condition:
    """One comparison of an expression; false where the expression has no value.

    Raises:
        BadInput: A time cannot be read.
    """
    if comparison.operator == "IS NULL":
        return expression.is_(None)
    if comparison.operator == "IS NOT NULL":
        return expression.is_not(None)
    if comparison.field.type == "time":
        found = _times(comparison, expression)
    elif comparison.field.type == "number":
        found = _numbers(comparison, expression)
    else:
        found = _texts(comparison, expression, dialect)
    return sa.and_(expression.is_not(None), found)


def like(expression: sa.ColumnElement[Any], pattern: str, dialect: str, *, fold: bool) -> Condition:
    """Whether a text is like a pattern in which `%` is any text and `_` any character."""
    if dialect == "postgresql":
        return expression.ilike(pattern, escape="") if fold else expression.like(pattern, escape="")
    if fold:
        return expression.op("LIKE", is_comparison=True)(pattern)
    # SQLite's LIKE folds case, its GLOB does not.
    glob = re.sub(r"[\[*?]", lambda sign: f"[{sign.group()}]", pattern).replace("%", "*").replace("_", "?")
    return expression.op("GLOB", is_comparison=True)(glob)


def _comparison(comparison: Comparison, places: Places, dialect: str) -> Condition:
    kind, key = comparison.field.kind, comparison.field.key
    special = places.special.get((kind, key))
    if special is not None:
        return special(comparison, dialect)
    if kind in places.rows:
        return _logged(comparison, places.rows[kind], places.key, dialect)
    return compare(comparison, places.attributes[key], dialect)


def _logged(comparison: Comparison, rows: Rows, key: sa.ColumnElement[Any], dialect: str) -> Condition:
    table = rows.table.alias()
    owner, value = table.c[rows.owner], table.c[rows.value]
    named = table.c[rows.name] == comparison.field.key
    if comparison.operator in ("IS NULL", "IS NOT NULL"):
        there = sa.exists().where(owner == key, named)
        return there if comparison.operator == "IS NOT NULL" else sa.not_(there)
    if rows.nan is not None:
        return sa.exists().where(owner == key, named, _metric(comparison, value, table.c[rows.nan]))
    rest = table.c[rows.rest] if rows.rest else None
    if comparison.operator in ("=", "IN"):
        found = _equal(comparison, value, rest)
    elif comparison.operator in ("!=", "NOT IN"):
        found = sa.not_(_equal(comparison, value, rest))
    else:
        found = _texts(comparison, value if rest is None else value + sa.func.coalesce(rest, ""), dialect)
    return sa.exists().where(owner == key, named, found)


def owners(comparison: Comparison, places: Places, most: int) -> sa.Select[Any] | None:
    """A query of at most so many records that may pass a comparison, from the index of values alone: the others cannot.

    None where no index answers it.
    """
    rows = places.rows.get(comparison.field.kind)
    if rows is None or rows.rest is None or comparison.operator not in ("=", "IN"):
        return None
    at, wanted = rows.table.c, comparison.value
    heads = {halves(str(one))[0] for one in (wanted if isinstance(wanted, tuple) else (wanted,))}
    named = at[rows.name] == comparison.field.key
    return sa.select(at[rows.owner]).where(named, at[rows.value].in_(sorted(heads))).limit(most)


def _equal(comparison: Comparison, value: sa.ColumnElement[Any], rest: sa.ColumnElement[Any] | None) -> Condition:
    """Whether a text kept in two halves is the one, or one of those, asked for; never NULL."""
    wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    if rest is None:
        return value.in_(wanted)
    cut = [halves(str(text)) for text in wanted]
    short, long = [head for head, tail in cut if tail is None], [(head, tail) for head, tail in cut if tail is not None]
    found = [sa.and_(value == short[0] if len(short) == 1 else value.in_(short), rest.is_(None))] if short else []
    found += [sa.and_(value == head, rest.is_not(None), sa.func.coalesce(rest, "") == tail) for head, tail in long]
    return sa.or_(*found)


def _metric(comparison: Comparison, value: sa.ColumnElement[Any], nan: sa.ColumnElement[Any]) -> Condition:
    found = _numbers(comparison, value)
    return sa.or_(found, nan == 1) if comparison.operator in ("!=", "NOT IN") else sa.and_(found, nan == 0)


def _numbers(comparison: Comparison, value: sa.ColumnElement[Any]) -> Condition:
    operator, wanted = comparison.operator, comparison.value
    if isinstance(wanted, tuple):
        known = [float(one) for one in wanted if not math.isnan(float(one))]
        return value.in_(known) if operator == "IN" else value.not_in(known)
    assert isinstance(wanted, int | float)
    number = float(wanted)
    if math.isnan(number):
        return sa.true() if operator == "!=" else sa.false()
    return _OPERATORS[operator](value, number)


_OPERATORS: Mapping[str, Callable[[Any, Any], Condition]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
}


def _texts(comparison: Comparison, value: sa.ColumnElement[Any], dialect: str) -> Condition:
    operator, wanted = comparison.operator, comparison.value
    if isinstance(wanted, tuple):
        return value.in_(wanted) if operator == "IN" else value.not_in(wanted)
    if operator in ("=", "!="):
        return _OPERATORS[operator](value, wanted)
    found = like(value, str(wanted), dialect, fold="ILIKE" in operator)
    return sa.not_(found) if operator.startswith("NOT") else found


def _times(comparison: Comparison, value: sa.ColumnElement[Any]) -> Condition:
    operator, wanted = comparison.operator, comparison.value
    if isinstance(wanted, tuple):
        found = sa.or_(*(_time("=", value, span(one)) for one in wanted))
        return found if operator == "IN" else sa.not_(found)
    assert wanted is not None
    return _time(operator, value, span(wanted))


def _time(operator: str, value: sa.ColumnElement[Any], wanted: tuple[int, int]) -> Condition:
    """Compare with a span of time: a moment is equal to it when it lies within."""
    first, after = wanted
    if operator in ("=", "!="):
        within = sa.and_(value >= first, value < after)
        return within if operator == "=" else sa.not_(within)
    return {">": value >= after, ">=": value >= first, "<": value < first, "<=": value < after}[operator]


def span(wanted: str | int | float) -> tuple[int, int]:
    """The span that a time stands for, in microseconds: a whole millisecond, a whole day, or one microsecond.

    >>> span(5), span("1970-01-02")
    ((5000, 6000), (86400000000, 172800000000))

    Raises:
        BadInput: It is no time.
    """
    if isinstance(wanted, str):
        try:
            moment = datetime.fromisoformat(wanted)
            first = microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise BadInput(
                "that is no time", found=wanted[:60], asked="such as 2026-01-31 or 2026-01-31T12:00"
            ) from None
        return first, first + (timedelta(days=1) // timedelta(microseconds=1) if _DAY.match(wanted) else 1)
    if isinstance(wanted, float) and not math.isfinite(wanted):
        return (_FARTHEST, _FARTHEST) if wanted > 0 else (-_FARTHEST, -_FARTHEST)
    whole = math.floor(wanted)
    bounds = [whole * 1000, whole * 1000 + 1000] if whole == wanted else [whole * 1000 + 1000] * 2
    first, after = (max(-_FARTHEST, min(_FARTHEST, bound)) for bound in bounds)
    return first, after
