"""What two versions said in tensors on the same predictions, in the form of scores and decisions, when they are compared.

Outputs of text, whole numbers and truth values decide: the versions differ where one of these does. Of the other numbers it
counts how far apart they are, where they are farthest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

SCHEMA: dict[str, Any] = {
    "prediction": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "a": pl.Float64,
    "a_decision": pl.Int64,
    "b": pl.Float64,
    "b_decision": pl.Int64,
    "difference": pl.Float64,
    "differs": pl.Boolean,
}


class Apart(NamedTuple):
    """How two answers differ.

    Attributes:
        a, b: The two values that are farthest apart; null where no output has such numbers.
        a_decision, b_decision: Where one whole number decides.
        difference: How far `a` and `b` are apart, 0 or more.
        differs: Null where nothing decides.
    """

    a: float | None
    a_decision: int | None
    b: float | None
    b_decision: int | None
    difference: float | None
    differs: bool | None


def output_pairs(frame: pl.DataFrame, first: int, second: int) -> pl.DataFrame:
    """All predictions on which both answered with tensors, by `SCHEMA`."""
    if "outputs" not in frame.columns:
        return pl.DataFrame(schema=SCHEMA)
    one, other = _outputs(frame, first), _outputs(frame, second)
    times = dict(frame.select("prediction", "at").iter_rows())
    rows = [(name, times[name], *_apart(said, other[name])) for name, said in one.items() if name in other]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("at", "prediction")


def _outputs(frame: pl.DataFrame, version: int) -> dict[str, Mapping[str, Any]]:
    """Outputs of a version by prediction: those that were returned have a column, all others are written as JSON."""
    answered = pl.element().struct.field("version") == version
    chosen = pl.col("answers").list.eval(pl.element().filter(answered).struct.field("outputs")).list.first()
    found = {name: json.loads(text) for name, text in frame.select("prediction", chosen).drop_nulls().iter_rows()}
    own = frame.filter(pl.col("version") == version, pl.col("status") < 400).select("prediction", "outputs")
    found.update((name, outputs) for name, outputs in own.iter_rows() if outputs is not None)
    return found


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> Apart:
    far: tuple[float, float, float] | None = None
    differs: bool | None = None
    decisions: list[tuple[Any, Any]] = []
    for name in one:
        a, b = _values(one[name]), _values(other.get(name))
        if a is None or b is None:
            continue
        if not any(isinstance(value, float) for value in (*a, *b)):
            differs = bool(differs) or a != b
            decisions.append((a, b))
            continue
        if len(a) != len(b) or [x is None for x in a] != [y is None for y in b]:
            differs = True
            continue
        for x, y in zip(a, b, strict=True):
            if x is not None and math.isfinite(x) and math.isfinite(y) and (far is None or abs(y - x) > far[2]):
                far = float(x), float(y), abs(y - x)
    a_decision, b_decision = _decided(decisions)
    x, y, difference = far or (None, None, None)
    return Apart(x, a_decision, y, b_decision, difference, differs)


def _values(tensor: Mapping[str, Any] | None) -> list[Any] | None:
    """Of a sampled tensor its ends."""
    if tensor is None or tensor["data"] is None:
        return None
    return [*tensor["data"], *(tensor.get("tail") or ())]


def _decided(decisions: list[tuple[Any, Any]]) -> tuple[int | None, int | None]:
    if len(decisions) == 1 and all(len(side) == 1 and isinstance(side[0], int) for side in decisions[0]):
        (a,), (b,) = decisions[0]
        return int(a), int(b)
    return None, None
