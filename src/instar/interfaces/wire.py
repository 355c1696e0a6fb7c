"""Rows, times and errors as the wire has them: what a client sends to a server, and what a refusal of the server stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from instar.core import errors
from instar.core.errors import BadInput, InstarError, MalformedRequest, Unavailable, WrongShape

if TYPE_CHECKING:
    import polars as pl

# Rows by position, or columns by name.
Rows = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]

# For refusals that do not name a class of ours: a proxy's, say.
BY_STATUS: dict[int, type[InstarError]] = {
    400: BadInput,
    401: errors.Unauthenticated,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    429: errors.TooManyCalls,
    503: Unavailable,
}


def columns_of(rows: Rows | pl.DataFrame) -> dict[str, list[Any]]:
    """Rows in any accepted form as columns by name, in values that JSON has.

    Raises:
        WrongShape: There are no rows, or they do not have the same columns.
    """
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        frame: Any = rows
        columns = frame.to_dict(as_series=False) if hasattr(frame, "lazy") else frame.to_dict("list")
    elif isinstance(rows, Mapping):
        columns = {name: list(values) for name, values in rows.items()}
    else:
        columns = _columns_of_rows(rows)
    lengths = {len(values) for values in columns.values()}
    if lengths in (set(), {0}):
        raise WrongShape("there are no rows to predict", asked="at least one row")
    if len(lengths) > 1:
        raise WrongShape("the columns have different lengths", found=", ".join(map(str, sorted(lengths))))
    return {str(name): [plain(value) for value in values] for name, values in columns.items()}


def _columns_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = list(rows[0]) if rows else []
    for place, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            different = sorted(row.keys() ^ rows[0].keys())
            raise WrongShape(
                f"row {place} has other columns than row 0",
                found=", ".join(different),
                next_step="Give every row the same columns; a missing value is None.",
            )
    return {name: [row[name] for row in rows] for name in names}


def datatype_of(name: str, data: Sequence[Any]) -> str:
    """The V2 datatype of a column's values.

    Raises:
        MalformedRequest: They are of a kind that the protocol does not have.
    """
    kinds = {type(value) for value in data if value is not None}
    if kinds <= {bool} and kinds:
        return "BOOL"
    if kinds <= {int} and kinds:
        return "INT64"
    if kinds <= {int, float}:
        return "FP64"
    if kinds <= {str}:
        return "BYTES"
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise MalformedRequest(
        "its values cannot be sent", subject=f"column {name}", found=found, asked="numbers, truth values or texts"
    )


def error_of(status: int, body: bytes) -> InstarError:
    """The error that a refusal stands for: of the class that the server raised, or by its status."""
    try:
        facts = msgspec.json.decode(body)
        text, name = str(facts["error"]), str(facts.get("type") or facts.get("kind") or "")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        facts, text, name = {}, body[:300].decode(errors="replace") or f"the server answers {status}", ""
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, InstarError)):
        kind = BY_STATUS.get(status, InstarError)
    text, _, next_step = text.partition("\nNext: ")
    found, asked, subject = facts.get("found"), facts.get("asked"), str(facts.get("subject") or "")
    given = [f"{word} {value}" for word, value in (("found", found), ("asked for", asked)) if value is not None]
    what = text.removesuffix(".").removesuffix("; " + ", ".join(given))
    return kind(what.removeprefix(f"{subject}: "), subject=subject, found=found, asked=asked, next_step=next_step)


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN is missing; numpy's scalars by their own way of becoming Python's."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if hasattr(value, "item") and not isinstance(value, str | int | float | bool):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        return moment(value)
    return value.isoformat() if isinstance(value, date) else value


def moment(value: datetime) -> str:
    """An aware time in RFC 3339.

    Raises:
        BadInput: It has no time zone.
    """
    if value.tzinfo is None:
        raise BadInput("the time has no zone", found=value.isoformat(), asked="an aware datetime")
    return value.isoformat()
