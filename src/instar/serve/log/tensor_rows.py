"""From recorded tensors to rows of the log, when the log is read: a struct of shape and values for each prediction.

A tensor whose first dimension counts rows gives each prediction its own part; else a call is one prediction and has the whole.
Of a sampled tensor the rows in the middle have no values; all have the digest and the size of the whole. Tensors stay whole
until a column is made: their bytes are laid end to end and cut at once, so that no value and no row becomes a Python object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
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
_Kept = bytes | Sequence[Any] | None


class Part(NamedTuple):
    """What a tensor has of some predictions that follow each other, in equal shares.

    Attributes:
        rows: So many predictions.
        shape: Of each one's share; None where the call had no such tensor.
        data: Values row by row, as the record has them; None where a sample has none of these, or they are personal.
        tail: Last values, where those of one prediction were sampled.
        digest, size: Of the whole tensor of the call, where it was sampled.
    """

    rows: int
    shape: tuple[int, ...] | None
    data: _Kept = None
    tail: _Kept = None
    digest: str | None = None
    size: int | None = None


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


def parts(tensor: Tensor, rows: int, by_rows: bool) -> list[Part]:
    """A tensor's parts in the predictions of its call, in their order.

    Args:
        rows: Predictions of the call.
        by_rows: Each entry of the first dimension is one of them.
    """
    shape, data, tail = tensor.shape, tensor.data, tensor.tail
    if tensor.digest is None:
        rows, shape = (rows, shape[1:]) if by_rows else (1, shape)
        whole = len(data) == math.prod(shape) * ELEMENT_BYTES.get(tensor.datatype, 1) * rows  # else it is personal
        return [Part(rows, shape, data if whole else None)]
    digest, size = f"b3:{tensor.digest.hex()}", tensor.size
    if not by_rows:
        return [Part(1, shape, data, tail, digest, size)]
    if tail is None:
        return [Part(rows, shape[1:])]
    if rows == 1:
        return [Part(1, shape[1:], data, tail, digest, size)]
    width = math.prod(shape[1:]) * ELEMENT_BYTES.get(tensor.datatype, 1)
    head = min(rows, len(data) // width) if width else 0
    last = min(rows - head, head)
    made = [
        Part(head, shape[1:], data[: head * width], None, digest, size),
        Part(rows - head - last, shape[1:], None, None, digest, size),
        Part(last, shape[1:], tail[len(tail) - last * width :], None, digest, size),
    ]
    return [one for one in made if one.rows]


def series(name: str, datatype: str, tensors: Sequence[Tensor | None], rows: Sequence[int], by_rows: bool) -> pl.Series:
    """A tensor of some calls as one column, a row for each prediction; null where a call had no such tensor.

    Args:
        rows: Predictions of each call.
        by_rows: Each entry of the first dimension is one of them.
    """
    kind, found = VALUE_TYPES[datatype], _whole(datatype, tensors, rows, by_rows)
    if found is None:
        made = [one for tensor, count in zip(tensors, rows, strict=True) for one in _parts(tensor, count, by_rows)]
        found = tuple(map(list, zip(*made, strict=True)))
    counts, shapes, data, tails, digests, sizes = np.array(found[0], dtype=np.int64), *found[1:]
    frame = pl.DataFrame(
        [
            _shapes(shapes, counts),
            _values("data", datatype, kind, data, counts),
            _values("tail", datatype, kind, tails, counts),
            _repeated("digest", pl.String(), digests, counts),
            _repeated("size", pl.Int64(), sizes, counts),
        ]
    )
    column = frame.to_struct(name)
    if None not in shapes:
        return column
    there = np.repeat(np.array([shape is not None for shape in shapes]), counts)
    return pl.select(pl.when(pl.Series(there)).then(column).alias(name)).to_series()


def _whole(datatype: str, tensors: Sequence[Any], rows: Sequence[int], by_rows: bool) -> tuple[Any, ...] | None:
    """Parts of tensors of which none is sampled or missing: one a call, field by field."""
    if None in tensors or not by_rows or any(map(_digest, tensors)):
        return None
    shapes, data = list(map(_shape, tensors)), list(map(_data, tensors))
    unit = ELEMENT_BYTES.get(datatype, 1)
    inner = {shape: (shape[1:], math.prod(shape[1:]) * unit) for shape in set(shapes)}
    known = [inner[shape] for shape in shapes]
    wanted = [width * count for (_, width), count in zip(known, rows, strict=True)]
    if list(map(len, data)) != wanted:
        return None
    nothing = [None] * len(data)
    return rows, [shape for shape, _ in known], data, nothing, nothing, nothing


_shape, _data, _digest = attrgetter("shape"), attrgetter("data"), attrgetter("digest")


def _parts(tensor: Tensor | None, rows: int, by_rows: bool) -> list[Part]:
    return [Part(rows if by_rows else 1, None)] if tensor is None else parts(tensor, rows, by_rows)


def _shapes(shapes: Sequence[tuple[int, ...] | None], counts: Any) -> pl.Series:
    """Few shapes are many calls': each is made once."""
    known = {shape: place for place, shape in enumerate(dict.fromkeys(shapes))}
    places = np.repeat(np.array([known[shape] for shape in shapes], dtype=np.int64), counts)
    distinct = [None if shape is None else list(shape) for shape in known]
    return pl.Series("shape", distinct, dtype=pl.List(pl.Int64)).gather(pl.Series(places))


