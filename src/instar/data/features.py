"""Features at a point in time: joins that never look into the future, and the same function for training and serving.

A gold step joins what was known at each row's own time with `as_of`. When a call needs features, `serving_rows` runs the
very same gold function over the rows of the moment, so training and serving cannot come to differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import polars as pl

from instar.core.errors import MissingColumn, WrongType

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

_ORDER, _MOMENT, _KNOWN = "__instar_order", "__instar_moment", "__instar_known"


def as_of(
    left: Frame,
    right: pl.DataFrame | pl.LazyFrame,
    left_on: str,
    right_on: str,
    by: str | Sequence[str] = (),
    tolerance: timedelta | None = None,
    strict: bool = False,
    created: str | None = None,
    suffix: str = "_right",
) -> Frame:
    """For each row of `left` the latest row of `right` that was known at that time: nothing from the future.

    Args:
        left: Rows at whose time we ask; all are kept, in their order.
        right: Observations; rows without a time or with an incomplete key match nothing.
        left_on: Time of asking, a column of `left`.
        right_on: Time that an observation is about, a column of `right`; kept in the answer.
        by: Columns that must be equal on both sides.
        tolerance: An observation older than this is not taken; None takes any.
        strict: Only what was known before the time of asking, not at that very time.
        created: Column of `right` with the time at which the observation became known, where that is later than the time
            it is about. A correction that arrived later is invisible until then.
        suffix: Added to columns of `right` whose names `left` has as well.

    Returns:
        `left` with the columns of `right`, null where nothing was known.

    Raises:
        MissingColumn: A named column is not there.
        WrongType: The two times are not of one type.
    """
    keys: list[str] = [by] if isinstance(by, str) else list(by)
    rows, seen = left.lazy(), right.lazy()
    left_schema, right_schema = rows.collect_schema(), seen.collect_schema()
    _require(left_schema, [left_on, *keys], "left")
    _require(right_schema, [right_on, *keys, *([created] if created else [])], "right")
    _same_clock(left_schema, left_on, right_schema, right_on)
    taken = [name for name in right_schema.names() if name not in keys]
    renamed = {name: name + suffix if name in left_schema else name for name in taken}

    known = pl.max_horizontal(right_on, created) if created else pl.col(right_on)
    seen = seen.drop_nulls([right_on, *keys, *([created] if created else [])])
    seen = seen.select(*keys, known.alias(_KNOWN), pl.col(right_on).alias(_MOMENT), *taken)
    seen = seen.sort(_KNOWN, _MOMENT, maintain_order=True)
    if created:
        # An old observation that became known late must not hide a newer one that we already had.
        newest = pl.col(_MOMENT).cum_max()
        seen = seen.filter(pl.col(_MOMENT) >= (newest.over(keys) if keys else newest))
    seen = seen.rename({name: renamed[name] for name in taken if renamed[name] != name})

    numbered = rows.with_row_index(_ORDER)
    joined = numbered.sort(left_on, nulls_last=True, maintain_order=True).join_asof(
        seen,
        left_on=left_on,
        right_on=_KNOWN,
        by=keys or None,
        strategy="backward",
        allow_exact_matches=not strict,
        check_sortedness=False,
        coalesce=False,
    )
    keep = pl.col(left_on).is_not_null()
    if tolerance is not None:
        keep = keep & (pl.col(left_on) - pl.col(_MOMENT) <= tolerance)
    added = list(renamed.values())
    joined = joined.with_columns(pl.when(keep).then(pl.col(name)).alias(name) for name in added)
    answer = joined.sort(_ORDER).select(*left_schema.names(), *added)
    return answer.collect() if isinstance(left, pl.DataFrame) else answer


def replace_input(replacement: pl.DataFrame | pl.LazyFrame, real: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """`replacement` in the shape of the real input: the columns that it lacks are null, known ones have the real type.

    Columns which the real input has not are kept.

    Raises:
        WrongType: A column cannot be read as the real type.
    """
    lazy = replacement.lazy()
    given = lazy.collect_schema()
    columns: list[pl.Expr] = []
    for name, dtype in real.items():
        if name not in given:
            columns.append(pl.lit(None, dtype=dtype).alias(name))
        elif given[name] != dtype:
            columns.append(pl.col(name).cast(dtype))
        else:
            columns.append(pl.col(name))
    columns += [pl.col(name) for name in given.names() if name not in real]
    return lazy.select(columns)


def serving_rows(
    function: Callable[..., Any],
    inputs: Mapping[str, pl.DataFrame | pl.LazyFrame],
    replacements: Mapping[str, pl.DataFrame | pl.LazyFrame],
    parameters: Mapping[str, Any] | None = None,
    convert: Callable[[str, pl.LazyFrame], Any] | None = None,
) -> pl.DataFrame:
    """Feature rows for rows of the moment, made by the same gold function that made the training rows.

    Args:
        function: The gold step's function.
        inputs: The real input tables by name; an input that is replaced gives its columns only.
        replacements: The rows of the moment by the name of the input they stand for; a column of the real input which
            they lack (what is known only afterwards) is null.
        parameters: Further arguments of the function.
        convert: Turns an input into the form that the step declares; lazy Polars frames when None.

    Raises:
        MissingColumn: A replacement is for a table which the step does not read.
        WrongType: A replaced column cannot be read as the real type, or the step returns no frame.
    """
    for name in replacements:
        if name not in inputs:
            raise MissingColumn(
                "the gold step does not read that table",
                subject=f"replacement {name}",
                found=name,
                asked=" or ".join(inputs),
            )
    arguments: dict[str, Any] = {}
    for name, real in inputs.items():
        lazy = real.lazy()
        if name in replacements:
            lazy = replace_input(replacements[name], lazy.collect_schema())
        arguments[name] = lazy if convert is None else convert(name, lazy)
    rows = function(**arguments, **(parameters or {}))
    return as_frame(rows)


def as_frame(output: Any) -> pl.DataFrame:
    """What a step returned, as a Polars frame: Polars, Arrow and pandas are understood.

    Raises:
        WrongType: It is none of these.
    """
    if isinstance(output, pl.LazyFrame):
        return output.collect()
    if isinstance(output, pl.DataFrame):
        return output
    kind = type(output)
    if kind.__module__.split(".")[0] == "pandas" and kind.__name__ == "DataFrame":
        frame: pl.DataFrame = pl.from_pandas(output)
        return frame
    if hasattr(output, "__arrow_c_stream__"):
        return pl.DataFrame(output)
    raise WrongType(
        "a table step must return a table",
        subject="output of a step",
        found=kind.__name__,
        asked="a Polars or pandas frame, or an Arrow table",
        next_step="Return the frame from the step's function.",
    )


def _require(schema: pl.Schema, columns: Sequence[str], side: str) -> None:
    absent = [name for name in columns if name not in schema]
    if absent:
        raise MissingColumn(
            "the join asks for a column that is not there",
            subject=f"as_of, {side} side",
            found=", ".join(schema.names()),
            asked=", ".join(absent),
        )


def _same_clock(left: pl.Schema, left_on: str, right: pl.Schema, right_on: str) -> None:
    if left[left_on] != right[right_on]:
        raise WrongType(
            "the two times cannot be compared",
            subject=f"as_of {left_on} with {right_on}",
            found=f"{left[left_on]} and {right[right_on]}",
            asked="one type with one time zone",
            next_step="Cast one of them in the step.",
        )
