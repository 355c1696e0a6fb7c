"""One comparison of the search language answered without a database: for what is not kept in one, and to check what is."""

from __future__ import annotations

import re
import string

from instar.train.search_query import span
from instar.train.search_words import Comparison

_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # as far as SQLite folds case


def matches(comparison: Comparison, value: str | int | float | None) -> bool:
    """Whether a value passes a comparison; None is a missing value, and a time is in microseconds since 1970."""
    operator, wanted = comparison.operator, comparison.value
    if operator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (operator == "IS NULL")
    if value is None:
        return False
    if operator.startswith("NOT "):
        return not matches(Comparison(comparison.field, operator.removeprefix("NOT "), wanted), value)
    if isinstance(wanted, tuple):
        return any(matches(Comparison(comparison.field, "=", one), value) for one in wanted)
    if operator in ("LIKE", "ILIKE"):
        return _like(str(value), str(wanted), fold=operator == "ILIKE")
    if comparison.field.type == "time":
        assert isinstance(value, int)
        assert wanted is not None
        first, after = span(wanted)
        answers = {"=": first <= value < after, ">": value >= after, ">=": value >= first}
        answers |= {"!=": not answers["="], "<": not answers[">="], "<=": not answers[">"]}
        return answers[operator]
    if comparison.field.type == "text":
        return (value == wanted) == (operator == "=")
    assert isinstance(wanted, int | float)
    left, right = float(value), float(wanted)
    answers = {"=": left == right, "!=": left != right, ">": left > right, ">=": left >= right}
    answers |= {"<": left < right, "<=": left <= right}
    return answers[operator]


def _like(text: str, pattern: str, *, fold: bool) -> bool:
    if fold:
        text, pattern = text.translate(_FOLD), pattern.translate(_FOLD)
    expression = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None
