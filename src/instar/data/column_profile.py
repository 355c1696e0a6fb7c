"""The profile of one column: its counts, range and distribution, exact while small and sketched when large.

Used by `profile` when a table version is written, and by `drift` when two profiles are compared. Sketches are those of
Apache DataSketches in their own stable binary form (what is exact is said at `EXACT_VALUES`):

- quantiles: KLL, k = 200, normalised rank error 1.3 % (one-sided, 99 % confidence);
- distinct values: HyperLogLog, 2^11 registers of 4 bits, relative standard error 2.3 %;
- heavy hitters of text: frequent items, map of 2^9; an item above 1 % of the rows is always found.
"""

from __future__ import annotations

import math
from typing import Any

import datasketches as ds
import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

EXACT_VALUES = 256  # distinct values up to which a column is kept exactly
# Numbers that repeat, as readings of an instrument do, are kept exactly up to more values: there the exact form is small
# beside the rows, and two profiles of the same rows are then equal, which those of a random sketch are not.
EXACT_REPEATED, REPEATED = 4096, 8  # distinct numbers; rows for each of them
KLL_K = 200
HLL_LOG2 = 11
FREQUENT_LOG2 = 9

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
NUMERIC = frozenset({"number", "time"})


class ColumnProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one column.

    Attributes:
        type: `"number"`, `"time"` (microseconds since 1970), `"text"`, `"boolean"` or `"other"` (only counted).
        rows: Rows, missing ones included.
        nulls: Missing values.
        nans: Values that are not a number.
        minimum, maximum: Range of the values that are numbers; None when there are none.
        mean, squares: Mean, and sum of squared distances from it, of the finite numbers.
        finite: Numbers that are finite.
        values, counts: All distinct values and how often each occurs, when exact; numbers in order.
        quantiles, distinct, frequent: Sketches in their own form, when not exact.
    """

    type: str
    rows: int
    nulls: int = 0
    nans: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float = 0.0
    squares: float = 0.0
    finite: int = 0
    values: list[Any] | None = None
    counts: list[int] | None = None
    quantiles: bytes | None = None
    distinct: bytes | None = None
    frequent: bytes | None = None

    @property
    def present(self) -> int:
        """Values that are neither null nor NaN."""
        return self.rows - self.nulls - self.nans

    @property
    def exact(self) -> bool:
        """Is the distribution known exactly?"""
        return self.values is not None

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the finite numbers; NaN below two."""
        return math.sqrt(self.squares / (self.finite - 1)) if self.finite > 1 else math.nan


def of(column: pl.Series) -> ColumnProfile:
    """Profile one column."""
    kind = _type(column.dtype)
    nulls = column.null_count()
    if kind == "other":
        return ColumnProfile(kind, len(column), nulls)
    if kind in NUMERIC:
        return _of_numbers(column, kind, nulls)
    present = column.drop_nulls() if nulls else column
    if present.dtype != pl.Boolean:
        present = present.cast(pl.String)
    counted = present.value_counts(name="n")
    values, counts = counted[:, 0].to_list(), counted[:, 1].cast(pl.Int64).to_numpy()
    return _distributed(ColumnProfile(kind, len(column), nulls), values, counts)


def missing(kind: str, rows: int) -> ColumnProfile:
    """The profile of a column of which all rows are missing."""
    return ColumnProfile(
        kind, rows, rows, values=None if kind == "other" else [], counts=None if kind == "other" else []
    )


