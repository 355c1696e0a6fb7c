"""Data frames of predictions put together, when the log is read: signatures differ, the log has one set of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from instar.serve.log.answer_rows import ANSWER
from instar.serve.log.prediction_rows import OUTPUTS, SCHEMA


def empty() -> pl.DataFrame:
    """The log of an endpoint that was never called."""
    return pl.DataFrame(schema=SCHEMA)


def align(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One frame of all, in order of event time; where signatures differ, `inputs` and `outputs` have the fields of all."""
    given = [frame for frame in frames if frame.height]
    if not given:
        return empty()
    for column in ("inputs", OUTPUTS):
        given = _with_all_fields(given, column)
    given = [_with_answers(frame) for frame in given]
    whole = pl.concat(given) if len(given) > 1 else given[0]
    return whole.sort("at", "call", "row")


def _with_all_fields(frames: list[pl.DataFrame], column: str) -> list[pl.DataFrame]:
    """Frames whose struct `column` is of one type; one that lacks it has nulls, if any has it."""
    kinds = {repr(frame.schema[column]): frame.schema[column] for frame in frames if column in frame.columns}
    if len(kinds) == 1 and all(column in frame.columns for frame in frames):
        return frames
    fields: dict[str, pl.DataType] = {}
    for kind in kinds.values():
        for one in kind.fields:  # type: ignore[attr-defined]
            known = fields.get(one.name)
            fields[one.name] = one.dtype if known is None else _wider(known, one.dtype)
    return [_with_fields(frame, column, fields) for frame in frames] if kinds else frames


def _with_fields(frame: pl.DataFrame, column: str, fields: dict[str, pl.DataType]) -> pl.DataFrame:
    if column not in frame.columns:
        return frame.with_columns(pl.lit(None, dtype=pl.Struct(fields)).alias(column))
    has = {one.name: one.dtype for one in frame.schema[column].fields}  # type: ignore[attr-defined]
    parts = []
    for name, kind in fields.items():
        part = pl.col(column).struct.field(name) if name in has else pl.lit(None)
        if isinstance(has.get(name), pl.Struct) and kind == pl.String():
            part = part.struct.json_encode()
        parts.append(part.cast(kind).alias(name))
    return frame.with_columns(pl.struct(parts).alias(column))


def _with_answers(frame: pl.DataFrame) -> pl.DataFrame:
    """What was sealed before answers had outputs has none."""
    found = frame.schema["answers"]
    if found == pl.List(ANSWER):
        return frame
    has = {one.name for one in found.inner.fields}  # type: ignore[attr-defined]
    fields = [
        (pl.element().struct.field(one.name) if one.name in has else pl.lit(None, dtype=one.dtype)).alias(one.name)
        for one in ANSWER.fields
    ]
    return frame.with_columns(pl.col("answers").list.eval(pl.struct(fields)))


def _wider(left: Any, right: Any) -> pl.DataType:
    """A type that holds the values of two, text at the worst."""
    if left == right:
        return left  # type: ignore[no-any-return]
    if left.is_numeric() and right.is_numeric():
        return pl.Float64()
    if isinstance(left, pl.List) and isinstance(right, pl.List):
        return pl.List(_wider(left.inner, right.inner))
    if isinstance(left, pl.Struct) and isinstance(right, pl.Struct):
        kinds = {one.name: one.dtype for one in right.fields}
        if [one.name for one in left.fields] == list(kinds):
            return pl.Struct({one.name: _wider(one.dtype, kinds[one.name]) for one in left.fields})
    return pl.String()
