from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.store import Store
from instar.serve.log import keeping, record, sealing, verification
from instar.serve.log.calls import CallLog
from instar.serve.log.record import Answer, Personal, Schema, Tensor
from instar.serve.log.tensor_rows import VALUE_TYPES, parts, series
from instar.serve.protocol.signature import ELEMENT_BYTES
from instar.serve.protocol.tensors import DTYPES
from tests.serve.writing import Segment

SCHEMA = Schema(
    0, (), (("x", "FP32", (-1, 2), False), ("words", "BYTES", (-1,), False)), (("score", "FP32", (-1, 1)),), True
)


def kept(name: str, datatype: str, values: Any, limit: int = keeping.LIMIT_BYTES) -> Tensor:
    array = np.array(values, dtype=DTYPES[datatype])
    return keeping.keep([(name, datatype, array)], limit)[0]


def x(*rows: list[float]) -> Tensor:
    return kept("x", "FP32", rows)


def whole(shape: list[int], data: Any) -> dict[str, Any]:
    return {"shape": shape, "data": data, "tail": None, "digest": None, "size": None}


def segment(store: Store, schema: Schema = SCHEMA, number: int = 0) -> Segment:
    made = Segment(store.folder, number=number)
    made.put(record.encode_entry(schema))
    return made


def test_a_call_is_a_prediction_a_row(store: Store) -> None:
    writing = segment(store)
    call = writing.tensor_call(
        [x([1, 2], [3, 4]), kept("words", "BYTES", ["a", "b"])],
        [kept("score", "FP32", [[0.25], [0.75]])],
        rows=2,
        scores=[0.25, 0.75],
        extra=[Answer(1, "frozen", [], [], None, None, [kept("other", "INT64", [[7, 8], [9, 10]])])],
    )
    frame = CallLog(store).read("delay")
    assert frame["prediction"].to_list() == [f"{call}/0", f"{call}/1"]
    assert frame["score"].to_list() == [0.25, 0.75]
    assert frame["decision"].to_list() == [None, None]
    assert frame["inputs"].to_list() == [
        {"x": whole([2], [1, 2]), "words": whole([], ["a"])},
        {"x": whole([2], [3, 4]), "words": whole([], ["b"])},
    ]
    assert frame["outputs"].to_list() == [{"score": whole([1], [0.25])}, {"score": whole([1], [0.75])}]
    champion, frozen = frame["answers"][1]
    assert (champion["outputs"], frozen["score"]) == (None, None)
    assert json.loads(frozen["outputs"]) == {"other": {"shape": [2], "data": [9, 10]}}


def test_a_call_that_has_no_rows_is_one_prediction(store: Store) -> None:
    writing = segment(store, Schema(0, (), (("x", "FP32", (2, 2), False),), (("y", "INT64", (-1,)),), False))
    writing.tensor_call([x([1, 2], [3, 4])], [kept("y", "INT64", [5, 6, 7])])
    frame = CallLog(store).read("delay")
    assert frame["inputs"].to_list() == [{"x": whole([2, 2], [1, 2, 3, 4])}]
    assert frame["outputs"].to_list() == [{"y": whole([3], [5, 6, 7])}]


def test_an_input_that_was_not_given_is_null_and_failures_are_rows(store: Store) -> None:
    writing = segment(store)
    writing.failed()
    writing.tensor_call([x([1, 2])], [kept("score", "FP32", [[0.5]])])
    frame = CallLog(store).read("delay").sort("status")
    assert frame["inputs"].to_list()[0] == {"x": whole([2], [1, 2]), "words": None}
    assert frame["status"].to_list() == [200, 503]
    assert frame["outputs"][1] is None


def test_versions_whose_outputs_differ_are_joined(store: Store) -> None:
    writing = segment(store)
    for output in (kept("score", "FP32", [[0.5]]), kept("score", "FP64", [[0.25]]), kept("label", "BYTES", ["yes"])):
        writing.tensor_call([x([1, 2])], [output])
    frame = CallLog(store).read("delay")
    assert [row["score"] and row["score"]["data"] for row in frame["outputs"]] == [[0.5], [0.25], None]
    assert [row["label"] and row["label"]["data"] for row in frame["outputs"]] == [None, None, ["yes"]]


def test_answers_that_come_later_have_their_outputs(store: Store) -> None:
    writing = segment(store)
    call = writing.tensor_call([x([1, 2], [3, 4])], [kept("score", "FP32", [[1], [2]])], rows=2, laters=1)
    writing.later(call, Answer(1, "frozen", [0.1, 0.2], [], None, None, [kept("score", "FP32", [[0.5], [2]])]))
    said = [answers[1] for answers in CallLog(store).read("delay")["answers"].to_list()]
    assert [(one["score"], json.loads(one["outputs"])["score"]["data"]) for one in said] == [(0.1, [0.5]), (0.2, [2.0])]


