from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import MalformedRequest, MissingInput, RequestError, WrongDatatype, WrongShape
from instar.serve.protocol.signature import ACCEPTED, DATATYPES, ELEMENT_BYTES, FLOATS, Signature, TensorSpec
from instar.serve.protocol.tensors import DTYPES, Binder, Bound
from instar.serve.protocol.v2_json import Request, Tensor
from tests.serve.tensor_fakes import SIGNATURE, body


def read(value: Any, signature: Signature = SIGNATURE) -> Bound:
    return Binder(signature).read(json.dumps(value).encode())


def one(datatype: str, data: Any, shape: list[int] | None = None, spec: TensorSpec | None = None) -> Bound:
    """A call of one tensor `t`, with its first dimension left open."""
    shape = [len(data)] if shape is None else shape
    signature = Signature(tensors=(spec or TensorSpec("t", datatype, (-1,)),), outputs=(TensorSpec("y", "FP32", ()),))
    return read({"inputs": [{"name": "t", "shape": shape, "datatype": datatype, "data": data}]}, signature)


def changed(position: int, /, **changes: Any) -> dict[str, Any]:
    request = body(1, 4)
    request["inputs"][position].update(changes)
    return request


def test_a_good_request_is_bound_by_tensor() -> None:
    parameters = {"entity": ["a", "b"], "table_version": "tver_1"}
    bound = read(body(1, 4, id="mine", parameters=parameters, outputs=[{"name": "label"}, {"name": "score"}]))
    assert (bound.rows, bound.tensors["x"].shape, bound.tensors["words"].values) == (2, (2, 3), ["w1", "w4"])
    assert bound.tensors["x"].values == [1, 2, 0.5, 4, 2, 0.5]
    asked = bound.asked
    assert (asked.request_id, asked.entities, asked.table_version) == ("mine", ["a", "b"], "tver_1")
    assert asked.outputs == ("label", "score")


def test_nested_data_is_laid_flat() -> None:
    spec = TensorSpec("t", "INT32", (-1, 2, 3))
    bound = one("INT32", [[[1, 2, 3], [4, 5, 6]]], [1, 2, 3], spec)
    assert bound.tensors["t"].values == [1, 2, 3, 4, 5, 6]


def test_a_single_value_has_no_dimension() -> None:
    assert one("FP64", [2.5], [], TensorSpec("t", "FP64", ())).tensors["t"].shape == ()


