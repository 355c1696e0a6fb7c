"""Predictions as they are gathered from recorded calls, when the log is read: column by column, frozen into data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from instar.serve.log import record, tensor_rows

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
        "outputs": pl.String,
    }
)
# The columns of the log, in order; `inputs` (a struct) and `answers` follow, and for tensor models `outputs` (a struct).
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
OUTPUTS = "outputs"

_Said = tuple[int, str, float | None, int | None, float | None, str | None, str | None]

# What tells the rows of one frame from those of another: their schema, and names and datatypes of the outputs that were given.
Kind = tuple[record.Schema, tuple[tuple[str, str], ...]]


@dataclass
class Chunk:
    """Frozen rows, and the event times between which they lie (microseconds since 1970)."""

    first: int
    last: int
    frame: pl.DataFrame


@dataclass
class Rows:
    """Rows as Python lists, column by column, all of one kind; `base` rows before them are frozen."""

    kind: Kind
    base: int = 0
    call: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    head: list[tuple[Any, ...]] = field(default_factory=list)
    answers: list[list[_Said]] = field(default_factory=list)
    inputs: list[list[Any]] = field(default_factory=list)
    outputs: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        schema, outputs = self.kind
        self.inputs = [[] for _ in schema.columns or schema.tensors]
        self.outputs = [[] for _ in outputs]

    def add(self, call: record.Call, frame: record.Frame) -> None:
        """One call: a row for each of its predictions, or one for a call that failed."""
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
            for values in (*self.inputs, *self.outputs):
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
                (call.at, call.recorded, call.caller, call.policy, call.reason, key, work.answered,
                 chosen.scores[row] if chosen.scores else None, chosen.decisions[row] if chosen.decisions else None,
                 chosen.threshold, call.status, call.total_us, entities[row] if entities is not None else None,
                 work.table_version, work.request_id, work.fallback, None)
            )  # fmt: skip
        self.answers += self.said(work.answers, work.rows, chosen)
        if work.tensors is None:
            self._add_columns(work, masked)
        else:
            self._add_tensors(work, masked, chosen.outputs or [])

    def said(
        self, answers: Sequence[record.Answer], rows: int, chosen: record.Answer | None = None
    ) -> list[list[_Said]]:
        """What versions said, by prediction; outputs of the one that was returned stand in the columns already."""
        by_rows, gathered = self.kind[0].rows, list[list[_Said]]([] for _ in range(rows))
        for one in answers:
            outputs: Sequence[str | None] = [None] * rows
            if one.outputs is not None and one is not chosen:
                outputs = tensor_rows.as_json(one.outputs, rows, by_rows)
            for row, said in enumerate(gathered):
                score = one.scores[row] if one.scores else None
                decision = one.decisions[row] if one.decisions else None
                said.append((one.version, one.role, score, decision, one.threshold, one.error, outputs[row]))
        return gathered

    def _add_columns(self, work: record.Work, masked: dict[str, list[Any]]) -> None:
        for (name, datatype, is_personal), values, given in zip(
            self.kind[0].columns, self.inputs, work.inputs, strict=True
        ):
            if is_personal:
                given = masked.get(name) if datatype == "BYTES" else None
            values += given if given is not None else [None] * work.rows

    def _add_tensors(self, work: record.Work, masked: dict[str, list[Any]], answered: Sequence[record.Tensor]) -> None:
        schema, outputs = self.kind
        given = {tensor.name: tensor for tensor in work.tensors or ()}
        for (name, _, _, _), column in zip(schema.tensors, self.inputs, strict=True):
            tensor = given.get(name)
            if tensor is not None and name in masked:
                tensor = msgspec.structs.replace(tensor, data=masked[name])
            column += tensor_rows.cells(tensor, work.rows, schema.rows) if tensor is not None else [None] * work.rows
        for _, column, tensor in zip(outputs, self.outputs, answered, strict=True):
            column += tensor_rows.cells(tensor, work.rows, schema.rows)

    def take(self, count: int, endpoint: str) -> Chunk:
        """Freeze the first `count` rows and let go of them."""
        chunk = self._frame(count, endpoint)
        self.base += count
        del self.call[:count], self.row[:count], self.head[:count], self.answers[:count]
        for values in (*self.inputs, *self.outputs):
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
        frame = pl.DataFrame([*series, self._inputs(count), _answers(self.answers[:count])])
        outputs = self.kind[1]
        if outputs:
            given = [
                tensor_rows.series(name, datatype, column[:count])
                for (name, datatype), column in zip(outputs, self.outputs, strict=True)
            ]
            frame = frame.with_columns(pl.DataFrame(given).to_struct(OUTPUTS))
        return Chunk(min(heads[0]), max(heads[0]), frame)

    def _inputs(self, count: int) -> pl.Series:
        schema = self.kind[0]
        if schema.tensors:
            given = [
                tensor_rows.series(name, datatype, column[:count])
                for (name, datatype, _, _), column in zip(schema.tensors, self.inputs, strict=True)
            ]
        else:
            given = [
                pl.Series(name, values[:count], dtype=INPUT_TYPES[datatype])
                for (name, datatype, _), values in zip(schema.columns, self.inputs, strict=True)
            ]
        return (
            pl.DataFrame(given).to_struct("inputs") if given else pl.Series("inputs", [{}] * count, dtype=pl.Struct([]))
        )


def kind_of(schema: record.Schema, work: record.Work | None) -> Kind:
    """The kind of rows that a call makes."""
    if work is None or work.tensors is None:
        return schema, ()
    chosen = next(answer for answer in work.answers if answer.version == work.answered)
    return schema, tuple((tensor.name, tensor.datatype) for tensor in chosen.outputs or ())


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