def _repeated(name: str, kind: pl.DataType, values: Sequence[Any], counts: Any) -> pl.Series:
    if not any(value is not None for value in values):
        return pl.repeat(None, int(counts.sum()), dtype=kind, eager=True).alias(name)
    return pl.Series(name, values, dtype=kind).gather(np.repeat(np.arange(len(counts)), counts))


def as_json(tensors: Sequence[Tensor], rows: int, by_rows: bool) -> list[str]:
    """Outputs of a version that did not answer, by prediction: an object of shape and data by name."""
    columns = [
        [_plain(tensor.datatype, part, row) for part in parts(tensor, rows, by_rows) for row in range(part.rows)]
        for tensor in tensors
    ]
    names = [tensor.name for tensor in tensors]
    return [
        _json.encode({name: column[row] for name, column in zip(names, columns, strict=True)}).decode()
        for row in range(rows)
    ]


def _plain(datatype: str, part: Part, row: int) -> dict[str, Any]:
    data = part.data
    width = 0 if data is None else len(data) // part.rows
    plain: dict[str, Any] = {
        "shape": list(part.shape or ()),
        "data": None if data is None else _list(datatype, data[row * width : (row + 1) * width]),
    }
    if part.tail is not None:
        plain["tail"] = _list(datatype, part.tail)
    if part.digest is not None:
        plain |= {"digest": part.digest, "size": part.size}
    return plain


def _list(datatype: str, data: bytes | Sequence[Any]) -> list[Any]:
    if not isinstance(data, bytes):
        return [_text(value) for value in data]
    values: list[Any] = np.frombuffer(data, dtype=DTYPES[datatype]).tolist()
    return values


def _values(name: str, datatype: str, kind: pl.DataType, given: Sequence[_Kept], counts: Any) -> pl.Series:
    """Lists of values, laid end to end and cut by their lengths."""
    absent = np.array([values is None for values in given])
    if absent.all():
        return pl.repeat(None, int(counts.sum()), dtype=pl.List(kind), eager=True).alias(name)
    unit = ELEMENT_BYTES.get(datatype, 1)
    sizes = np.array([0 if values is None else len(values) // unit for values in given], dtype=np.int64)
    lengths = np.repeat(sizes // np.maximum(counts, 1), counts)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # By way of polars, since pyarrow imports pandas to look at plain Python values.
    oldest = pl.CompatLevel.oldest()
    inner = _flat(datatype, kind, given).to_arrow(compat_level=oldest)
    starts = pl.Series(offsets, dtype=pl.Int64).to_arrow(compat_level=oldest)
    mask = pl.Series(np.repeat(absent, counts)).to_arrow(compat_level=oldest)
    return pl.Series(name, pa.LargeListArray.from_arrays(starts, inner, mask=mask), dtype=pl.List(kind))


def _flat(datatype: str, kind: pl.DataType, given: Sequence[_Kept]) -> pl.Series:
    if datatype == BYTES:
        texts: list[Any] = []
        for values in given:
            texts += values or ()
        plain = all(type(text) is str for text in texts)
        return pl.Series(texts if plain else [_text(text) for text in texts], dtype=pl.String)
    flat = np.frombuffer(b"".join([values for values in given if isinstance(values, bytes)]), dtype=DTYPES[datatype])
    return pl.Series(flat.astype(np.float32) if datatype == "FP16" else flat).cast(kind)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return f"base64:{msgspec.json.encode(value)[1:-1].decode()}"
    return value if value is None else str(value)
