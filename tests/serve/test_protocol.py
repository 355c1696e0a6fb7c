from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import MalformedRequest, MissingInput, RequestError, WrongDatatype, WrongShape
from instar.core.limits import Limits
from instar.serve.protocol.columns import Binder, Bound, bind
from instar.serve.protocol.replies import Output, encode_answer, encode_error
from instar.serve.protocol.signature import InputColumn, Signature
from instar.serve.protocol.v2_json import decode
from tests.serve.fakes import SIGNATURE, body

BINDER = Binder(SIGNATURE)


def read(value: Any) -> Bound:
    return BINDER.read(json.dumps(value).encode())


def changed(column: str, /, **changes: Any) -> dict[str, Any]:
    request = body()
    tensor = next(t for t in request["inputs"] if t["name"] == column)
    tensor.update(changes)
    return request


def test_a_good_request_is_bound_by_column() -> None:
    bound = read({**body(1400), "id": "mine", "parameters": {"entity": "UA 17", "table_version": "tver_1"}})
    assert bound.columns == {"distance": [1400.0], "hour": [8], "carrier": ["UA"], "wind": [None], "holiday": [False]}
    asked = bound.asked
    assert (bound.rows, asked.request_id, asked.entities, asked.table_version) == (1, "mine", ["UA 17"], "tver_1")


def test_numbers_widen_without_loss() -> None:
    bound = read(changed("distance", datatype="INT32", data=[7]))
    assert bound.columns["distance"] == [7.0]
    assert isinstance(bound.columns["distance"][0], float)


def test_nested_data_of_one_column_is_flat() -> None:
    request = body()
    for tensor in request["inputs"]:
        tensor.update(shape=[2, 1], data=[[tensor["data"][0]]] * 2)
    assert read(request).columns["distance"] == [1000.0, 1000.0]


def test_a_column_that_is_not_required_may_be_left_out_and_given() -> None:
    signature = Signature((InputColumn("a", "FP64"), InputColumn("b", "FP64", nullable=True, required=False)))
    given = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in (("a", 1.0), ("b", 2.0))
    ]
    for inputs, columns in ((given[:1], {"a": [1.0]}), (given, {"a": [1.0], "b": [2.0]})):
        assert bind(decode(json.dumps({"inputs": inputs}).encode()), signature).columns == columns


EXTRA = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}

BAD: list[tuple[str, Any, type[RequestError], str]] = [
    ("missing column", {"inputs": body()["inputs"][1:]}, MissingInput, "$.inputs"),
    ("renamed column", changed("distance", name="distanse"), MissingInput, "$.inputs"),
    ("no inputs", {"inputs": []}, MissingInput, "$.inputs"),
    ("extra column", {"inputs": [*body()["inputs"], EXTRA]}, MalformedRequest, "$.inputs[5].name"),
    ("column twice", {"inputs": [body()["inputs"][0], *body()["inputs"]]}, MalformedRequest, "$.inputs[1].name"),
    ("inputs no list", {"inputs": {}}, MalformedRequest, "$.inputs"),
    ("no object", [1], MalformedRequest, "$"),
    ("shape lies", changed("distance", shape=[2]), WrongShape, "$.inputs[0].shape"),
    ("shape is a matrix", changed("distance", shape=[1, 2], data=[1, 2]), WrongShape, "$.inputs[0].shape"),
    ("shape is empty", changed("distance", shape=[]), WrongShape, "$.inputs[0].shape"),
    ("shape is text", changed("distance", shape=["1"]), MalformedRequest, "$.inputs[0].shape[0]"),
    ("shape is negative", changed("distance", shape=[-1]), WrongShape, "$.inputs[0].shape"),
    ("zero rows", changed("distance", shape=[0], data=[]), WrongShape, "$.inputs[0].data"),
    ("rows differ", changed("hour", shape=[2], data=[1, 2]), WrongShape, "$.inputs[1].shape"),
    ("ragged rows", changed("distance", shape=[2, 1], data=[[1.0], [1.0, 2.0]]), WrongShape, "$.inputs[0].data[1]"),
    ("text for a number", changed("distance", data=["far"]), WrongDatatype, "$.inputs[0].data[0]"),
    ("true for a number", changed("distance", data=[True]), WrongDatatype, "$.inputs[0].data[0]"),
    ("number for text", changed("carrier", data=[7]), WrongDatatype, "$.inputs[2].data[0]"),
    ("fraction for a whole number", changed("hour", data=[8.5]), WrongDatatype, "$.inputs[1].data[0]"),
    ("number for a truth", changed("holiday", data=[1]), WrongDatatype, "$.inputs[4].data[0]"),
    ("null where none may be", changed("distance", data=[None]), WrongDatatype, "$.inputs[0].data[0]"),
    ("whole number beyond 64 bits", changed("hour", data=[2**63]), WrongDatatype, "$.inputs[1].data[0]"),
    ("number beyond a double", changed("distance", data=[10**400]), WrongDatatype, "$.inputs[0].data[0]"),
    ("list for a value", changed("hour", data=[[1, 2]]), WrongShape, "$.inputs[1].data[0]"),
    ("another datatype", changed("distance", datatype="BYTES"), WrongDatatype, "$.inputs[0].datatype"),
    ("no datatype at all", changed("distance", datatype="FP128"), WrongDatatype, "$.inputs[0].datatype"),
    ("entities differ from rows", {**body(), "parameters": {"entity": ["a", "b"]}}, WrongShape, "$.parameters.entity"),
    ("entity is an object", {**body(), "parameters": {"entity": {}}}, WrongDatatype, "$.parameters.entity"),
]  # fmt: skip


