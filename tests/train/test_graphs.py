from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import BadInput, Blocked, Damaged, InstarError
from instar.core.limits import Limits
from instar.core.store import Store
from instar.train import bundle, examining, file_bundle, sessions
from instar.train.bundle import Tensor, Tensors
from instar.train.graph_model import GraphModel
from instar.train.stacking import Stacking, try_stacking
from tests.train import graphs
from tests.train.graphs import graph, node


def look(folder: Path, data: bytes) -> examining.Examined:
    """As the process that looks at a file does, without the process."""
    file = folder / "model.onnx"
    file.write_bytes(data)
    return examining._graph(file)


def load(folder: Path, data: bytes) -> GraphModel:
    found = look(folder, data)
    return GraphModel(sessions.open_session(data), found.tensors, len(data))


@pytest.mark.parametrize("datatype", graphs.TYPES)
def test_every_datatype_is_served(tmp_path: Path, datatype: str) -> None:
    found = look(tmp_path, graphs.same(datatype)).tensors
    assert found == Tensors((Tensor("x", datatype, (-1, 2)),), (Tensor("y", datatype, (-1, 2)),), True, True)


@pytest.mark.parametrize(("kind", "least"), [("network", 1), ("linear", 2), ("forest", 1)])
def test_estimators_are_answered_together_to_the_last_bit(tmp_path: Path, kind: str, least: int) -> None:
    found = look(tmp_path, graphs.estimator(kind)[0])
    tensors = found.tensors
    assert [(one.name, one.datatype, one.shape) for one in (*tensors.inputs, *tensors.outputs)] == [
        ("x", "FP32", (-1, 30)), ("label", "INT64", (-1,)), ("probabilities", "FP32", (-1, 2)),
    ]  # fmt: skip
    assert (tensors.rows, tensors.batchable, tensors.difference, found.why) == (True, True, 0.0, "")
    assert tensors.least <= least


@pytest.mark.parametrize("kind", ["network", "linear", "forest"])
def test_any_cut_of_a_batch_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    data, _, rows = graphs.estimator(kind)
    model = load(tmp_path, data)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 60))
    def check(sizes: list[int], start: int) -> None:
        whole = model.infer({"x": rows[start : start + sum(sizes)]})
        at = start
        for size in sizes:
            part = model.infer({"x": rows[at : at + size]})
            for name, array in part.items():
                expected = whole[name][at - start : at - start + size]
                assert (array == expected).all()
            at += size

    check()


def test_probabilities_by_label_become_a_tensor(tmp_path: Path) -> None:
    data, made, rows = graphs.estimator("forest", zipmap=True)
    model = load(tmp_path, data)
    assert look(tmp_path, data).tensors.outputs[1] == Tensor("output_probability", "FP32", (-1, -1))
    found = model.infer({"x": rows[:5]})
    assert np.allclose(found["output_probability"], made.predict_proba(rows[:5]), atol=1e-6)


def test_text_and_several_inputs_and_outputs(tmp_path: Path) -> None:
    data = graph(
        [
            node(
                "LabelEncoder",
                ["word"],
                ["code"],
                domain="ai.onnx.ml",
                keys_strings=["a", "b"],
                values_floats=[1.0, 2.0],
            ),
            node("Add", ["code", "x"], ["sum"]),
            node("Identity", ["word"], ["again"]),
        ],
        [("word", "BYTES", ("n", 1)), ("x", "FP32", ("n", 1))],
        [("sum", "FP32", ("n", 1)), ("again", "BYTES", ("n", 1))],
    )
    found = load(tmp_path, data).infer(
        {"word": np.array([["b"], ["a"]], dtype=object), "x": np.array([[0.5], [1]], np.float32)}
    )
    assert (found["sum"].tolist(), found["again"].tolist()) == ([[2.5], [2.0]], [["b"], ["a"]])


def test_an_input_with_a_default_is_optional(tmp_path: Path) -> None:
    from onnx import helper

    bias = helper.make_tensor("bias", 1, [1], [10.0])
    data = graph(
        [node("Add", ["x", "bias"], ["y"])],
        [("x", "FP32", ("n", 1)), ("bias", "FP32", (1,))],
        [("y", "FP32", ("n", 1))],
        [bias],
    )
    found = look(tmp_path, data).tensors
    assert [(one.name, one.optional) for one in found.inputs] == [("x", False), ("bias", True)]
    model, x = load(tmp_path, data), np.ones((1, 1), np.float32)
    assert model.infer({"x": x})["y"].tolist() == [[11.0]]
    assert model.infer({"x": x, "bias": np.zeros(1, np.float32)})["y"].tolist() == [[1.0]]


def test_a_fixed_first_dimension_is_no_row(tmp_path: Path) -> None:
    found = look(tmp_path, graphs.same("FP32", (1, 30)))
    assert (found.tensors.rows, found.tensors.batchable) == (False, False)
    assert "fixed" in found.why


def test_rows_that_look_at_each_other_are_not_answered_together(tmp_path: Path) -> None:
    data = graph([node("Softmax", ["x"], ["y"], axis=0)], [("x", "FP32", ("n", 2))], [("y", "FP32", ("n", 2))])
    found = look(tmp_path, data)
    assert (found.tensors.rows, found.tensors.batchable, found.why) == (
        True, False, "a row's answer depends on the rows beside it",
    )  # fmt: skip


