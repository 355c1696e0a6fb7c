"""What values an input may have beside its datatype, as somebody declared it: in the contract, with a version, and at each call.

Nothing is declared by itself: the least and the greatest value that a training table had are no limits, since tomorrow's may be
beyond them; that is for monitors to see.

    Limits(minimum=0, maximum=10_000).outside([1400.0, -3.0])      # -> 1
    Limits(values=("AA", "UA")).describe()                         # -> "one of AA, UA"
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from instar.core.errors import BadInput

MOST_VALUES = 10_000
SHOWN_VALUES = 10


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """The values that one input may have. A missing value is no value: `nullable` says whether there may be such.

    Attributes:
        minimum, maximum: Of a number, both included.
        values: All that there may be: texts, or numbers.
    """

    minimum: int | float | None = None
    maximum: int | float | None = None
    values: tuple[str | int | float, ...] | None = None

    def outside(self, values: Sequence[Any]) -> int | None:
        """Position of the first value that is none of them; None where all are. None and NaN are missing values."""
        low, high = self.minimum, self.maximum
        known = None if self.values is None else self._known
        if known is None and values:
            with contextlib.suppress(TypeError):  # some are missing
                if (low is None or min(values) >= low) and (high is None or max(values) <= high):
                    return None
        for at, value in enumerate(values):
            if value is None or value != value:
                continue
            if known is not None and (value.decode(errors="replace") if type(value) is bytes else value) not in known:
                return at
            if (low is not None and value < low) or (high is not None and value > high):
                return at
        return None

    @functools.cached_property
    def _known(self) -> frozenset[str | int | float]:
        return frozenset(self.values or ())

    def describe(self) -> str:
        """In words, for an error or a page."""
        if self.values is not None:
            shown = ", ".join(map(_spoken, self.values[:SHOWN_VALUES]))
            more = len(self.values) - SHOWN_VALUES
            return f"one of {shown}" + (f" and {more} more" if more > 0 else "")
        if self.maximum is None:
            return f"{_spoken(self.minimum)} or more"
        return (
            f"{_spoken(self.maximum)} or less"
            if self.minimum is None
            else f"{_spoken(self.minimum)} to {_spoken(self.maximum)}"
        )

    def fault(self, datatype: str | None = None) -> str:
        """What is wrong with the declaration, for an input of a datatype where it is known; empty if nothing."""
        ranged = self.minimum is not None or self.maximum is not None
        if not ranged and self.values is None:
            return "it declares nothing"
        if ranged and self.values is not None:
            return "it has a range and values: one is enough"
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            return f"its least value, {_spoken(self.minimum)}, is above its greatest, {_spoken(self.maximum)}"
        if self.values is not None:
            kinds = {type(value) for value in self.values}
            if not (kinds and (kinds == {str} or kinds <= {int, float})) or len(self.values) > MOST_VALUES:
                return f"its values are not texts, or numbers, from 1 to {MOST_VALUES} of them"
        if datatype == "BOOL":
            return "a truth value has no limits"
        if datatype == "BYTES" and (ranged or type((self.values or ("",))[0]) is not str):
            return "a text has no range, and its values are texts"
        if datatype not in (None, "BYTES") and self.values is not None and type(self.values[0]) is str:
            return f"its values are texts, and the input is {datatype}"
        return ""


def read_limits(text: str) -> Limits:
    """Limits as somebody writes them: `0..10000`, `0..`, `..1`, or values with commas between them.

    Raises:
        BadInput: They are none of these.
    """
    if ".." not in text:
        values = [value.strip() for value in text.split(",")]
        numbers = [_number(value) for value in values]
        return Limits(values=tuple(values) if None in numbers else tuple(one for one in numbers if one is not None))
    low, _, high = text.partition("..")
    bounds = [None if not bound.strip() else _number(bound) for bound in (low, high)]
    if any(bound is None and said.strip() for bound, said in zip(bounds, (low, high), strict=True)):
        raise BadInput("that is no range", found=repr(text), asked="as in 0..10000, 0.. or ..1")
    return Limits(bounds[0], bounds[1])


def read_named(texts: Sequence[str]) -> dict[str, Limits]:
    """Limits by input, each written as `INPUT=0..10000` or `INPUT=A,B`.

    Raises:
        BadInput: One is not.
    """
    found = {}
    for one in texts:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise BadInput("that is no limit", found=repr(one[:100]), asked="INPUT=0..10000, or INPUT=A,B")
        found[name] = read_limits(text)
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _spoken(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
