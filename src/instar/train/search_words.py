"""The words of the search language: the tree that a filter becomes, and what may be asked of one kind of record.

A filter asks for records of the past: `metrics.loss < 0.5 AND (params.model = 'trees' OR tags."team name" LIKE 'rail%')`.
`search_grammar` makes a tree of the text, `search_query` makes SQL of the tree, and `write` makes the text again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Type = Literal["text", "number", "time"]  # a time is asked for in milliseconds since 1970, or as an ISO date or time
Value = str | int | float | tuple[str | int | float, ...] | None

TEXT_OPERATORS = ("=", "!=", "LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL")
NUMBER_OPERATORS = ("=", "!=", ">", ">=", "<", "<=", "IN", "NOT IN", "IS NULL", "IS NOT NULL")


@dataclass(frozen=True)
class Field:
    """What is asked about: a kind (`metric`, `parameter`, `tag`, `attribute`, `dataset`) and a key within it."""

    kind: str
    key: str
    type: Type


@dataclass(frozen=True)
class Comparison:
    """One question. A record that has no such value answers no to all but `IS NULL`."""

    field: Field
    operator: str
    value: Value = None


@dataclass(frozen=True)
class And:
    """All of them."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Or:
    """At least one of them."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Not:
    """All records but those."""

    part: Tree


Tree = Comparison | And | Or | Not


@dataclass(frozen=True)
class Order:
    """One key of an order; records without the value come last, whatever the direction."""

    field: Field
    ascending: bool = True


@dataclass(frozen=True)
class Vocabulary:
    """What may be asked of one kind of record.

    Attributes:
        prefixes: The kind that each prefix stands for, e.g. `params` for `parameter`.
        open: Kinds whose keys are what was logged, and the type of their values.
        closed: Kinds whose keys are fixed: the name and type behind each key and its other spellings.
    """

    prefixes: Mapping[str, str]
    open: Mapping[str, Type]
    closed: Mapping[str, Mapping[str, tuple[str, Type]]]

    def field(self, kind: str, key: str) -> Field | None:
        """The field of that kind and key; None when records have no such attribute."""
        if kind in self.open:
            return Field(kind, key, self.open[kind])
        found = self.closed[kind].get(key)
        return Field(kind, *found) if found else None


PREFIXES = {
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "parameter"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("attr", "attribute", "attributes", "run"), "attribute"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
CANONICAL = {
    "metric": "metrics",
    "parameter": "params",
    "tag": "tags",
    "attribute": "attributes",
    "dataset": "datasets",
}


def prefixes(*kinds: str) -> dict[str, str]:
    """The prefixes of some kinds, for a vocabulary."""
    return {prefix: kind for prefix, kind in PREFIXES.items() if kind in kinds}


def write(tree: Tree) -> str:
    """The tree as text which is read back as the same tree."""
    match tree:
        case And(parts):
            return " AND ".join(_within(part) for part in parts)
        case Or(parts):
            return " OR ".join(_within(part) for part in parts)
        case Not(part):
            return f"NOT ({write(part)})"
        case Comparison(field, operator, value):
            subject = f"{CANONICAL[field.kind]}.{quoted(field.key)}"
            return f"{subject} {operator}" if value is None else f"{subject} {operator} {_value(value)}"


def quoted(text: str) -> str:
    """A key or a text in quotes: single ones where they can be read back, double ones, else the form with escapes."""
    for quote in "'\"":
        if quote not in text and not text.endswith("\\"):
            return f"{quote}{text}{quote}"
    return "e'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _within(tree: Tree) -> str:
    return f"({write(tree)})" if isinstance(tree, And | Or) else write(tree)


def _value(value: Value) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_listed(one) for one in value)})"
    return quoted(value) if isinstance(value, str) else repr(value)


def _listed(value: str | int | float) -> str:
    # Texts in a list are read as Python reads them, as MLflow does: a backslash is an escape there.
    if isinstance(value, str) and "\\" in value:
        return "e'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return quoted(value) if isinstance(value, str) else repr(value)