def test_outputs_of_another_length_are_no_rows(tmp_path: Path) -> None:
    data = graph([node("NonZero", ["x"], ["y"])], [("x", "FP32", ("n", 2))], [("y", "INT64", ("m", "k"))])
    found = look(tmp_path, data)
    assert (found.tensors.rows, found.tensors.batchable) == (False, False)


def test_what_is_only_nearly_equal_is_said(tmp_path: Path) -> None:
    """A model whose sums depend on how many rows there are, a little."""
    given, outputs = (Tensor("x", "FP32", (-1, 1)),), (Tensor("y", "FP32", (-1, 1)),)
    found = try_stacking(lambda i: {"y": i["x"] + np.float32(1e-6) * len(i["x"])}, given, outputs, None)
    assert found.batchable
    assert 1e-6 < found.difference < 1e-4
    broken = try_stacking(lambda i: 1 / 0, given, outputs, True)  # type: ignore[arg-type, return-value]
    assert broken == Stacking(True, why="it could not be tried out with made-up values: division by zero")


def sequence() -> bytes:
    from onnx import helper

    made = helper.make_graph(
        [node("SequenceConstruct", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, ["n"])], [helper.make_tensor_sequence_value_info("y", 1, ["n"])],
    )  # fmt: skip
    data: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8).SerializeToString()
    return data


def beside() -> bytes:
    from onnx import TensorProto

    weight = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights.bin")
    return graph([node("Add", ["x", "w"], ["y"])], [("x", "FP32", ("n", 2))], [("y", "FP32", ("n", 2))], [weight])


def custom() -> bytes:
    return graph(
        [node("Fancy", ["x"], ["y"], domain="com.example")], [("x", "FP32", ("n", 2))], [("y", "FP32", ("n", 2))]
    )


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (sequence, Blocked, "its output 'y' is not served; found seq(tensor(float))"),
        (beside, Blocked, "its weights lie in files beside it"),
        (custom, Blocked, "an operator that ONNX Runtime has not"),
        (lambda: b"no graph", BadInput, "no graph that ONNX Runtime reads"),
        (lambda: b"", BadInput, "no graph that ONNX Runtime reads"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    tmp_path: Path, data: Any, error: type[InstarError], text: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(data())
    with pytest.raises(error) as caught:
        examining._graph(file)
    assert text in str(caught.value)
    assert caught.value.next_step or error is BadInput


def test_a_file_is_looked_at_in_a_process_of_its_own(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "delay.onnx"
    file.write_bytes(graphs.same("FP32"))
    packed = file_bundle.pack_file(store, file, name="delay", personal=["x"])
    manifest = bundle.load_manifest(store.blobs, packed.bundle)
    assert (manifest.format, manifest.kind, manifest.inputs) == (3, "file", ())
    assert manifest.tensors == Tensors(
        (Tensor("x", "FP32", (-1, 2), privacy="personal"),), (Tensor("y", "FP32", (-1, 2)),), True, True
    )
    assert store.blobs.get(manifest.portable.file) == file.read_bytes()  # type: ignore[union-attr]
    assert file_bundle.pack_file(store, file, name="delay", personal=["x"]).bundle == packed.bundle
    limited = file_bundle.pack_file(store, file, name="delay", limits={"x": Limits(0, 1)})
    assert bundle.load_manifest(store.blobs, limited.bundle).tensors.inputs[0].limits == Limits(0, 1)  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="values are texts"):
        file_bundle.pack_file(store, file, name="delay", limits={"x": Limits(values=("a",))})
    off = file_bundle.pack_file(store, file, name="delay", batch="off")
    assert (off.tensors.batchable, off.why) == (False, "it was brought so")
    with pytest.raises(BadInput, match="no such input"):
        file_bundle.pack_file(store, file, name="delay", personal=["z"])
    with pytest.raises(BadInput, match="does not say what it is"):
        file_bundle.pack_file(store, tmp_path / "model.bin", name="delay")
    file.write_bytes(custom())
    with pytest.raises(Blocked, match="operator"):
        file_bundle.pack_file(store, file, name="delay")
    file.write_bytes(graphs.same("FP32")[:40])
    with pytest.raises(BadInput) as caught:
        file_bundle.pack_file(store, file, name="delay")
    assert caught.value.subject == str(file)
    assert str(caught.value.found).count("delay.onnx") == 1  # as its owner calls it, not as a copy that is gone


def test_exact_answers_turn_stacking_off_where_they_differ() -> None:
    found = examining.Examined(Tensors((), (), True, True, 1, 1e-6))
    assert file_bundle._decided(found, "auto", (), {})[0].batchable
    tensors, why = file_bundle._decided(found, "exact", (), {})
    assert (tensors.batchable, why) == (False, "rows together are answered otherwise than alone, by 1.0e-06")


@pytest.mark.parametrize("text", ["0", "many", "-1", "1000"])
def test_the_threads_of_a_session_are_a_setting(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert sessions.threads() == 1
    monkeypatch.setenv(sessions.THREADS, "3")
    assert sessions.threads() == 3
    monkeypatch.setenv(sessions.THREADS, text)
    with pytest.raises(BadInput):
        sessions.threads()


def test_a_broken_graph_in_a_bundle_is_damage() -> None:
    with pytest.raises(Damaged, match="cannot be read"):
        sessions.open_session(b"no graph")