def test_an_open_dimension_may_be_empty_where_it_counts_no_rows() -> None:
    assert one("FP32", []).tensors["t"].values == []
    spec = TensorSpec("t", "FP32", (-1, 2))
    assert one("FP32", [], [0, 2], spec).rows == 1
    with pytest.raises(WrongShape, match="no rows"):
        read({"inputs": [{**t, "shape": [0, *t["shape"][1:]], "data": []} for t in body(1)["inputs"]]})


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - FLOATS - {"BOOL", "BYTES"}))
def test_whole_numbers_are_held_to_their_range(datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    values = one(datatype, [int(limits.min), int(limits.max)]).tensors["t"].values
    assert np.array(values, dtype=DTYPES[datatype]).tolist() == [limits.min, limits.max]
    for beyond in (int(limits.min) - 1, int(limits.max) + 1):
        with pytest.raises(WrongDatatype) as caught:
            one(datatype, [0, beyond])
        assert caught.value.subject == "$.inputs[0].data[1]"


@pytest.mark.parametrize(("datatype", "most"), [("FP16", 65504.0), ("FP32", 3.4028234663852886e38)])
def test_floats_are_held_to_their_range(datatype: str, most: float) -> None:
    assert one(datatype, [most, -most]).tensors["t"].values == [most, -most]
    for beyond in (most * 1.01, -most * 1.01, 10**400):
        with pytest.raises(WrongDatatype) as caught:
            one(datatype, [0.0, beyond])
        assert caught.value.subject == "$.inputs[0].data[1]"


def test_null_is_a_missing_float_where_it_may_be() -> None:
    spec = TensorSpec("t", "FP32", (-1,), nullable=True)
    assert one("FP32", [1.5, None], spec=spec).tensors["t"].values == [1.5, None]
    with pytest.raises(WrongDatatype, match="takes no null"):
        one("FP32", [1.5, None])


@pytest.mark.parametrize("asked", sorted(set(ACCEPTED) - {"BOOL", "BYTES"}))
def test_wider_types_take_narrower_ones(asked: str) -> None:
    for sent in ACCEPTED[asked]:
        assert one(sent, [1], spec=TensorSpec("t", asked, (-1,))).tensors["t"].values == [1]
    if asked in ELEMENT_BYTES and asked not in FLOATS:
        with pytest.raises(WrongDatatype):
            one("FP64", [1.0], spec=TensorSpec("t", asked, (-1,)))


def array(values: Any, datatype: str, spec: TensorSpec) -> Bound:
    """A tensor as the binary form brings it."""
    tensor = Tensor("t", [len(values)], datatype, values)
    return Binder(Signature(tensors=(spec,), outputs=(TensorSpec("y", "FP32", ()),))).bind(Request([tensor]))


def test_arrays_are_held_to_the_same_rules() -> None:
    spec = TensorSpec("t", "FP32", (-1,))
    taken = array(np.array([1.5, 2.5]), "FP64", spec).tensors["t"].values
    assert (taken.dtype, taken.tolist()) == (np.float32, [1.5, 2.5])
    for bad in (float("nan"), float("inf"), 1e300):
        with pytest.raises(WrongDatatype) as caught:
            array(np.array([0.0, bad]), "FP64", spec)
        assert caught.value.subject == "$.inputs[0].data[1]"
    missing = array(np.array([float("nan"), 1], np.float32), "FP32", TensorSpec("t", "FP32", (-1,), nullable=True))
    assert np.isnan(missing.tensors["t"].values[0])


@pytest.mark.parametrize("shape", [[-1, -1, 2], [-1, 2, 2], [2, -1, 2], [-2, -3, 2]])
def test_a_length_below_none_is_no_length(shape: list[int]) -> None:
    """Also where the signature has -1 for any length, and where two of them give as many values as came."""
    spec = TensorSpec("t", "FP32", (-1, -1, 2))
    signature = Signature(tensors=(spec,), outputs=(TensorSpec("y", "FP32", ()),))
    count = abs(int(np.prod(shape)))
    with pytest.raises(WrongShape) as caught:
        Binder(signature).bind(Request([Tensor("t", shape, "FP32", [1.0] * count)]))
    assert caught.value.subject == "$.inputs[0].shape"
    assert "another shape" in caught.value.what


BAD: list[tuple[str, Any, type[RequestError], str]] = [
    ("missing tensor", {"inputs": body(1)["inputs"][1:]}, MissingInput, "$.inputs"),
    ("renamed tensor", changed(0, name="xs"), MissingInput, "$.inputs"),
    ("extra tensor", {"inputs": [*body(1)["inputs"], {**body(1)["inputs"][0], "name": "z"}]},
     MalformedRequest, "$.inputs[2].name"),
    ("tensor twice", {"inputs": body(1)["inputs"] * 2}, MalformedRequest, "$.inputs[2].name"),
    ("shape lies", changed(0, shape=[3, 3]), WrongShape, "$.inputs[0].shape"),
    ("another rank", changed(0, shape=[6]), WrongShape, "$.inputs[0].shape"),
    ("another fixed length", changed(0, shape=[3, 2]), WrongShape, "$.inputs[0].shape"),
    ("shape is negative", changed(0, shape=[-2, 3]), WrongShape, "$.inputs[0].shape"),
    ("shape is huge", changed(0, shape=[10**30, 3]), WrongShape, "$.inputs[0].shape"),
    ("rows differ", changed(1, shape=[1], data=["a"]), WrongShape, "$.inputs[1].shape"),
    ("rows lie", changed(0, data=[[1, 2, 3]]), WrongShape, "$.inputs[0].shape"),
    ("ragged", changed(0, data=[[1, 2, 3], [1, 2]]), WrongShape, "$.inputs[0].data[1]"),
    ("half nested", changed(0, data=[[1, 2, 3], 4]), WrongShape, "$.inputs[0].data[1]"),
    ("text for a number", changed(0, data=[1, 2, 3, 4, "5", 6]), WrongDatatype, "$.inputs[0].data[4]"),
    ("nested text for a number", changed(0, data=[[1, 2, 3], [4, "5", 6]]), WrongDatatype, "$.inputs[0].data[1][1]"),
    ("true for a number", changed(0, data=[True] * 6), WrongDatatype, "$.inputs[0].data[0]"),
    ("number for text", changed(1, data=[1, 2]), WrongDatatype, "$.inputs[1].data[0]"),
    ("null", changed(0, data=[1, 2, 3, 4, 5, None]), WrongDatatype, "$.inputs[0].data[5]"),
    ("object for a number", changed(0, data=[{}] * 6), WrongDatatype, "$.inputs[0].data[0]"),
    ("a number beyond single precision", changed(0, data=[1, 2, 3, 4, 5, 1e39]), WrongDatatype, "$.inputs[0].data[5]"),
    ("another datatype", changed(0, datatype="BYTES"), WrongDatatype, "$.inputs[0].datatype"),
    ("a datatype that loses", changed(0, datatype="INT64"), WrongDatatype, "$.inputs[0].datatype"),
    ("no datatype at all", changed(0, datatype="FP128"), WrongDatatype, "$.inputs[0].datatype"),
    ("an unknown output", body(1, outputs=[{"name": "scor"}]), MalformedRequest, "$.outputs[0].name"),
    ("an output twice", body(1, outputs=[{"name": "score"}] * 2), MalformedRequest, "$.outputs[1].name"),
    ("outputs are no list", body(1, outputs={"name": "score"}), MalformedRequest, "$.outputs"),
    ("entities differ from rows", body(1, parameters={"entity": ["a", "b"]}), WrongShape, "$.parameters.entity"),
]  # fmt: skip


@pytest.mark.parametrize(("request_body", "error", "path"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_requests_are_refused_with_the_path(request_body: Any, error: type[RequestError], path: str) -> None:
    with pytest.raises(error) as caught:
        read(request_body)
    assert type(caught.value) is error
    assert caught.value.subject == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_comes_is_bound_or_refused(data: st.DataObject) -> None:
    request = body(1, 2)
    tensor = data.draw(st.sampled_from(request["inputs"]))
    tensor[data.draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = data.draw(json_values)
    request[data.draw(st.sampled_from(["id", "parameters", "outputs", "more"]))] = data.draw(json_values)
    problem = None
    try:
        read(request)
    except RequestError as refused:
        problem = refused
    assert problem is None or problem.subject.startswith("$")