def merge(a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    """The profile of both parts; columns of different types merge to `"other"`, of which only counts are kept."""
    if a.type != b.type:
        if not a.present:
            a = missing(b.type, a.rows)
        elif not b.present:
            b = missing(a.type, b.rows)
        else:
            return ColumnProfile("other", a.rows + b.rows, a.nulls + b.nulls, a.nans + b.nans)
    mean, squares = _moments(a, b)
    base = ColumnProfile(
        a.type,
        a.rows + b.rows,
        a.nulls + b.nulls,
        a.nans + b.nans,
        _extreme(min, a.minimum, b.minimum),
        _extreme(max, a.maximum, b.maximum),
        mean,
        squares,
        a.finite + b.finite,
    )
    if a.type == "other":
        return base
    if a.exact and b.exact:
        total = dict(zip(a.values or (), a.counts or (), strict=True))
        for value, count in zip(b.values or (), b.counts or (), strict=True):
            total[value] = total.get(value, 0) + count
        values: Any = list(total)
        counts = np.fromiter(total.values(), np.int64, len(total))
        if a.type in NUMERIC:
            order = np.argsort(np.asarray(values, dtype=np.float64))
            values, counts = np.asarray(values, dtype=np.float64)[order], counts[order]
        return _distributed(base, values, counts)
    return _merge_sketches(base, _sketched(a), _sketched(b))


def distinct_count(column: ColumnProfile) -> float:
    """Number of distinct values: exact, or estimated within a few per cent."""
    if column.values is not None:
        return float(len(column.values))
    if column.distinct is None:
        return math.nan
    return float(ds.hll_sketch.deserialize(column.distinct).get_estimate())


def quantile(column: ColumnProfile, ranks: list[float]) -> list[float]:
    """The values at these ranks (0 to 1) of a column of numbers; empty when it has none."""
    if column.type not in NUMERIC or not column.present:
        return []
    if column.values is not None:
        edges = np.cumsum(np.asarray(column.counts, dtype=np.int64))
        places = np.searchsorted(edges, np.asarray(ranks) * edges[-1], side="left").clip(0, len(edges) - 1)
        return [float(column.values[place]) for place in places]
    return [float(value) for value in ds.kll_doubles_sketch.deserialize(column.quantiles).get_quantiles(ranks)]


def shares_up_to(column: ColumnProfile, edges: list[float]) -> list[float]:
    """Share of the present values that are at most each edge, for a column of numbers."""
    if not column.present:
        return [0.0] * len(edges)
    if column.values is not None:
        below = np.concatenate([[0], np.cumsum(np.asarray(column.counts, dtype=np.int64))])
        places = np.searchsorted(np.asarray(column.values, dtype=np.float64), np.asarray(edges), side="right")
        return [float(share) for share in below[places] / below[-1]]
    sketch = ds.kll_doubles_sketch.deserialize(column.quantiles)
    return [float(sketch.get_rank(edge, True)) for edge in edges]


def heavy_hitters(column: ColumnProfile, most: int, *, certain: bool = False) -> list[tuple[Any, int]]:
    """The most frequent values and their counts, most frequent first, ties in order of the value.

    Args:
        certain: Leave out values whose count may be no more than the error of the sketch, as in a column of ids.
    """
    if column.values is not None:
        pairs = list(zip(column.values, column.counts or (), strict=True))
    elif column.frequent is not None:
        sketch = ds.frequent_strings_sketch.deserialize(column.frequent)
        errors = ds.frequent_items_error_type
        found = sketch.get_frequent_items(errors.NO_FALSE_POSITIVES if certain else errors.NO_FALSE_NEGATIVES)
        pairs = [(item[0], int(item[1])) for item in found]
    else:
        return []
    return sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))[:most]


def counts_of(column: ColumnProfile, values: list[Any]) -> list[int]:
    """How often each of these values occurs; for a sketched column an estimate."""
    if column.values is not None:
        known = dict(zip(column.values, column.counts or (), strict=True))
        return [known.get(value, 0) for value in values]
    if column.frequent is None:
        return [0] * len(values)
    sketch = ds.frequent_strings_sketch.deserialize(column.frequent)
    return [int(sketch.get_estimate(value)) for value in values]


def summary(column: ColumnProfile) -> dict[str, Any]:
    """One column in plain words and numbers."""
    distinct = distinct_count(column)
    facts: dict[str, Any] = {
        "type": column.type,
        "rows": column.rows,
        "missing": column.nulls + column.nans,
        "distinct": None if math.isnan(distinct) else round(distinct),
        "exact": column.exact,
    }
    if column.type == "number" and column.present:
        low, median, high = quantile(column, [0.05, 0.5, 0.95])
        facts |= {"minimum": column.minimum, "p05": low, "median": median, "p95": high, "maximum": column.maximum}
        facts |= {"mean": column.mean, "deviation": None if math.isnan(column.deviation) else column.deviation}
    elif column.type == "time" and column.present:
        facts |= {"minimum": _moment(column.minimum), "maximum": _moment(column.maximum)}
    elif column.type in ("text", "boolean"):
        facts["top"] = [[value, count] for value, count in heavy_hitters(column, 5, certain=True)]
    return facts


def _of_numbers(column: pl.Series, kind: str, nulls: int) -> ColumnProfile:
    present = column.drop_nulls() if nulls else column
    if kind == "time":
        if present.dtype != pl.Date:
            present = present.dt.cast_time_unit("us")
        else:
            present = present.cast(pl.Datetime("us"))
        present = present.to_physical()
    numbers: Floats = present.cast(pl.Float64).to_numpy()
    nans = 0
    if kind == "number" and column.dtype.is_float():
        bad = np.isnan(numbers)
        nans = int(bad.sum())
        if nans:
            numbers = numbers[~bad]
    if not len(numbers):
        return ColumnProfile(kind, len(column), nulls, nans, values=[], counts=[])
    numbers = numbers + 0.0  # -0.0 and 0.0 are one value
    values, counts = np.unique(numbers, return_counts=True)
    finite = numbers if math.isfinite(values[0]) and math.isfinite(values[-1]) else numbers[np.isfinite(numbers)]
    with np.errstate(over="ignore", invalid="ignore"):  # beyond 1e154 the squares are infinite, and say so
        mean = float(finite.mean()) if len(finite) else 0.0
        squares = float(((finite - mean) ** 2).sum()) if len(finite) else 0.0
    base = ColumnProfile(
        kind, len(column), nulls, nans, float(values[0]), float(values[-1]), mean, squares, len(finite)
    )
    return _distributed(base, values, counts, numbers)


