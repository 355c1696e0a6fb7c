"""Reading a fitted column encoder into a table, when a model is packed: what does it make of each value of a column?

The fitted transformer is asked, never re-implemented: it is given every known value, a missing one and one it never saw,
and the vectors it answers with become the `Encoding` of the manifest. That works for any transformer that looks at one
column at a time (ordinal, one-hot, target encoders, those of a project); whether it does is tested on real rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.train.bundle import Encoding, Field, Value, Vector
from instar.train.portable import NAN

Transform = Callable[[pl.DataFrame], NDArray[np.float64]]

# Wider or longer tables are not worth a place in a manifest.
MOST_VALUES, MOST_CELLS = 5000, 2_000_000
PROOF_ROWS = 500


class NotLiftable(Exception):
    """The transformer cannot be written as tables of values; says why."""


@dataclass(frozen=True)
class Probe:
    """Answers of a transformer to one column's values, the other columns held still; one row a value."""

    values: list[Value]
    known: NDArray[np.float64]
    missing: NDArray[np.float64]
    unknown: NDArray[np.float64]


def lift(transform: Transform, rows: pl.DataFrame, known: Sequence[Sequence[Any]], offset: int) -> list[Field]:
    """The fields of a fitted transformer over the columns of `rows`.

    Args:
        transform: From a frame with these columns to a matrix of shape (n, width).
        rows: Rows that the transformer was fitted on.
        known: For each column the values that the transformer says it knows, beyond those in `rows`.
        offset: Position of its first output in the model's matrix.

    Raises:
        NotLiftable: It has too many values, refuses unknown ones, or looks at more than one column at a time.
    """
    base = rows.head(1)
    values = [_values(rows[name], more) for name, more in zip(rows.columns, known, strict=True)]
    first = transform(base)[0]
    if sum(map(len, values)) * len(first) > MOST_CELLS:
        raise NotLiftable(f"its tables would have more than {MOST_CELLS} cells")
    probes = [_probe(transform, base, name, column) for name, column in zip(rows.columns, values, strict=True)]
    owners = _owners(probes, first)
    fields = [
        _field(name, probe, np.flatnonzero(owners == index), offset)
        for index, (name, probe) in enumerate(zip(rows.columns, probes, strict=True))
    ]
    _prove(transform, rows.head(PROOF_ROWS), fields, offset, len(first))
    return [field for field in fields if field.at]


def compose(encoding: Encoding, position: int, second: Encoding) -> Encoding:
    """`encoding` followed by `second` on the number at `position` of its vectors."""
    table = dict(zip(second.values, second.codes, strict=True))

    def then(vector: Vector) -> Vector:
        number = vector[position]
        (code,) = second.missing if number is None else table.get(number, second.unknown)
        return (*vector[:position], code, *vector[position + 1 :])

    return Encoding(
        encoding.values, tuple(then(code) for code in encoding.codes), then(encoding.missing), then(encoding.unknown)
    )


def _values(column: pl.Series, more: Sequence[Any]) -> list[Value]:
    if column.dtype.is_float():
        raise NotLiftable(f"column {column.name} has no list of values")
    seen = set(column.unique().drop_nulls().to_list())
    kinds = (str,) if column.dtype == pl.String else (int, float)  # a Boolean is an int
    # Encoders list their categories as numpy scalars, with None or NaN for missing ones.
    plain = (value.item() if isinstance(value, np.generic) else value for value in more)
    seen.update(value for value in plain if isinstance(value, kinds) and value == value)
    if len(seen) > MOST_VALUES:
        raise NotLiftable(f"column {column.name} has more than {MOST_VALUES} values")
    return sorted(seen)


def _probe(transform: Transform, base: pl.DataFrame, name: str, values: list[Value]) -> Probe:
    dtype = base.schema[name]

    def ask(cells: list[Any]) -> NDArray[np.float64]:
        column = pl.Series(name, cells, dtype=dtype)
        return transform(base[[0] * len(cells)].with_columns(column))

    try:
        unknown = ask([_unseen(values, dtype)])
    except Exception as error:
        raise NotLiftable(f"it refuses values of column {name} that it has not seen") from error
    try:
        missing = ask([None])
    except Exception:  # then the native form refuses it too, and the column is not nullable
        missing = unknown
    return Probe(values, ask(list(values)), missing[0], unknown[0])


def _unseen(values: list[Value], dtype: pl.DataType) -> Any:
    if dtype == pl.String:
        return "\x00never seen"
    if dtype == pl.Boolean:
        return None if len(values) == 2 else not values[0]
    return max((int(value) for value in values), default=0) + 1_000_003


def _owners(probes: list[Probe], first: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which column each output belongs to: the one that it changes with. An output that never changes is the first's."""
    owners = np.zeros(len(first), dtype=np.int64)
    owned = np.zeros(len(first), dtype=bool)
    for index, probe in enumerate(probes):
        answers = np.vstack([probe.known, probe.missing, probe.unknown])
        changes = ~(_same(answers, first).all(axis=0))
        if (changes & owned).any():
            raise NotLiftable("an output depends on more than one column")
        owners[changes] = index
        owned |= changes
    return owners


def _field(name: str, probe: Probe, outputs: NDArray[np.int64], offset: int) -> Field:
    encoding = Encoding(
        values=tuple(probe.values),
        codes=tuple(_vector(row[outputs]) for row in probe.known),
        missing=_vector(probe.missing[outputs]),
        unknown=_vector(probe.unknown[outputs]),
    )
    return Field(name, tuple(int(output) + offset for output in outputs), encoding)


def _prove(transform: Transform, rows: pl.DataFrame, fields: list[Field], offset: int, width: int) -> None:
    from instar.train.portable import fill

    asked = transform(rows)
    shifted = [Field(field.column, tuple(at - offset for at in field.at), field.encoding) for field in fields]
    found = fill(shifted, {name: rows[name].to_list() for name in rows.columns}, width)
    if not _same(found, asked).all():
        raise NotLiftable("it does not look at one column at a time")


def _same(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _vector(row: NDArray[np.float64]) -> Vector:
    return tuple(None if np.isnan(number) else float(number) for number in row)


__all__ = ["NAN", "NotLiftable", "compose", "lift"]
