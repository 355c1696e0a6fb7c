"""From recorded tensors to rows of the log, when the log is read: a struct of shape and values for each prediction.

A tensor whose first dimension counts rows gives each prediction its own part; else a call is one prediction and has the whole.
Of a sampled tensor the rows in the middle have no values; all have the digest and the size of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from instar.serve.log.record import Tensor
from instar.serve.protocol.signature import BYTES, ELEMENT_BYTES
from instar.serve.protocol.tensors import DTYPES

# Types of values in the log. Delta tables know no unsigned numbers and no half precision: the next type that holds them all.
VALUE_TYPES: dict[str, pl.DataType] = {
    "BOOL": pl.Boolean(), "INT8": pl.Int8(), "INT16": pl.Int16(), "INT32": pl.Int32(), "INT64": pl.Int64(),
    "UINT8": pl.Int16(), "UINT16": pl.Int32(), "UINT32": pl.Int64(), "UINT64": pl.Decimal(20, 0),
    "FP16": pl.Float32(), "FP32": pl.Float32(), "FP64": pl.Float64(), BYTES: pl.String(),
}  # fmt: skip

_json = msgspec.json.Encoder()


class Cell(NamedTuple):
    """One tensor's part in one prediction.

    Attributes:
        data: Values row by row, as the record has them; None where a sample has none of this prediction, or they are personal.
        tail: Last values, where those of one prediction were sampled.
        digest, size: Of the whole tensor of the call, where it was sampled.
    """

    shape: Sequence[int]
    data: bytes | list[Any] | None
    tail: bytes | list[Any] | None
    digest: str | None
    size: int | None


def cell_type(values: pl.DataType) -> pl.Struct:
    """The type of a tensor's column."""
    return pl.Struct(
        {
            "shape": pl.List(pl.Int64),
            "data": pl.List(values),
            "tail": pl.List(values),
            "digest": pl.String,
            "size": pl.Int64,
        }
    )


def cells(tensor: Tensor, rows: int, by_rows: bool) -> list[Cell]:
    """A tensor's part in each prediction of its call.

    Args:
        rows: Predictions of the call.
        by_rows: Each entry of the first dimension is one of them.
    """
    digest = None if tensor.digest is None else f"b3:{tensor.digest.hex()}"
    data, tail, size = tensor.data, tensor.tail, tensor.size
    unit = ELEMENT_BYTES.get(tensor.datatype, 1)
    if not by_rows:
        return [Cell(tensor.shape, data, tail, digest, size)]
    shape = tensor.shape[1:]
    width = math.prod(shape) * unit
    if len(data) == width * rows and digest is None:
        return [Cell(shape, data[row * width : (row + 1) * width], None, None, None) for row in range(rows)]
    if digest is None or tail is None:  # personal: nothing of it is kept
        return [Cell(shape, None, None, None, None)] * rows
    if rows == 1:
        return [Cell(shape, data, tail, digest, size)]
    made = [Cell(shape, None, None, digest, size)] * rows
    for row in range(min(rows, len(data) // width if width else 0)):
        made[row] = Cell(shape, data[row * width : (row + 1) * width], None, digest, size)
        start = len(tail) - (row + 1) * width
        made[rows - 1 - row] = Cell(shape, tail[start : start + width], None, digest, size)
    return made


def series(name: str, datatype: str, column: Sequence[Cell | None]) -> pl.Series:
    """Cells as one column; None where a call had no such tensor."""
    kind = VALUE_TYPES[datatype]
    absent = Cell((), None, None, None, None)
    given = [absent if cell is None else cell for cell in column]
    frame = pl.DataFrame(
        [
            pl.Series(
                "shape", [None if cell is None else list(cell.shape) for cell in column], dtype=pl.List(pl.Int64)
            ),
            _values("data", datatype, kind, [cell.data for cell in given]),
            _values("tail", datatype, kind, [cell.tail for cell in given]),
            pl.Series("digest", [cell.digest for cell in given], dtype=pl.String),
            pl.Series("size", [cell.size for cell in given], dtype=pl.Int64),
        ]
    )
    made = frame.to_struct(name)
    if None not in column:
        return made
    return pl.select(pl.when(pl.Series([cell is not None for cell in column])).then(made).alias(name)).to_series()


def as_json(tensors: Sequence[Tensor], rows: int, by_rows: bool) -> list[str]:
    """Outputs of a version that did not answer, by prediction: an object of shape and data by name."""
    columns = [(tensor.name, tensor.datatype, cells(tensor, rows, by_rows)) for tensor in tensors]
    return [
        _json.encode({name: _plain(datatype, column[row]) for name, datatype, column in columns}).decode()
        for row in range(rows)
    ]


def _plain(datatype: str, cell: Cell) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "shape": list(cell.shape),
        "data": None if cell.data is None else _list(datatype, cell.data),
    }
    if cell.tail is not None:
        plain["tail"] = _list(datatype, cell.tail)
    if cell.digest is not None:
        plain |= {"digest": cell.digest, "size": cell.size}
    return plain


def _list(datatype: str, data: bytes | list[Any]) -> list[Any]:
    if isinstance(data, list):
        return [_text(value) for value in data]
    values: list[Any] = np.frombuffer(data, dtype=DTYPES[datatype]).tolist()
    return values


def _values(name: str, datatype: str, kind: pl.DataType, parts: Sequence[bytes | list[Any] | None]) -> pl.Series:
    """Lists of values, laid end to end and cut by their lengths: no value becomes a Python object."""
    if datatype == BYTES:
        texts = [None if part is None else [_text(value) for value in part] for part in parts]
        return pl.Series(name, texts, dtype=pl.List(pl.String))
    flat = np.frombuffer(b"".join([part for part in parts if isinstance(part, bytes)]), dtype=DTYPES[datatype])
    unit = ELEMENT_BYTES[datatype]
    lengths = [0 if part is None else len(part) // unit for part in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    # By way of polars, since pyarrow imports pandas to look at plain Python values.
    oldest = pl.CompatLevel.oldest()
    inner = pl.Series(flat.astype(np.float32) if datatype == "FP16" else flat).cast(kind).to_arrow(compat_level=oldest)
    starts = pl.Series(offsets, dtype=pl.Int64).to_arrow(compat_level=oldest)
    mask = pl.Series([part is None for part in parts], dtype=pl.Boolean).to_arrow(compat_level=oldest)
    return pl.Series(name, pa.LargeListArray.from_arrays(starts, inner, mask=mask), dtype=pl.List(kind))


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return f"base64:{msgspec.json.encode(value)[1:-1].decode()}"
    return value if value is None else str(value)
