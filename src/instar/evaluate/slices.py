"""Slices: the parts of the judged rows for which quality is asked separately, so that no group pays for the average.

A contract names columns; every value of a column is a slice. A column of numbers with many values is cut at its quartiles,
and rare values of a column with very many are put together, so that a report stays readable.

    >>> import polars as pl
    >>> [(s.name, s.rows) for s in cut_slices(pl.DataFrame({"origin": ["JFK", "LGA", "JFK"]}), ["origin"])]
    [('origin=JFK', 2), ('origin=LGA', 1)]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from instar.core.errors import ContractError

# Values a column may have before its rare ones are put together.
MOST_VALUES = 40
MISSING = "(missing)"
REST = "(rest)"


@dataclass(frozen=True)
class Slice:
    """Rows that share a value of a column.

    Attributes:
        column, value: What they share, as text.
        index: Positions of its rows, shape (rows,).
    """

    column: str
    value: str
    index: np.ndarray[Any, Any]

    @property
    def name(self) -> str:
        return f"{self.column}={self.value}"

    @property
    def rows(self) -> int:
        return len(self.index)


def cut_slices(frame: pl.DataFrame, columns: Sequence[str]) -> list[Slice]:
    """All slices of `frame` by `columns`, largest first within a column.

    Raises:
        ContractError: A column is not in the frame.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ContractError(
            "a slice names a column which the judged table does not have",
            subject=f"gates.slices, {missing[0]!r}",
            found=", ".join(frame.columns),
            next_step="Name a column of the gold table, or add the column to it.",
        )
    return [part for column in columns for part in _by_value(column, _labels(frame[column]))]


def _labels(values: pl.Series) -> pl.Series:
    if values.dtype.is_numeric() and values.n_unique() > MOST_VALUES:
        return _quartiles(values)
    labels = values.cast(pl.String).fill_null(MISSING)
    counts = labels.value_counts(sort=True)
    if counts.height <= MOST_VALUES:
        return labels
    kept = counts[labels.name].head(MOST_VALUES - 1).to_list()
    return labels.to_frame().select(
        pl.when(pl.col(labels.name).is_in(kept)).then(labels.name).otherwise(pl.lit(REST)).alias(labels.name)
    )[labels.name]


def _quartiles(values: pl.Series) -> pl.Series:
    edges = [values.quantile(q, "nearest") for q in (0.25, 0.5, 0.75)]
    cuts = sorted({edge for edge in edges if edge is not None})
    middle = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(cuts)]
    names = [f"below {cuts[0]:g}", *middle, f"{cuts[-1]:g} and above"]
    places = np.searchsorted(np.asarray(cuts, dtype=np.float64), values.fill_null(cuts[0]).to_numpy(), side="right")
    known = values.is_not_null().to_list()
    return pl.Series(values.name, [names[int(p)] if ok else MISSING for p, ok in zip(places, known, strict=True)])


def _by_value(column: str, labels: pl.Series) -> Iterator[Slice]:
    grouped = (
        labels.alias("value")
        .to_frame()
        .with_row_index("at")
        .group_by("value")
        .agg(pl.col("at"), pl.len().alias("rows"))
    )
    for value, positions, _ in grouped.sort(["rows", "value"], descending=[True, False]).iter_rows():
        yield Slice(column, value, np.asarray(positions, dtype=np.int64))
