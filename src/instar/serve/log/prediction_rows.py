"""Predictions as they are gathered from recorded calls, when the log is read: call by call, frozen into data frames at once.

What a call says once (who, when, which version) is kept once, and repeated for its rows when a frame is made; what it says of
each row is laid end to end. So a call of one row costs a few microseconds, and one of a hundred not much more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import polars as pl

from instar.serve.log import answer_rows, record, tensor_rows
from instar.serve.log.answer_rows import ANSWER

INPUT_TYPES: dict[str, pl.DataType] = {
    "BOOL": pl.Boolean(), "INT32": pl.Int32(), "INT64": pl.Int64(), "FP32": pl.Float32(), "FP64": pl.Float64(),
    "BYTES": pl.String(),
}  # fmt: skip
MOMENT = pl.Datetime("us", "UTC")
# The columns of the log, in order; `inputs` (a struct) and `answers` follow, and for tensor models `outputs` (a struct).
PLAIN: dict[str, pl.DataType] = {
    "prediction": pl.String(), "call": pl.String(), "row": pl.Int64(), "at": MOMENT, "recorded_at": MOMENT,
    "caller": pl.String(), "endpoint": pl.String(), "policy": pl.Int64(), "reason": pl.String(), "key": pl.String(),
    "version": pl.Int64(), "score": pl.Float64(), "decision": pl.Int64(), "threshold": pl.Float64(),
    "status": pl.Int64(), "latency_us": pl.Int64(), "entity": pl.String(), "table_version": pl.String(),
    "request_id": pl.String(), "fallback": pl.String(), "error": pl.String(),
}  # fmt: skip
# Columns that a call says once, and the fields of its entry in which they stand.
_OF_CALL = (
    "call", "at", "recorded_at", "caller", "policy", "reason", "key", "version", "status", "latency_us", "table_version",
    "request_id", "fallback", "work",
)  # fmt: skip
_FIELDS = (
    "call", "at", "recorded", "caller", "policy", "reason", "key", "work.answered", "status", "total_us",
    "work.table_version", "work.request_id", "work.fallback", "work",
)  # fmt: skip
_of_call = attrgetter(*_FIELDS)
SCHEMA: dict[str, pl.DataType] = {**PLAIN, "inputs": pl.Struct([]), "answers": pl.List(ANSWER)}
OUTPUTS = "outputs"

# Gathered as Python objects before they are frozen: more would cost memory, and time of the collector of garbage.
CALLS_AT_ONCE = 8_192
ROWS_AT_ONCE = 65_536

# What tells the rows of one frame from those of another: their schema, and names and datatypes of the outputs that were given.
Kind = tuple[record.Schema, tuple[tuple[str, str], ...]]


@dataclass
class Chunk:
    """Frozen rows of one kind, and the event times between which they lie (microseconds since 1970).

    Attributes:
        kind: Place of the kind among those of its segment.
    """

    first: int
    last: int
    frame: pl.DataFrame
    kind: int

    def holds(self, call: str) -> bool:
        """Is a call among them?"""
        low, high = self._between
        return low <= call <= high and call in self._calls

    @cached_property
    def _between(self) -> tuple[str, str]:
        return self.frame["call"].min(), self.frame["call"].max()  # type: ignore[return-value]

    @cached_property
    def _calls(self) -> frozenset[str]:
        return frozenset(self.frame["call"].to_list())


class Rows:
    """Calls of one kind, until they are frozen.

    Attributes:
        place: Of the kind among those of its segment.
        size: Rows that they make.
    """

    def __init__(self, kind: Kind, place: int) -> None:
        self.kind = kind
        self.place = place
        self.size = 0
        self._calls: list[record.Call] = []
        self._failed: list[record.Call] = []
        self._later: dict[int, Sequence[record.Answer]] = {}  # by the place of their call
        self._personal: dict[int, record.Personal] = {}

    def add(self, call: record.Call, frame: record.Frame, later: Sequence[record.Answer] = ()) -> None:
        """One call: a row for each of its predictions, or one for a call that failed.

        Args:
            later: Answers of its shadows that came after its own entry.
        """
        if call.work is None:
            if frame.personal is not None:
                call = msgspec.structs.replace(call, key=record.decode_personal(frame.personal).key)
            self._failed.append(call)
            self.size += 1
            return
        if later:
            self._later[len(self._calls)] = later
        if frame.personal is not None:
            self._personal[len(self._calls)] = record.decode_personal(frame.personal)
        self._calls.append(call)
        self.size += call.work.rows

    @property
    def full(self) -> bool:
        """Is it time to freeze them?"""
        return self.size >= ROWS_AT_ONCE or len(self._calls) >= CALLS_AT_ONCE

    def take(self, endpoint: str) -> Chunk:
        """Freeze all and let go of them.

        Raises:
            Damaged: What a call holds of its rows is more or less than they are.
        """
        moments = [call.at for call in self._calls] + [call.at for call in self._failed]
        # A failed call is one row without a decision, so that failures are counted beside answers.
        found = [self._answered(endpoint)] if self._calls else []
        found += [self._without_answers(endpoint)] if self._failed else []
        self.__init__(self.kind, self.place)  # type: ignore[misc]
        return Chunk(min(moments), max(moments), pl.concat(found), self.place)

    def _answered(self, endpoint: str) -> pl.DataFrame:
        heads = dict(zip(_OF_CALL, zip(*map(_of_call, self._calls), strict=True), strict=True))
        works = heads.pop("work")
        entities = [work.entities for work in works]
        if self._personal:
            heads["key"] = tuple(
                self._personal[place].key if place in self._personal else key for place, key in enumerate(heads["key"])
            )
            for place, personal in self._personal.items():
                entities[place] = personal.entities
        rows = [work.rows for work in works]
        counts = np.array(rows, dtype=np.int64)
        calls = pl.DataFrame([_column(name, values) for name, values in heads.items()])
        said = [work.answers for work in works]
        for place, later in self._later.items():
            said[place] = [*said[place], *later]
        answers, returned = answer_rows.columns(said, heads["version"], rows, self.kind[0].rows)
        whole = answer_rows.repeated(calls, counts).with_columns(
            pl.Series("row", answer_rows.within(counts), dtype=pl.Int64),
            pl.lit(endpoint).alias("endpoint"),
            pl.lit(None, dtype=pl.String).alias("error"),
            pl.Series("entity", answer_rows.laid_out(entities, rows), dtype=pl.String),
            *returned,
        )
        return self._framed(whole, self._inputs(works, rows), answers, self._outputs(works, rows))

    def _without_answers(self, endpoint: str) -> pl.DataFrame:
        calls, count = self._failed, len(self._failed)
        known: dict[str, list[Any]] = {
            name: [getattr(call, field) for call in calls]
            for name, field in zip(_OF_CALL, _FIELDS, strict=True)
            if "work" not in field
        }
        known |= {"version": [one.version for one in calls], "error": [one.error for one in calls], "row": [0] * count}
        whole = pl.DataFrame(
            [_column(name, known.get(name, [None] * count)) for name in PLAIN if name not in ("prediction", "endpoint")]
        ).with_columns(pl.lit(endpoint).alias("endpoint"))
        nobody = answer_rows.lists("answers", pl.DataFrame(schema=answer_rows.TYPES), [0] * (count + 1))
        schema, outputs = self.kind
        rows, none = [1] * count, [None] * count
        if schema.tensors:
            inputs = [tensor_rows.series(name, kind, none, rows, True) for name, kind, _, _ in schema.tensors]
        else:
            inputs = [pl.Series(name, none, dtype=INPUT_TYPES[kind]) for name, kind, _ in schema.columns]
        return self._framed(
            whole, inputs, nobody, [tensor_rows.series(name, kind, none, rows, True) for name, kind in outputs]
        )

    def _framed(
        self, whole: pl.DataFrame, inputs: Sequence[pl.Series], answers: pl.Series, outputs: Sequence[pl.Series]
    ) -> pl.DataFrame:
        named = whole.with_columns(pl.concat_str("call", pl.lit("/"), "row").alias("prediction")).select(list(PLAIN))
        given = pl.DataFrame(inputs).to_struct("inputs")
        if not inputs:
            given = pl.Series("inputs", [{}] * whole.height, dtype=pl.Struct([]))
        made = named.with_columns(given, answers)
        return made.with_columns(pl.DataFrame(outputs).to_struct(OUTPUTS)) if outputs else made

    def _inputs(self, works: Sequence[record.Work], rows: Sequence[int]) -> list[pl.Series]:
        schema = self.kind[0]
        if schema.tensors:
            given: list[Sequence[record.Tensor]] = [work.tensors or () for work in works]
            return [
                tensor_rows.series(name, datatype, self._masked(name, column), rows, schema.rows)
                for (name, datatype, _, _), column in zip(
                    schema.tensors, _by_name(given, [one[0] for one in schema.tensors]), strict=True
                )
            ]
        found = []
        for place, (name, datatype, is_personal) in enumerate(schema.columns):
            values: list[Any] = [work.inputs[place] for work in works]
            if is_personal:
                values = [None] * len(works)
                for at, personal in self._personal.items() if datatype == "BYTES" else ():
                    values[at] = personal.columns.get(name)
            found.append(pl.Series(name, answer_rows.laid_out(values, rows), dtype=INPUT_TYPES[datatype]))
        return found

    def _masked(self, name: str, column: list[Any]) -> list[Any]:
        """Of a personal tensor of text its masked values stand in the personal part."""
        for place, personal in self._personal.items():
            if name in personal.columns and column[place] is not None:
                column[place] = msgspec.structs.replace(column[place], data=personal.columns[name])
        return column

    def _outputs(self, works: Sequence[record.Work], rows: Sequence[int]) -> list[pl.Series]:
        kinds = self.kind[1]
        if not kinds:
            return []
        given: list[Sequence[record.Tensor]] = [
            answer_rows.chosen(work.answers, work.answered).outputs or () for work in works
        ]
        return [
            tensor_rows.series(name, datatype, [one[place] for one in given], rows, self.kind[0].rows)
            for place, (name, datatype) in enumerate(kinds)
        ]


def _by_name(given: Sequence[Sequence[record.Tensor]], names: Sequence[str]) -> list[list[Any]]:
    """Tensors of calls, name by name; null where a call had none of that name."""
    if all(len(tensors) == len(names) for tensors in given):
        columns = [[tensors[place] for tensors in given] for place in range(len(names))]
        if all({one.name for one in column} == {name} for name, column in zip(names, columns, strict=True)):
            return columns
    known = [{tensor.name: tensor for tensor in tensors} for tensors in given]
    return [[one.get(name) for one in known] for name in names]


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    if PLAIN[name] == MOMENT:
        return pl.Series(name, values, dtype=pl.Int64).cast(MOMENT)
    return answer_rows.constant_or(name, PLAIN[name], values)
