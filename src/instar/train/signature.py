"""The signature of a model, taken from the rows that it is fitted on: columns, types, ranges and privacy classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from instar.core.errors import ContractError
from instar.plan.contract import InputTerms
from instar.train.bundle import PRIVACY_CLASSES, Column

# More distinct texts than this are free text: the manifest lists no categories of it.
MOST_CATEGORIES = 1000


def normalise(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame in the types that calls can bring: text, 64-bit integers, floats and truth values.

    Raises:
        ContractError: A column has a type that no call can bring, such as a time or a list.
    """
    return frame.with_columns([_expression(name, dtype) for name, dtype in frame.schema.items()])


def signature(
    frame: pl.DataFrame,
    privacy: Mapping[str, str] | None = None,
    nullable: Sequence[str] = (),
    declared: Mapping[str, InputTerms] | None = None,
) -> tuple[Column, ...]:
    """The columns of a normalised frame, in its order.

    Args:
        frame: The features of the rows fitted on.
        privacy: Privacy class by column; `"internal"` where nothing is said.
        nullable: Columns that may be missing in a call although none is missing here.
        declared: What the contract says of what a call may send.

    Raises:
        ContractError: It says something of no column here, or what cannot hold for one.
    """
    classes, terms = privacy or {}, declared or {}
    columns = [_column(frame[name], classes.get(name, "internal"), name in nullable) for name in frame.columns]
    unknown = terms.keys() - set(frame.columns)
    if unknown:
        raise ContractError(
            "that is no feature", subject=f"inputs.{min(unknown)}", asked=", ".join(frame.columns)[:300],
            next_step="Name a feature of the problem, or leave the section out.",
        )  # fmt: skip
    return tuple(_declared(column, terms[column.name]) if column.name in terms else column for column in columns)


def _declared(column: Column, terms: InputTerms) -> Column:
    limits = terms.limits
    fault = "" if limits is None else limits.fault(column.datatype)
    if fault:
        raise ContractError(fault, subject=f"inputs.{column.name}", found=column.datatype)
    nullable = column.nullable if terms.nullable is None else terms.nullable
    return msgspec.structs.replace(column, nullable=nullable, limits=limits)


def _column(series: pl.Series, privacy: str, nullable: bool) -> Column:
    if privacy not in PRIVACY_CLASSES:
        raise ContractError(
            "that is no privacy class",
            subject=f"privacy of column {series.name}",
            found=repr(privacy),
            asked=", ".join(PRIVACY_CLASSES),
        )
    nullable = nullable or series.null_count() > 0
    datatype = _datatype(series.dtype)
    if datatype == "BYTES":
        seen = series.unique().drop_nulls()
        listed = privacy != "personal" and seen.len() <= MOST_CATEGORIES
        categories = tuple(sorted(seen.to_list())) if listed else None
        return Column(series.name, datatype, nullable, privacy, categories=categories)
    if datatype == "BOOL" or privacy == "personal":  # the lowest and highest value can be those of one person
        return Column(series.name, datatype, nullable, privacy)
    bounds = [series.min(), series.max()]
    low, high = (float(bound) if isinstance(bound, int | float) else None for bound in bounds)
    return Column(series.name, datatype, nullable, privacy, low, high)


def _datatype(dtype: pl.DataType) -> str:
    if dtype == pl.String:
        return "BYTES"
    if dtype == pl.Boolean:
        return "BOOL"
    if dtype == pl.Float32:
        return "FP32"
    return "INT64" if dtype.is_integer() else "FP64"


def _expression(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype in (pl.String, pl.Boolean):
        return column
    if dtype in (pl.Float32, pl.Float64):
        return column.fill_nan(None)  # a missing number has one form
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if dtype.is_integer() and dtype != pl.UInt64:
        return column.cast(pl.Int64)
    if dtype.is_decimal() or dtype in (pl.Null, pl.UInt64):
        return column.cast(pl.Float64)
    raise ContractError(
        "a feature of that type cannot be part of a call",
        subject=f"column {name}",
        found=str(dtype),
        asked="text, numbers or truth values",
        next_step="Turn it into a number in the gold step, or list the features of the problem without it.",
    )
