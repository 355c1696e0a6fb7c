"""Graphs in ONNX for tests, made by hand or from estimators, as bytes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

TYPES = {
    "BOOL": 9, "INT8": 3, "INT16": 5, "INT32": 6, "INT64": 7, "UINT8": 2, "UINT16": 4, "UINT32": 12, "UINT64": 13,
    "FP16": 10, "FP32": 1, "FP64": 11, "BYTES": 8,
}  # fmt: skip


def graph(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], initializers: Sequence[Any] = ()
) -> bytes:
    """A graph of nodes; inputs and outputs are (name, datatype, shape)."""
    from onnx import helper

    def value(name: str, datatype: str, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TYPES[datatype], shape)

    made = helper.make_graph(
        list(nodes), "g", [value(*one) for one in inputs], [value(*one) for one in outputs], list(initializers)
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("com.example", 1)]
    data: bytes = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def same(datatype: str, shape: Any = ("n", 2)) -> bytes:
    """What comes in goes out."""
    return graph([node("Identity", ["x"], ["y"])], [("x", datatype, shape)], [("y", datatype, shape)])


@functools.cache
def estimator(kind: str, zipmap: bool = False) -> tuple[bytes, Any, Any]:
    """An estimator of scikit-learn on 30 columns as a graph, itself, and the rows that it was fitted on."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng(1)
    rows = random.standard_normal((200, 30)).astype(np.float32)
    target = (rows[:, 0] + rows[:, 1] > 0).astype(np.int64)
    made = {
        "linear": LogisticRegression(),
        "network": MLPClassifier((32, 8), max_iter=3000, random_state=1, solver="lbfgs", alpha=1.0),
        "forest": RandomForestClassifier(20, random_state=1),
    }[kind]
    made.fit(rows, target)
    options = {} if zipmap else {id(made): {"zipmap": False}}
    data = convert_sklearn(made, initial_types=[("x", FloatTensorType([None, 30]))], options=options, target_opset=15)
    return data.SerializeToString(), made, rows
