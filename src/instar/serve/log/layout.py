"""How sealed calls lie in their files: rows for people, narrow and sorted by call; frames, which prove them, in a file beside.

A file of rows has the columns of the log but those that can be made of others (`prediction`, `endpoint`), and two more:
`segment`, which each row came from, and `erased`, the id of the erasure that emptied it. Rows are sorted by call, in groups
whose lowest and highest values stand at the file's end, so that a search reads the columns and groups that it needs and no
other. A file of frames is opened by verification and by what writes units anew, and by nothing else.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from instar.core import ids
from instar.core.durable import sync_folder
from instar.data.delta_log import schema_string
from instar.serve.log import prediction_rows, record

ROWS_IN_GROUP = 16_384  # what is read to find one call: at four times as many it took twice as long, and saved no room
FRAMES_IN_GROUP = 16_384
LISTED = ("caller", "version", "reason", "status")  # columns whose values stand in the catalogue
MOST_LISTED = 64
DERIVED = ("prediction", "endpoint")
OTHER_TYPE = "__as_"  # a field whose type is not the one that the table has under that name

FRAME = pa.schema(
    [
        ("segment", pa.string()),
        ("sequence", pa.int64()),
        ("metadata", pa.binary()),
        ("salt", pa.binary()),
        ("personal", pa.binary()),
        ("personal_digest", pa.binary()),
        ("leaf", pa.binary()),
    ]
)
_columns = attrgetter(*FRAME.names)
# Sorted texts and times take a few bits a row as differences.
_ENCODED = {
    "call": "DELTA_BYTE_ARRAY", "at": "DELTA_BINARY_PACKED", "recorded_at": "DELTA_BINARY_PACKED",
    "latency_us": "DELTA_BINARY_PACKED",
}  # fmt: skip


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A frame as it is kept: whole, without its personal part, or only its leaf.

    Attributes:
        metadata: Null where the frame was pruned; `leaf` is then what is left.
        personal_digest: H(salt, personal), which stays when the two are erased.
    """

    segment: str
    sequence: int
    metadata: bytes | None
    salt: bytes | None
    personal: bytes | None
    personal_digest: bytes
    leaf: bytes | None = None

    def leaf_hash(self) -> bytes:
        """The leaf of the Merkle tree: of what is there; where nothing is, as it was kept."""
        if self.metadata is None:
            return self.leaf or b""
        if self.personal is None and self.salt is None:
            return record.leaf(self.sequence, self.personal_digest, self.metadata)
        # Where the personal part is there, it has to prove itself; only where it was erased does its digest stand for it.
        return record.leaf(self.sequence, record.hash_personal(self.salt, self.personal), self.metadata)

    def without_person(self) -> Kept:
        """Without the personal part and its salt."""
        return Kept(self.segment, self.sequence, self.metadata, None, None, self.personal_digest, self.leaf)

    def pruned(self) -> Kept:
        """The leaf alone."""
        return Kept(self.segment, self.sequence, None, None, None, self.personal_digest, self.leaf_hash())


@dataclass(frozen=True)
class Written:
    """A file that is on the disk: its digest and size in bytes."""

    digest: str
    size: int


def keep(segment: str, frame: record.Frame) -> Kept:
    """A frame of a segment, as it is kept."""
    digest = record.hash_personal(frame.salt, frame.personal)
    return Kept(segment, frame.sequence, frame.metadata, frame.salt, frame.personal, digest)


def stored(rows: pl.DataFrame, segment: str) -> pl.DataFrame:
    """Rows of the log in the form of a file; a struct without fields has no form in one."""
    empty = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Struct) and not dtype.fields]
    kept = rows.drop(*DERIVED, *empty).with_columns(
        pl.lit(segment).alias("segment"), pl.lit(None, dtype=pl.String).alias("erased")
    )
    return kept.sort("call", "row")