@pytest.mark.parametrize(("request_body", "error", "path"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_requests_are_refused_with_the_path(request_body: Any, error: type[RequestError], path: str) -> None:
    with pytest.raises(error) as caught:
        read(request_body)
    assert type(caught.value) is error
    assert caught.value.subject == path
    assert json.loads(encode_error(caught.value))["path"] == path


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b'{"inputs": NaN}', b"\xff\xfe", b"[" * 100_000, b'"\\ud800"'])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    text = json.dumps(body()).replace("1000.0", number)
    assert number in text
    with pytest.raises(MalformedRequest):
        decode(text.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_comes_is_bound_or_refused(data: st.DataObject) -> None:
    request = body()
    tensor = data.draw(st.sampled_from(request["inputs"]))
    tensor[data.draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = data.draw(json_values)
    request[data.draw(st.sampled_from(["id", "parameters", "more"]))] = data.draw(json_values)
    problem = None
    try:
        read(request)
    except RequestError as refused:
        problem = refused
    assert problem is None or problem.subject.startswith("$")


def test_an_answer_has_score_and_decision() -> None:
    outputs = [Output("score", [2], "FP64", [0.25, 0.75]), Output("decision", [2], "INT64", [0, 1])]
    answer = json.loads(encode_answer("delay", "3", "mine", outputs, {"policy": 2}))
    assert answer["model_version"] == "3"
    assert answer["id"] == "mine"
    assert [(o["name"], o["datatype"], o["shape"], o["data"]) for o in answer["outputs"]] == [
        ("score", "FP64", [2], [0.25, 0.75]),
        ("decision", "INT64", [2], [0, 1]),
    ]


NUMBERS = Signature((InputColumn("a", "FP64"), InputColumn("b", "FP32")), limits={"b": Limits(minimum=1.0)})
MIXED = Signature(
    (
        InputColumn("a", "FP64", nullable=True), InputColumn("b", "INT32"), InputColumn("c", "BOOL"), InputColumn("d", "BYTES"),
        InputColumn("e", "INT64", nullable=True),
    )
)  # fmt: skip
SENT = (
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3) | st.booleans() | st.text(max_size=2) | st.none()
    | st.sampled_from([2**31, -(2**31), 2**63, 2**64, 10**400, [1.0], {}])
)  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn, signature: Signature) -> list[dict[str, Any]]:
    """Inputs of a request that nearly fits."""
    rows = draw(st.integers(0, 3))
    fitting: dict[str, Any] = {"FP64": 0.5, "FP32": 1.5, "INT32": 2, "INT64": 3, "BOOL": True, "BYTES": "x"}
    made = [
        {"name": one.name, "shape": [rows], "datatype": one.datatype, "data": [fitting[one.datatype]] * rows}
        for one in signature.columns
    ]
    for one in draw(st.lists(st.sampled_from(made), max_size=2)):
        part = draw(st.sampled_from(["name", "shape", "datatype", "data", "value"]))
        if part == "value" and one["data"]:
            one["data"] = [draw(SENT), *one["data"][1:]]
        elif part != "value":
            one[part] = draw({
                "name": st.sampled_from(["a", "b", "z"]),
                "shape": st.sampled_from([[rows], [rows, 1], [1, rows], [], [rows + 1]]),
                "datatype": st.sampled_from(["FP64", "FP32", "INT32", "BYTES", "?"]), "data": st.lists(SENT, max_size=3),
            }[part])  # fmt: skip
    return draw(st.permutations(made)) if draw(st.booleans()) else made


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([NUMBERS, MIXED]))
def test_the_quick_way_takes_and_refuses_what_the_slow_one_does(data: st.DataObject, signature: Signature) -> None:
    sent = json.dumps({"id": "x", "inputs": data.draw(tensors(signature))}).encode()

    def said(make: Any) -> Any:
        try:
            return repr(make())
        except RequestError as problem:
            return type(problem), str(problem)

    binder = Binder(signature)
    slow = said(lambda: bind(decode(sent), signature))
    assert said(lambda: binder.read(sent)) == slow
    assert said(lambda: binder.bind(decode(sent))) == slow
