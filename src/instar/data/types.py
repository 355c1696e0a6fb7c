"""Column types of tables: their stable names, and the form in which a frame can be kept in a Delta table.

Names are ours, so that schemas and digests do not change when a library prints its types differently:
`int64`, `float64`, `text`, `boolean`, `date`, `timestamp[us, UTC]`, `decimal(10, 2)`, `list<text>`, `struct<a: int64>`.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from instar.core.errors import WrongType

_NAMES: dict[type[pl.DataType] | pl.DataType, str] = {
    pl.Int8: "int8",
    pl.Int16: "int16",
    pl.Int32: "int32",
    pl.Int64: "int64",
    pl.UInt8: "uint8",
    pl.UInt16: "uint16",
    pl.UInt32: "uint32",
    pl.UInt64: "uint64",
    pl.Float32: "float32",
    pl.Float64: "float64",
    pl.String: "text",
    pl.Categorical: "text",
    pl.Boolean: "boolean",
    pl.Binary: "binary",
    pl.Date: "date",
    pl.Time: "time",
    pl.Null: "null",
}
# Delta has no unsigned integers, so each goes into the next larger signed one.
_SIGNED = {pl.UInt8: pl.Int16, pl.UInt16: pl.Int32, pl.UInt32: pl.Int64, pl.UInt64: pl.Int64}


def name(dtype: pl.DataType, column: str = "") -> str:
    """The stable name of a Polars type.

    Raises:
        WrongType: It holds Python objects.
    """
    known = _NAMES.get(dtype.base_type())
    if known is not None:
        return known
    if isinstance(dtype, pl.Enum):
        return "text"
    if isinstance(dtype, pl.Datetime):
        return (
            f"timestamp[{dtype.time_unit}, {dtype.time_zone}]" if dtype.time_zone else f"timestamp[{dtype.time_unit}]"
        )
    if isinstance(dtype, pl.Duration):
        return f"duration[{dtype.time_unit}]"
    if isinstance(dtype, pl.Decimal):
        return f"decimal({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.List):
        return f"list<{name(_resolved(dtype.inner), column)}>"
    if isinstance(dtype, pl.Array):
        return f"array<{name(_resolved(dtype.inner), column)}, {dtype.size}>"
    if isinstance(dtype, pl.Struct):
        return (
            "struct<"
            + ", ".join(f"{field.name}: {name(_resolved(field.dtype), column)}" for field in dtype.fields)
            + ">"
        )
    raise WrongType(
        "tables cannot keep this type",
        subject=f"column {column}".rstrip(),
        found=str(dtype),
        asked="numbers, text, times, booleans, lists or structs",
        next_step="Convert the column in the step that makes it.",
    )


def schema(frame: pl.DataFrame) -> dict[str, str]:
    """Names and types of a frame's columns, in order."""
    return {column: name(dtype, column) for column, dtype in frame.schema.items()}


def storable(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """The frame in types that Delta has: text for categories, microseconds, signed integers.

    Raises:
        WrongType: A column has a type without such a form (durations, times of day, objects).
    """
    casts = []
    for column, dtype in frame.schema.items():
        wanted = _stored(dtype)
        if wanted is None:
            raise WrongType(
                "a Delta table cannot keep this type",
                subject=f"table {table}, column {column}",
                found=str(dtype),
                asked="numbers, text, dates, timestamps, booleans, decimals, lists or structs",
                next_step="Convert the column in the step, e.g. a duration to seconds.",
            )
        if wanted != dtype:
            casts.append(pl.col(column).cast(wanted))
    return frame.with_columns(casts) if casts else frame


def _stored(dtype: pl.DataType) -> pl.DataType | None:
    base = dtype.base_type()
    if base in _SIGNED:
        return _SIGNED[base]()
    if base in (pl.Categorical, pl.Enum, pl.Null):
        return pl.String()
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", dtype.time_zone)
    if isinstance(dtype, pl.List | pl.Array):
        inner = _stored(_resolved(dtype.inner))
        return None if inner is None else pl.List(inner)
    if isinstance(dtype, pl.Struct):
        fields = {field.name: _stored(_resolved(field.dtype)) for field in dtype.fields}
        return pl.Struct({key: kind for key, kind in fields.items() if kind}) if all(fields.values()) else None
    return dtype if (base in _NAMES and base != pl.Time) or isinstance(dtype, pl.Decimal) else None


def _resolved(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype  # pl.List(pl.Int64) holds the class
    return found