def logged(rows: pl.DataFrame, endpoint: str, *, erased: bool = False) -> pl.DataFrame:
    """Rows of a file as those of the log; with `erased` as the last column, if asked."""
    columns, schema = [], rows.schema
    for name, dtype in prediction_rows.SCHEMA.items():
        if name == "prediction":
            columns.append(pl.concat_str("call", pl.lit("/"), "row").alias(name))
        elif name == "endpoint":
            columns.append(pl.lit(endpoint).alias(name))
        elif name not in schema:
            missing = pl.Series(name, [{}] * rows.height, dtype=dtype) if dtype == pl.Struct([]) else None
            columns.append(pl.lit(None, dtype=dtype).alias(name) if missing is None else pl.lit(missing))
        elif isinstance(schema[name], pl.Struct):
            columns.append(_own_names(name, schema[name]))
        else:
            columns.append(pl.col(name))
    if prediction_rows.OUTPUTS in schema:
        columns.append(_own_names(prediction_rows.OUTPUTS, schema[prediction_rows.OUTPUTS]))
    if erased:
        known = "erased" in schema
        columns.append(pl.col("erased") if known else pl.lit(None, dtype=pl.String).alias("erased"))
    return rows.select(columns)


def fields_of(dtype: Any) -> dict[str, tuple[str, Any]]:
    """Fields of a stored struct by their own name: what they are called in the file, and their type."""
    stored_names = {one.name for one in dtype.fields} if isinstance(dtype, pl.Struct) else set()
    found = {}
    for one in dtype.fields if isinstance(dtype, pl.Struct) else ():
        base, mark, _ = one.name.partition(OTHER_TYPE)
        found[base if mark and base not in stored_names else one.name] = (one.name, one.dtype)
    return found


def _own_names(name: str, dtype: pl.DataType) -> pl.Expr:
    fields = fields_of(dtype)
    own = all(mine == kept for mine, (kept, _) in fields.items())
    return pl.col(name) if own else pl.col(name).struct.rename_fields(list(fields))


def fit(rows: pl.DataFrame, table: Mapping[str, Any] | None) -> tuple[pl.DataFrame, str | None]:
    """Rows whose fields fit a Delta table, and the table's schema with them; null where it stays as it is.

    A field that the table has with another type (an input that was whole numbers once) gets a name of its own.

    Args:
        table: The table's schema as Delta's JSON; null before the first file.
    """
    if table is None:
        return rows, _schema(rows)
    known = {one["name"]: one["type"] for one in table["fields"]}
    for one in json.loads(_schema(rows))["fields"]:
        has = known.get(one["name"])
        if isinstance(has, dict) and has["type"] == "struct" and isinstance(one["type"], dict):
            types = {inner["name"]: inner["type"] for inner in has["fields"]}
            names = [
                inner["name"]
                if types.get(inner["name"], inner["type"]) == inner["type"]
                else f"{inner['name']}{OTHER_TYPE}{_word(inner['type'])}"
                for inner in one["type"]["fields"]
            ]
            rows = rows.with_columns(pl.col(one["name"]).struct.rename_fields(names))
    merged = _merged(table, json.loads(_schema(rows)))
    return rows, json.dumps(merged) if merged != table else None


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    fields = {one["name"]: one for one in old["fields"]}
    for one in new["fields"]:
        known = fields.get(one["name"])
        if known is None:
            fields[one["name"]] = one
        elif isinstance(known["type"], dict) and known["type"]["type"] == "struct" and isinstance(one["type"], dict):
            fields[one["name"]] = {**known, "type": _merged(known["type"], one["type"])}
        elif isinstance(known["type"], dict) and isinstance(known["type"].get("elementType"), dict):
            inner = _merged(known["type"]["elementType"], one["type"]["elementType"])
            fields[one["name"]] = {**known, "type": {**known["type"], "elementType": inner}}
    return {**old, "fields": list(fields.values())}


def _word(type_: Any) -> str:
    return type_ if isinstance(type_, str) else ids.digest_of(type_)[3:11]


def _schema(rows: pl.DataFrame) -> str:
    return schema_string(tuple(rows.schema.items()))