def test_personal_text_comes_masked_and_personal_numbers_not_at_all(store: Store) -> None:
    writing = segment(store)
    hidden = [Tensor("x", "FP32", (1, 2), b""), Tensor("words", "BYTES", (1,), [])]
    writing.tensor_call(hidden, [kept("score", "FP32", [[1]])], personal=Personal({"words": ["masked:1"]}, None))
    assert CallLog(store).read("delay")["inputs"].to_list() == [
        {"x": whole([2], None), "words": whole([], ["masked:1"])}
    ]


def test_the_log_reads_the_same_when_it_was_sealed(store: Store) -> None:
    for number in range(2):
        writing = segment(store, number=number)
        writing.tensor_call([x([1, 2], [3, 4])], [kept("score", "FP32", [[1], [2]])], rows=2)
        writing.tensor_call([x([5, 6])], [kept("label", "UINT64", [[2**64 - 1]])])
        writing.end()
    before = CallLog(store).read("delay")
    sealing.seal(store, grace_seconds=-1.0)
    sealing.seal(store, grace_seconds=-1.0)
    after = CallLog(store).read("delay")
    assert after.to_dicts() == before.to_dicts()
    found = CallLog(store).find(before["prediction"][1])
    assert found["inputs"]["x"]["data"] == [3, 4]
    assert verification.verify(store) == []


def test_what_was_sealed_before_there_were_outputs_is_read(store: Store) -> None:
    """Table rows of an endpoint whose answers had no field for outputs, beside rows of today."""
    writing = Segment(store.folder)
    writing.schema()
    writing.call()
    frame = CallLog(store).read("delay")
    fields = [name for name in frame["answers"].dtype.inner.to_schema() if name != "outputs"]  # type: ignore[attr-defined]
    old = frame.with_columns(pl.col("answers").list.eval(pl.struct([pl.element().struct.field(f) for f in fields])))
    from instar.serve.log import aligning

    assert aligning.align([old, frame]).height == 2
    assert aligning.align([old])["answers"][0][0]["outputs"] is None


@pytest.mark.parametrize("datatype", sorted(VALUE_TYPES))
def test_every_datatype_comes_back(datatype: str) -> None:
    values = {"BOOL": [True, False], "BYTES": ["a", "é"]}.get(datatype, [1, 100])
    if datatype in ELEMENT_BYTES and "INT" in datatype:
        limits = np.iinfo(DTYPES[datatype])
        values = [int(limits.min), int(limits.max)]
    tensor = kept("t", datatype, values)
    assert series("t", datatype, [tensor], [1], False).struct.field("data").to_list()[0] == values


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 30), max_size=2),
    st.sampled_from(["FP32", "INT64", "BYTES"]),
    st.integers(1, 9000),
)
def test_a_sample_keeps_the_ends_and_a_digest(rows: int, inner: list[int], datatype: str, limit: int) -> None:
    count = rows * int(np.prod(inner))
    plain: list[Any] = [f"v{n}" for n in range(count)] if datatype == "BYTES" else list(range(count))
    array = np.array(plain, dtype=DTYPES[datatype]).reshape(rows, *inner)
    tensor = keeping.keep([("t", datatype, array)], limit)[0]
    got = series("t", datatype, [tensor], [rows], True).to_list()
    width = count // rows
    size = sum(map(len, plain)) if datatype == "BYTES" else array.nbytes
    assert [one["shape"] for one in got] == [inner] * rows
    for row, one in enumerate(got):
        if size <= limit:
            assert (one["data"], one["digest"]) == (plain[row * width : (row + 1) * width], None)
        elif one["data"] is not None and rows > 1:
            assert one["data"] == plain[row * width : (row + 1) * width]
        if size > limit:
            assert (one["size"], one["digest"][:3]) == (size, "b3:")
    if size > limit:
        if datatype != "BYTES":
            assert tensor.digest == blake3(array.tobytes()).digest()
        if width <= keeping.SAMPLE_VALUES // 2 and rows > 1:
            assert got[0]["data"] is not None
            assert got[-1]["data"] is not None


def test_an_image_is_sampled(store: Store) -> None:
    image = np.arange(16 * 1024 * 1024, dtype=np.uint8).reshape(1, 16, 1024, 1024)
    tensor = keeping.keep([("image", "UINT8", image)])[0]
    assert len(record.encode_entry([Answer(1, "x", [], [], None, None, [tensor])])) < 1000
    assert (tensor.size, tensor.shape) == (16 * 1024 * 1024, (1, 16, 1024, 1024))
    (part,) = parts(tensor, 1, True)
    assert (len(part.data or b""), len(part.tail or b"")) == (256, 256)