def _distributed(base: ColumnProfile, values: Any, counts: Counts, rows: Floats | None = None) -> ColumnProfile:
    """`base` with its distribution: exact when there are few distinct values, else in sketches."""
    repeated = base.type in NUMERIC and len(values) <= min(EXACT_REPEATED, base.present // REPEATED)
    if len(values) <= EXACT_VALUES or repeated:
        plain = values.tolist() if isinstance(values, np.ndarray) else values
        return msgspec.structs.replace(base, values=plain, counts=counts.tolist())
    distinct = ds.hll_sketch(HLL_LOG2, ds.tgt_hll_type.HLL_4)
    if base.type in NUMERIC:
        quantiles = ds.kll_doubles_sketch(KLL_K)
        quantiles.update(np.repeat(values, counts) if rows is None else rows)
        for number in values.tolist():
            distinct.update(number)
        return msgspec.structs.replace(base, quantiles=quantiles.serialize(), distinct=distinct.serialize_compact())
    frequent = ds.frequent_strings_sketch(FREQUENT_LOG2)
    for value, count in zip(values, counts.tolist(), strict=True):
        distinct.update(value)
        frequent.update(value, count)
    return msgspec.structs.replace(base, distinct=distinct.serialize_compact(), frequent=frequent.serialize())


def _sketched(column: ColumnProfile) -> ColumnProfile:
    """The same column in sketches, for a merge with one that has no exact form any more."""
    if column.values is None:
        return column
    quantiles, distinct = ds.kll_doubles_sketch(KLL_K), ds.hll_sketch(HLL_LOG2, ds.tgt_hll_type.HLL_4)
    frequent = ds.frequent_strings_sketch(FREQUENT_LOG2)
    if column.type in NUMERIC and column.values:
        quantiles.update(np.repeat(np.asarray(column.values, dtype=np.float64), column.counts or []))
    for value, count in zip(column.values, column.counts or (), strict=True):
        distinct.update(value)
        if column.type not in NUMERIC:
            frequent.update(value, count)
    return msgspec.structs.replace(
        column,
        values=None,
        counts=None,
        quantiles=quantiles.serialize() if column.type in NUMERIC else None,
        distinct=distinct.serialize_compact(),
        frequent=None if column.type in NUMERIC else frequent.serialize(),
    )


def _merge_sketches(base: ColumnProfile, a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    union = ds.hll_union(HLL_LOG2)
    union.update(ds.hll_sketch.deserialize(a.distinct))
    union.update(ds.hll_sketch.deserialize(b.distinct))
    distinct = union.get_result(ds.tgt_hll_type.HLL_4).serialize_compact()
    if base.type in NUMERIC:
        quantiles = ds.kll_doubles_sketch.deserialize(a.quantiles)
        quantiles.merge(ds.kll_doubles_sketch.deserialize(b.quantiles))
        return msgspec.structs.replace(base, quantiles=quantiles.serialize(), distinct=distinct)
    frequent = ds.frequent_strings_sketch.deserialize(a.frequent)
    frequent.merge(ds.frequent_strings_sketch.deserialize(b.frequent))
    return msgspec.structs.replace(base, distinct=distinct, frequent=frequent.serialize())


def _moments(a: ColumnProfile, b: ColumnProfile) -> tuple[float, float]:
    """Mean and squares of both parts (Chan, Golub, LeVeque 1979)."""
    if not a.finite or not b.finite:
        return (b.mean, b.squares) if not a.finite else (a.mean, a.squares)
    distance, total = b.mean - a.mean, a.finite + b.finite
    return (
        a.mean + distance * b.finite / total,
        a.squares + b.squares + distance * distance * a.finite * b.finite / total,
    )


def _extreme(choose: Any, a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return float(choose(a, b))


def _type(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    if dtype == pl.String or dtype == pl.Categorical or dtype == pl.Enum:
        return "text"
    if dtype == pl.Datetime or dtype == pl.Date:
        return "time"
    return "text" if dtype == pl.Null else "other"


def _moment(microseconds: float | None) -> str | None:
    if microseconds is None:
        return None
    return str(np.datetime64(int(microseconds), "us"))
