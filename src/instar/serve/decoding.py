"""From record frames to rows, when the log is read: one data frame of predictions for what a segment holds so far.

A segment is read on from where it was left. A prediction whose shadows have not answered yet stays in Python until they
have; all others are frozen into data frames once, so that reading the last minute never decodes the last hour again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from instar.core.ids import parse_call_id
from instar.serve import record, segments

INPUT_TYPES: dict[str, pl.DataType] = {
    "BOOL": pl.Boolean(), "INT32": pl.Int32(), "INT64": pl.Int64(), "FP32": pl.Float32(), "FP64": pl.Float64(),
    "BYTES": pl.String(),
}  # fmt: skip
MOMENT = pl.Datetime("us", "UTC")
ANSWER = pl.Struct(
    {
        "version": pl.Int64,
        "role": pl.String,
        "score": pl.Float64,
        "decision": pl.Int64,
        "threshold": pl.Float64,
        "error": pl.String,
    }
)
# The columns of the log, in order; `inputs` (a struct) and `answers` follow.
PLAIN: dict[str, pl.DataType] = {
    "prediction": pl.String(), "call": pl.String(), "row": pl.Int64(), "at": MOMENT, "recorded_at": MOMENT,
    "caller": pl.String(), "endpoint": pl.String(), "policy": pl.Int64(), "reason": pl.String(), "key": pl.String(),
    "version": pl.Int64(), "score": pl.Float64(), "decision": pl.Int64(), "threshold": pl.Float64(),
    "status": pl.Int64(), "latency_us": pl.Int64(), "entity": pl.String(), "table_version": pl.String(),
    "request_id": pl.String(), "fallback": pl.String(), "error": pl.String(),
}  # fmt: skip
_HEAD = tuple(
    name for name in PLAIN if name not in ("prediction", "call", "row", "at", "recorded_at", "caller", "endpoint")
)
SCHEMA: dict[str, pl.DataType] = {**PLAIN, "inputs": pl.Struct([]), "answers": pl.List(ANSWER)}

# A shadow that has not answered by then never will: its gateway gives up after half of this.
INCOMPLETE_US = 60_000_000

_Columns = tuple[tuple[str, str, bool], ...]
_Said = tuple[int, str, float | None, int | None, float | None, str | None]


def empty() -> pl.DataFrame:
    """The log of an endpoint that was never called."""
    return pl.DataFrame(schema=SCHEMA)


@dataclass
class Chunk:
    """Frozen rows, and the event times between which they lie (microseconds since 1970)."""

    first: int
    last: int
    frame: pl.DataFrame


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
        self._schemas: dict[int, _Columns] = {}
        self._open: list[_Rows] = []
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
            frame = record.decode_frame(payload)
            entry = record.decode_entry(frame.metadata)
            if type(entry) is record.Call:
                self._call(entry, frame)
            elif type(entry) is record.Later:
                self._later(entry)
            elif type(entry) is record.Schema:
                self._schemas[entry.number] = entry.columns
            elif type(entry) is record.End:
                self.ended = True
        self._freeze()

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
        columns = self._open[-1].columns if self._open else ()
        if work is not None:
            columns = self._schemas[work.signature]
        elif not self._open and self._schemas:
            columns = next(reversed(self._schemas.values()))
        if not self._open or self._open[-1].columns is not columns:
            self._open.append(_Rows(columns))
        rows = self._open[-1]
        start = rows.base + len(rows.call)
        rows.add(call, frame)
        if call.laters and work is not None:
            self._waiting[call.call] = _Waiting(rows, start, work.rows, call.laters, call.recorded)

    def _later(self, later: record.Later) -> None:
        waiting = self._waiting.get(later.call)
        if waiting is None:
            return
        for row in range(waiting.count):
            waiting.rows.answers[waiting.start - waiting.rows.base + row] += [_said(a, row) for a in later.answers]
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


@dataclass
class _Waiting:
    """A call whose shadows have not all answered: where its rows stand, and how many entries are to come."""

    rows: _Rows
    start: int
    count: int
    laters: int
    recorded: int


@dataclass
class _Rows:
    """Rows as Python lists, column by column, all of one schema; `base` rows before them are frozen."""

    columns: _Columns
    base: int = 0
    call: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    head: list[tuple[Any, ...]] = field(default_factory=list)
    answers: list[list[_Said]] = field(default_factory=list)
    inputs: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = [[] for _ in self.columns]

    def add(self, call: record.Call, frame: record.Frame) -> None:
        work = call.work
        if work is None:
            # A failed call is one row without a decision, so that failures are counted beside answers.
            self.call.append(call.call)
            self.row.append(0)
            self.head.append(
                (call.at, call.recorded, call.caller, call.policy, call.reason, call.key, call.version, None, None, None,
                 call.status, call.total_us, None, None, None, None, call.error)
            )  # fmt: skip
            self.answers.append([])
            for values in self.inputs:
                values.append(None)
            return
        key, entities, masked = call.key, work.entities, {}
        if frame.personal is not None:
            personal = record.decode_personal(frame.personal)
            key, entities, masked = personal.key, personal.entities, personal.columns
        chosen = next(answer for answer in work.answers if answer.version == work.answered)
        for row in range(work.rows):
            self.call.append(call.call)
            self.row.append(row)
            self.head.append(
                (call.at, call.recorded, call.caller, call.policy, call.reason, key, work.answered, chosen.scores[row],
                 chosen.decisions[row] if chosen.decisions else None, chosen.threshold, call.status, call.total_us,
                 entities[row] if entities is not None else None, work.table_version, work.request_id, work.fallback, None)
            )  # fmt: skip
            self.answers.append([_said(answer, row) for answer in work.answers])
        for (name, datatype, is_personal), values, given in zip(self.columns, self.inputs, work.inputs, strict=True):
            if is_personal:
                given = masked.get(name) if datatype == "BYTES" else None
            values += given if given is not None else [None] * work.rows

    def take(self, count: int, endpoint: str) -> Chunk:
        """Freeze the first `count` rows and let go of them."""
        chunk = self._frame(count, endpoint)
        self.base += count
        del self.call[:count], self.row[:count], self.head[:count], self.answers[:count]
        for values in self.inputs:
            del values[:count]
        return chunk

    def peek(self, endpoint: str) -> Chunk:
        """All rows as they are now."""
        return self._frame(len(self.call), endpoint)

    def _frame(self, count: int, endpoint: str) -> Chunk:
        heads = list(zip(*self.head[:count], strict=True))
        calls, numbers = self.call[:count], self.row[:count]
        plain: dict[str, Sequence[Any]] = {
            "prediction": [f"{call}/{row}" for call, row in zip(calls, numbers, strict=True)],
            "call": calls,
            "row": numbers,
            "at": heads[0],
            "recorded_at": heads[1],
            "caller": heads[2],
            "endpoint": [endpoint] * count,
            **dict(zip(_HEAD, heads[3:], strict=True)),
        }
        series = [
            pl.Series(name, values, dtype=pl.Int64).cast(MOMENT)
            if PLAIN[name] == MOMENT
            else pl.Series(name, values, dtype=PLAIN[name])
            for name, values in plain.items()
        ]
        inputs = pl.DataFrame(
            [
                pl.Series(name, values[:count], dtype=INPUT_TYPES[datatype])
                for (name, datatype, _), values in zip(self.columns, self.inputs, strict=True)
            ]
        )
        nested = inputs.to_struct("inputs") if self.columns else pl.Series("inputs", [{}] * count, dtype=pl.Struct([]))
        frame = pl.DataFrame([*series, nested, _answers(self.answers[:count])])
        return Chunk(min(heads[0]), max(heads[0]), frame)


def _said(answer: record.Answer, row: int) -> _Said:
    if answer.error is not None:
        return (answer.version, answer.role, None, None, answer.threshold, answer.error)
    decision = answer.decisions[row] if answer.decisions else None
    return (answer.version, answer.role, answer.scores[row], decision, answer.threshold, None)


def _answers(rows: list[list[_Said]]) -> pl.Series:
    offsets, flat = [0], list[_Said]()
    for said in rows:
        flat += said
        offsets.append(len(flat))
    columns = list(zip(*flat, strict=True)) if flat else [()] * len(ANSWER.fields)
    fields = [pl.Series(one.name, values, dtype=one.dtype) for one, values in zip(ANSWER.fields, columns, strict=True)]
    return lists("answers", pl.DataFrame(fields), offsets)


def lists(name: str, rows: pl.DataFrame, offsets: list[int]) -> pl.Series:
    """Rows as structs, gathered into lists which begin at `offsets`."""
    # By way of polars, since pyarrow imports pandas to look at plain Python values.
    oldest = pl.CompatLevel.oldest()
    arrays = [column.to_arrow(compat_level=oldest) for column in rows]
    starts = pl.Series(offsets, dtype=pl.Int64).to_arrow(compat_level=oldest)
    nested = pa.LargeListArray.from_arrays(starts, pa.StructArray.from_arrays(arrays, rows.columns))
    return pl.Series(name, nested, dtype=pl.List(pl.Struct(rows.schema)))


def align(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One frame of all, in order of event time; where signatures differ, `inputs` has the columns of all of them."""
    given = [frame for frame in frames if frame.height]
    if not given:
        return empty()
    kinds = {repr(frame.schema["inputs"]): frame.schema["inputs"] for frame in given}
    if len(kinds) > 1:
        fields: dict[str, pl.DataType] = {}
        for kind in kinds.values():
            for one in kind.fields:  # type: ignore[attr-defined]
                known = fields.get(one.name)
                fields[one.name] = one.dtype if known is None or known == one.dtype else _wider(known, one.dtype)
        given = [_with_inputs(frame, fields) for frame in given]
    whole = pl.concat(given) if len(given) > 1 else given[0]
    return whole.sort("at", "call", "row")


def _with_inputs(frame: pl.DataFrame, fields: dict[str, pl.DataType]) -> pl.DataFrame:
    has = {one.name for one in frame.schema["inputs"].fields}  # type: ignore[attr-defined]
    parts = [
        (pl.col("inputs").struct.field(name) if name in has else pl.lit(None)).cast(kind).alias(name)
        for name, kind in fields.items()
    ]
    return frame.with_columns(pl.struct(parts).alias("inputs"))


def _wider(left: pl.DataType, right: pl.DataType) -> pl.DataType:
    return pl.Float64() if left.is_numeric() and right.is_numeric() else pl.String()
