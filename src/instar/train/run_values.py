"""Keys and values that a run logs, checked and put into the form in which they are kept; used at every write to a run.

A parameter is kept as text, which is what is searched and what MLflow's clients see, beside the kind of value that it
was, so that `3`, `3.0`, `"3"` and `True` come back as they were given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from instar.core.errors import BadInput
from instar.train.tracking_tables import HEAD

LONGEST_KEY = 250  # characters, as MLflow has it
LONGEST_NAME = 500  # characters of a run's name
LONGEST_VALUE = 500_000  # characters of a parameter or tag: a record is no place for a file
FIRST_STEP, LAST_STEP = -(2**63), 2**63 - 1
# Microseconds since 1970 of the years 1 and 9999, between which there are dates.
FIRST_MOMENT, LAST_MOMENT = -62_135_596_800_000_000, 253_402_300_799_999_999

Point = tuple[str, float, int, int]  # name, value, step, microseconds since 1970
MetricRow = tuple[str, int, int, float, int]  # name, step, microseconds, value, whether it is no number


def check_key(key: str, what: str) -> None:
    """Refuse a key that cannot be kept.

    Args:
        what: What it names, for the message: `"metric"`, `"parameter"`, `"tag"`.

    Raises:
        BadInput: It is empty, too long, or has a character that databases refuse.
    """
    if not isinstance(key, str) or not key:
        raise BadInput(f"a {what} needs a name", found=repr(key), asked="a text")
    if len(key) > LONGEST_KEY:
        raise BadInput(
            f"the name of a {what} is too long",
            subject=f"{what} {key[:40]}…",
            found=f"{len(key)} characters",
            asked=f"at most {LONGEST_KEY}",
        )
    check_text(key, f"the name of a {what}", repr(key))


def check_text(text: str, what: str, subject: str) -> None:
    """Refuse a text that a database cannot keep: with a NUL or half a character.

    Raises:
        BadInput: It is one.
    """
    if "\0" in text:
        raise BadInput(f"{what} has a NUL character", subject=subject, next_step="Leave it out: it cannot be kept.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} has half of a surrogate pair", subject=subject, asked="whole characters") from None


def check_name(name: str) -> None:
    """Refuse a name that no run can have.

    Raises:
        BadInput: It is too long, or cannot be kept.
    """
    if len(name) > LONGEST_NAME:
        raise BadInput(
            "the name of a run is too long", found=f"{len(name)} characters", asked=f"at most {LONGEST_NAME}"
        )
    check_text(name, "the name of a run", repr(name))


def check_value(text: str, what: str, key: str) -> None:
    """Refuse a value of a parameter or tag that is too long or cannot be kept.

    Raises:
        BadInput: It is one.
    """
    if not isinstance(text, str):
        raise BadInput("it is no text", subject=f"{what} {key}", found=repr(text)[:60], asked="a text")
    if len(text) > LONGEST_VALUE:
        raise BadInput(
            f"the value of a {what} is too long",
            subject=f"{what} {key}",
            found=f"{len(text)} characters",
            asked=f"at most {LONGEST_VALUE}",
            next_step="Keep it as an artifact.",
        )
    check_text(text, f"the value of a {what}", f"{what} {key}")


def halves(text: str) -> tuple[str, str | None]:
    """A value as it is kept: its head, which is indexed, and the rest."""
    return text[:HEAD], text[HEAD:] or None


def to_text(value: Any) -> tuple[str, str]:
    """A parameter's value as text, and its kind.

    >>> to_text(0.1), to_text(True), to_text([1, "a"])
    (('0.1', 'float'), ('True', 'bool'), ('[1, "a"]', 'json'))
    """
    if isinstance(value, str):
        return str(value), "text"
    if value is None or isinstance(value, bool):
        return str(value), "null" if value is None else "bool"
    if isinstance(value, int):
        return str(int(value)), "int"
    if isinstance(value, float):
        return repr(float(value)), "float"
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str), "json"
    scalar = getattr(value, "item", None)  # NumPy's and PyTorch's numbers
    if callable(scalar) and getattr(value, "ndim", 0) == 0:
        found = scalar()
        if isinstance(found, bool | int | float | str):
            return to_text(found)
    return str(value), "text"


def from_text(text: str, kind: str) -> Any:
    """The value that `to_text` made text of; tuples come back as lists, other objects as text."""
    if kind == "text":
        return text
    if kind == "json":
        return json.loads(text)
    if kind == "bool":
        return text == "True"
    if kind == "int":
        return int(text)
    return float(text) if kind == "float" else None


def parameter_rows(parameters: Mapping[str, Any]) -> list[tuple[str, str, str | None, str]]:
    """Parameters as rows: name, head, rest, kind.

    Raises:
        BadInput: A name or value cannot be kept.
    """
    rows = []
    for name, value in parameters.items():
        check_key(name, "parameter")
        text, kind = to_text(value)
        check_value(text, "parameter", name)
        rows.append((name, *halves(text), kind))
    return rows


def tag_rows(tags: Mapping[str, str]) -> list[tuple[str, str, str | None]]:
    """Tags as rows: name, head, rest.

    Raises:
        BadInput: A name or value cannot be kept.
    """
    rows = []
    for name, value in tags.items():
        check_key(name, "tag")
        check_value(value, "tag", name)
        rows.append((name, *halves(value)))
    return rows


def metric_rows(points: Sequence[Point]) -> list[MetricRow]:
    """Points of metrics as rows in the order in which they are kept: name, step, moment, value, whether it is no number.

    Raises:
        BadInput: A name cannot be kept, a value is no number, a step is beyond 64 bits, or a moment has no date.
    """
    for name in {point[0] for point in points}:
        check_key(name, "metric")
    for name, value, step, at in points:
        if type(value) is not float:
            points = [(name, _float(name, value), step, at) for name, value, step, at in points]
            break
    for whole, what, first, last in (
        ([point[2] for point in points], "a step is beyond 64 bits", FIRST_STEP, LAST_STEP),
        ([point[3] for point in points], "a time is not between the years 1 and 9999", FIRST_MOMENT, LAST_MOMENT),
    ):
        if whole and (min(whole) < first or max(whole) > last):
            raise BadInput(what, subject="metrics", found=f"{min(whole)} to {max(whole)}")
    # A thousand at a time pass here: no call and no branch for each but the one for what is no number.
    return sorted(
        [(name, step, at, value, 0) if value == value else (name, step, at, 0.0, 1) for name, value, step, at in points]
    )


def _float(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise BadInput(
            "the value of a metric is no number", subject=f"metric {name}", found=repr(value)[:60], asked="a float"
        ) from None


def latest(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """The newest of each metric of rows in order: by step, then moment, then value; any number is newer than none."""
    found = {row[0]: row for row in rows}  # the last of a name stays
    for name, row in found.items():
        if row[4]:  # it stands where 0 stands: a number below may be there at the same step and moment
            same = [one for one in rows if one[:3] == row[:3]]
            found[name] = max(same, key=lambda one: (-one[4], one[3]))
    return list(found.values())


def number(value: float, nan: int) -> float:
    """The value of a metric's row."""
    return math.nan if nan else float(value)
