"""Calls decoded together, in whatever portions, are the calls decoded one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.core.errors import Damaged
from instar.serve.log import decoding, prediction_rows, record, segments
from instar.serve.log.record import Answer, Frame, Personal, Schema, Tensor
from tests.serve.writing import BEGIN, COLUMNS, Segment

TABLE = Schema(0, (*COLUMNS, ("name", "BYTES", True)))
TENSORS = Schema(0, (), (("x", "FP32", (-1, 2), False), ("words", "BYTES", (-1,), False)), (), True)

Write = Callable[[Segment], object]


def _answer(version: int, rows: int, tensors: bool, failed: bool = False) -> Answer:
    if failed:
        return Answer(version, "shadow", [], [], 0.3, "ValueError: no")
    score = [version + row / 8 for row in range(rows)]
    other = [Tensor("y", "INT64", (rows, 1), np.arange(rows, dtype=np.int64).tobytes())] if tensors else None
    return Answer(version, "champion", score, [] if tensors else [1] * rows, None if tensors else 0.3, None, other)


@st.composite
def _calls(draw: Any, tensors: bool) -> list[Write]:
    """What to write of some calls: each item writes a call and what comes later of it."""
    made: list[Write] = []
    for number in range(draw(st.integers(1, 12))):
        rows, extra = draw(st.integers(1, 3)), draw(st.lists(st.booleans(), max_size=2))
        others = [_answer(10 + place, rows, tensors, failed) for place, failed in enumerate(extra)]
        later = draw(st.booleans())
        personal = Personal({"name": [f"masked:{row}" for row in range(rows)]}, [f"E{row}" for row in range(rows)], "k")
        who = personal if draw(st.booleans()) else None
        if draw(st.integers(0, 5)) == 0:
            made.append(lambda segment: segment.failed())
        elif tensors:
            limit = draw(st.sampled_from(["whole", "sampled", "absent"]))
            made.append(lambda segment, a=(number, rows, others, later, limit): _tensor_call(segment, *a))
        else:
            made.append(lambda segment, a=(rows, others, later, who): _table_call(segment, *a))
    return made


def _table_call(segment: Segment, rows: int, others: list[Answer], later: bool, who: Personal | None) -> None:
    inputs: list[Any] = [[float(row) for row in range(rows)], ["UA"] * rows if later else None, None]
    call = segment.call(BEGIN, inputs, rows=rows, personal=who, laters=int(later), extra=[] if later else others)
    if later:
        segment.later(call, *others)


def _tensor_call(segment: Segment, number: int, rows: int, others: list[Answer], later: bool, limit: str) -> None:
    x = Tensor("x", "FP32", (rows, 2), np.arange(rows * 2, dtype=np.float32).tobytes())
    if limit == "sampled":
        x = Tensor("x", "FP32", (rows, 2), x.data[:8], x.data[-8:], bytes(32), rows * 8)
    words = [] if limit == "absent" else [Tensor("words", "BYTES", (rows,), [f"w{number}", b"\xff", "é"][:rows])]
    score = Tensor("score", "FP32", (rows, 1), np.full(rows, number, dtype=np.float32).tobytes())
    call = segment.tensor_call(
        [*words, x], [score], rows=rows, laters=int(later), scores=[0.5] * rows, extra=[] if later else others
    )
    if later:
        segment.later(call, *others)


def _frames(segment: Segment) -> list[Frame]:
    return [record.decode_frame(payload) for payload in segments.read(segment.path)[0]]


def _one_by_one(segment: Segment) -> list[dict[str, Any]]:
    """Each call decoded with the description of its columns and its own entries alone."""
    frames = [(frame, record.decode_entry(frame.metadata)) for frame in _frames(segment)]
    schemas = [frame for frame, entry in frames if isinstance(entry, Schema)]
    found = []
    for call in [entry.call for _, entry in frames if isinstance(entry, record.Call)]:
        own = [frame for frame, entry in frames if getattr(entry, "call", None) == call]
        found += decoding.decode(segment.name, [*schemas, *own]).to_dicts()
    return sorted(found, key=lambda row: (row["at"], row["call"], row["row"]))


@pytest.mark.parametrize("schema", [TABLE, TENSORS], ids=["table", "tensors"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_calls_decoded_together_are_those_decoded_one_by_one(
    schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    segment = Segment(tmp_path)
    segment.put(record.encode_entry(schema))
    for write in data.draw(_calls(bool(schema.tensors))):
        write(segment)
    wanted = _one_by_one(segment)
    for portion in (8192, 3):
        monkeypatch.setattr(prediction_rows, "CALLS_AT_ONCE", portion)
        got = decoding.decode(segment.name, _frames(segment)).to_dicts()
        assert [_without_nothing(row) for row in got] == [_without_nothing(row) for row in wanted]


def _without_nothing(row: dict[str, Any]) -> dict[str, Any]:
    """A call alone has no outputs where it failed; beside others it has nulls."""
    outputs = {name: cell for name, cell in (row.get("outputs") or {}).items() if cell is not None}
    return {**row, "inputs": {n: v for n, v in row["inputs"].items() if v is not None}, "outputs": outputs}


def test_a_call_that_contradicts_itself_is_damage(tmp_path: Path) -> None:
    segment = Segment(tmp_path)
    segment.schema()
    segment.call(BEGIN, ([1.0, 2.0], ["UA"]), rows=2)
    with pytest.raises(Damaged, match="another number of values than rows"):
        decoding.decode(segment.name, _frames(segment))


def test_a_call_without_the_answer_that_was_returned_is_damage(tmp_path: Path) -> None:
    segment = Segment(tmp_path)
    segment.put(record.encode_entry(TABLE))
    work = record.Work(None, None, None, 0, 1, [[1.0], ["UA"], None], 9, [_answer(3, 1, False)], 1, 2)
    segment.put(record.encode_entry(record.Call("call", 1, 2, "ada", 7, "champion", 3, None, 200, 4, 3, None, work)))
    with pytest.raises(Damaged, match="no answer of the version"):
        decoding.decode(segment.name, _frames(segment))
