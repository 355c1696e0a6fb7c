"""The content digest of rows: equal for equal schemas and rows, on every machine and with every version of a library.

It makes step keys: a table made again with the same rows lets nothing downstream run again. BLAKE3-256 over the names
and types of the columns and then, per column, its values in canonical Arrow layout (little-endian, nulls as zero bytes
with a mask, text as lengths and UTF-8 bytes, one NaN, one zero). No library's own row hash takes part.

A table is made of parts (one a delivery); its digest covers its schema and the digests of its parts in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
from blake3 import blake3

from instar.core.ids import digest_of
from instar.data import types


def of_rows(frame: pl.DataFrame) -> str:
    """Digest of one part: its schema and its rows in their present order.

    Raises:
        WrongType: A column holds Python objects.
    """
    hasher = blake3()
    hasher.update(f"rows {frame.height}".encode())
    for name in frame.columns:
        hasher.update(f"\x00column {name}\x00{types.name(frame.schema[name], name)}\x00".encode())
        _update(hasher, frame[name])
    return "b3:" + hasher.hexdigest()


def of_parts(schema: dict[str, str], parts: Iterable[tuple[str | None, str]]) -> str:
    """Digest of a table: its schema, and partition and digest of each part.

    Parts of a named partition count in the order of their partitions' names, so landing March before February or after
    gives one digest; within a partition, and without one, the written order counts.
    """
    ordered = sorted(parts, key=lambda part: part[0] or "")
    return digest_of({"schema": list(schema.items()), "parts": ordered})


def _update(hasher: blake3, column: pl.Series) -> None:
    kind = column.dtype
    nulls = column.null_count()
    if nulls:
        _update_numbers(hasher, np.packbits(column.is_null().to_numpy()))
    if kind == pl.Struct:
        for field in column.struct.fields:
            _update(hasher, column.struct.field(field))
    elif kind == pl.List or kind == pl.Array:
        listed = column.arr.to_list() if kind == pl.Array else column
        _update_numbers(hasher, listed.list.len().fill_null(0).cast(pl.Int64).to_numpy())
        inner = listed.drop_nulls()
        _update(hasher, inner.filter(inner.list.len() > 0).explode())
    elif kind == pl.String or kind == pl.Binary:
        _update_bytes(hasher, column.cast(pl.Binary), nulls)
    elif kind == pl.Categorical or kind == pl.Enum or kind == pl.Decimal:
        _update_bytes(hasher, column.cast(pl.String).cast(pl.Binary), nulls)
    elif kind.is_float():
        numbers = (column.fill_null(0.0) if nulls else column).to_numpy() + 0.0  # one zero
        bad = np.isnan(numbers)
        if bad.any():
            numbers = np.where(bad, np.array(np.nan, dtype=numbers.dtype), numbers)
        _update_numbers(hasher, numbers)
    elif kind == pl.Null:
        return
    else:  # integers, booleans, dates, times
        physical = column.to_physical()
        physical = physical.cast(pl.UInt8) if kind == pl.Boolean else physical
        _update_numbers(hasher, (physical.fill_null(0) if nulls else physical).to_numpy())


def _update_numbers(hasher: blake3, numbers: np.ndarray[Any, Any]) -> None:
    hasher.update(np.ascontiguousarray(numbers).view(np.uint8).data)


def _update_bytes(hasher: blake3, column: pl.Series, nulls: int) -> None:
    if nulls:
        column = column.fill_null(b"")
    _update_numbers(hasher, column.bin.size().cast(pl.Int64).to_numpy())
    # Arrow's large binary lays all values end to end; the buffer may be longer than what these rows use.
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    for chunk in getattr(array, "chunks", [array]):
        if not len(chunk):
            continue
        _, offsets, data = chunk.buffers()
        if data is None:
            continue
        places = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        hasher.update(memoryview(data)[int(places[0]) : int(places[-1])])