def listed(rows: pl.DataFrame) -> dict[str, list[Any]]:
    """Distinct values of the columns `LISTED`, where they are few."""
    found = {}
    for name in LISTED:
        values = rows[name].unique().drop_nulls().sort()
        if values.len() <= MOST_LISTED:
            found[name] = values.to_list()
    return found


def write_rows(path: Path, parts: Iterable[pl.DataFrame]) -> Written:
    """Write rows, part by part, all of one schema and in order."""
    tables = (part.to_arrow(compat_level=pl.CompatLevel.oldest()) for part in parts)
    return _write(path, tables, ROWS_IN_GROUP, None)


def write_frames(path: Path, frames: Iterable[Kept]) -> Written:
    """Write frames in their order."""
    return _write(path, _frame_tables(frames), FRAMES_IN_GROUP, FRAME)


def _frame_tables(frames: Iterable[Kept]) -> Iterator[pa.Table]:
    batch: list[Kept] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == FRAMES_IN_GROUP:
            yield _frame_table(batch)
            batch = []
    yield _frame_table(batch)


def _frame_table(batch: Sequence[Kept]) -> pa.Table:
    values = zip(*map(_columns, batch), strict=True) if batch else [()] * len(FRAME.names)
    columns = [pa.array(column, field.type) for column, field in zip(values, FRAME, strict=True)]
    return pa.Table.from_arrays(columns, schema=FRAME)


def _write(path: Path, tables: Iterator[pa.Table], in_group: int, schema: pa.Schema | None) -> Written:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(aside, schema or table.schema, compression="zstd", **_encoding(table.schema))
            if table.num_rows or schema is not None:
                writer.write_table(table, row_group_size=in_group)
        assert writer is not None
        writer.close()
        handle = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(aside, path)
    except BaseException:
        if writer is not None and writer.is_open:
            writer.close()
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    sync_folder(path.parent.parent)
    return Written(ids.digest_of_file(path), path.stat().st_size)


@lru_cache(maxsize=16)
def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Differences for what is sorted, dictionaries for all else; a writer wants the paths of leaves for that."""
    empty = io.BytesIO()
    pq.write_table(schema.empty_table(), empty)
    leaves = pq.ParquetFile(empty).schema
    paths = [leaves.column(n).path for n in range(len(leaves))]
    kinds = [leaves.column(n).physical_type for n in range(len(leaves))]
    encoded = {path: _ENCODED[path] for path in paths if path in _ENCODED}
    plain = {"sequence", "metadata", "salt", "personal", "leaf", *encoded}
    # Values of tensors seldom come twice: to look for them in a dictionary took half of the time of writing.
    plain |= {path for path, kind in zip(paths, kinds, strict=True) if "." in path and kind in ("FLOAT", "DOUBLE")
              and path.split(".")[0] in ("inputs", prediction_rows.OUTPUTS) and ".data." in path}  # fmt: skip
    return {"use_dictionary": [path for path in paths if path not in plain], "column_encoding": encoded or None}


def frames_by_segment(path: Path) -> Iterator[tuple[str, list[Kept]]]:
    """Frames of a file, segment by segment."""
    with pq.ParquetFile(path) as file:
        if "frames" in file.schema_arrow.names:
            yield from _beside_rows(path)
            return
        held: list[Kept] = []
        for batch in file.iter_batches(batch_size=FRAMES_IN_GROUP):
            for values in zip(*(batch.column(name).to_pylist() for name in FRAME.names), strict=True):
                frame = Kept(*values)
                if held and held[-1].segment != frame.segment:
                    yield held[-1].segment, held
                    held = []
                held.append(frame)
        if held:
            yield held[-1].segment, held


def _beside_rows(path: Path) -> Iterator[tuple[str, list[Kept]]]:
    """Frames as a store before format 3 kept them: in a column beside the rows of their one segment."""
    rows = pl.read_parquet(path, columns=["segment", "frames"])
    found = sorted(
        (one for beside in rows["frames"].to_list() for one in beside or ()), key=lambda one: one["sequence"]
    )
    if found:
        name = rows["segment"][0]
        yield name, [Kept(name, *(one[part] for part in FRAME.names[1:6])) for one in found]
