"""From record frames to rows, when the log is read: one data frame of predictions for what a segment holds so far.

A segment is read on from where it was left. A prediction whose shadows have not answered yet stays in Python until they
have; all others are frozen into data frames once, so that reading the last minute never decodes the last hour again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from instar.core.errors import Damaged
from instar.core.ids import parse_call_id
from instar.serve.log import record, segments
from instar.serve.log.prediction_rows import ANSWER, MOMENT, OUTPUTS, SCHEMA, Chunk, Kind, Rows, kind_of

# A shadow that has not answered by then never will: its gateway gives up after half of this.
INCOMPLETE_US = 60_000_000

_NO_SCHEMA = record.Schema(0, ())


def empty() -> pl.DataFrame:
    """The log of an endpoint that was never called."""
    return pl.DataFrame(schema=SCHEMA)


class Reader:
    """A segment, read as far as it goes.

    Attributes:
        ended: The segment was closed in good order and read to its end.
        calls: Milliseconds of each call's id by its sequence.
    """

    def __init__(self, name: segments.SegmentName, path: Path) -> None:
        self.name = name
        self._path = path
        self._offset = 0
        self._schemas: dict[int, record.Schema] = {}
        self._open: list[Rows] = []
        self._waiting: dict[str, _Waiting] = {}
        self._newest = 0
        self.chunks: list[Chunk] = []
        self.calls: dict[int, int] = {}
        self.ended = False

    def refresh(self) -> None:
        """Read on to the last good frame.

        Raises:
            Damaged: The file does not begin as a segment.
        """
        if self.ended or not self._path.exists() or self._path.stat().st_size <= self._offset:
            return
        payloads, self._offset = segments.read(self._path, self._offset)
        for payload in payloads:
            self.take(record.decode_frame(payload))
        self._freeze()

    def take(self, frame: record.Frame) -> None:
        """One more frame, in the order of the segment."""
        entry = record.decode_entry(frame.metadata)
        if type(entry) is record.Call:
            self._call(entry, frame)
        elif type(entry) is record.Later:
            self._later(entry)
        elif type(entry) is record.Schema:
            self._schemas[entry.number] = entry
        elif type(entry) is record.End:
            self.ended = True

    def frames(self, since: int | None, until: int | None) -> list[pl.DataFrame]:
        """Rows with event time in [since, until), microseconds since 1970."""
        found = []
        for chunk in [*self.chunks, *(rows.peek(self.name.endpoint) for rows in self._open if rows.call)]:
            if (since is not None and chunk.last < since) or (until is not None and chunk.first >= until):
                continue
            frame = chunk.frame
            if since is not None and chunk.first < since:
                frame = frame.filter(pl.col("at") >= pl.lit(since).cast(MOMENT))
            if until is not None and chunk.last >= until:
                frame = frame.filter(pl.col("at") < pl.lit(until).cast(MOMENT))
            found.append(frame)
        return found

    def end(self) -> None:
        """Freeze all: nothing will come any more, since the writer is gone."""
        self.ended = True
        self._freeze()

    def _call(self, call: record.Call, frame: record.Frame) -> None:
        place = parse_call_id(call.call)
        self.calls[place.sequence] = place.milliseconds
        self._newest = max(self._newest, call.recorded)
        work = call.work
        rows = self._rows(work)
        start = rows.base + len(rows.call)
        rows.add(call, frame)
        if call.laters and work is not None:
            self._waiting[call.call] = _Waiting(rows, start, work.rows, call.laters, call.recorded)

    def _rows(self, work: record.Work | None) -> Rows:
        """Where a call belongs: a failed one beside those before it."""
        if work is not None:
            kind: Kind = kind_of(self._schemas[work.signature], work)
        elif self._open:
            return self._open[-1]
        else:
            kind = kind_of(next(reversed(self._schemas.values()), _NO_SCHEMA), None)
        for rows in reversed(self._open):
            if rows.kind == kind:
                return rows
        self._open.append(Rows(kind))
        return self._open[-1]

    def _later(self, later: record.Later) -> None:
        waiting = self._waiting.get(later.call)
        if waiting is None:
            return
        start = waiting.start - waiting.rows.base
        for row, said in enumerate(waiting.rows.said(later.answers, waiting.count)):
            waiting.rows.answers[start + row] += said
        waiting.laters -= 1
        if waiting.laters == 0:
            del self._waiting[later.call]

    def _freeze(self) -> None:
        if not self.ended:
            limit = self._newest - INCOMPLETE_US
            for call, waiting in list(self._waiting.items()):
                if waiting.recorded >= limit:
                    break  # in order of recording
                del self._waiting[call]
        else:
            self._waiting.clear()
        first: dict[int, int] = {}
        for waiting in self._waiting.values():
            first.setdefault(id(waiting.rows), waiting.start - waiting.rows.base)
        for rows in self._open:
            count = first.get(id(rows), len(rows.call))
            if count:
                self.chunks.append(rows.take(count, self.name.endpoint))
        self._open = [rows for rows in self._open if rows.call or rows is self._open[-1]]
        if len(self.chunks) > 64:
            self._merge()

    def _merge(self) -> None:
        """Few large frames are quicker to look through than many small ones; the newest stay small."""
        old, merged = self.chunks[:-8], list[Chunk]()
        for chunk in old:
            last = merged[-1] if merged else None
            if last is not None and last.frame.schema == chunk.frame.schema and last.frame.height < 50_000:
                frame = pl.concat([last.frame, chunk.frame], rechunk=True)
                merged[-1] = Chunk(min(last.first, chunk.first), max(last.last, chunk.last), frame)
            else:
                merged.append(chunk)
        self.chunks = merged + self.chunks[-8:]


def decode(name: segments.SegmentName, frames: Iterable[record.Frame]) -> pl.DataFrame:
    """Rows of the log that frames of one segment make, in order of event time.

    Raises:
        Damaged: A frame tells of columns that none before it describes.
    """
    reader = Reader(name, Path())
    try:
        for frame in frames:
            reader.take(frame)
    except (KeyError, msgspec.DecodeError) as error:
        raise Damaged(
            "its frames do not tell a whole story", subject=f"segment {name.id}", found=repr(error)
        ) from error
    reader.end()
    return align(reader.frames(None, None))


@dataclass
class _Waiting:
    """A call whose shadows have not all answered: where its rows stand, and how many entries are to come."""

    rows: Rows
    start: int
    count: int
    laters: int
    recorded: int


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
