"""Arrays that applications send: as their bytes where that is the same, else as JSON, for a server to judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import instar
from instar.core.errors import RequestError
from instar.interfaces.sdk.asking import tensors_body
from instar.serve.root.process import ServerTree
from tests.serve.test_fuzz import two_models

SPECS = [{"name": name, "datatype": datatype, "shape": [-1, 3]} for name, datatype in (("x", "FP32"), ("n", "INT32"))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    with two_models(tmp_path_factory.mktemp("arrays") / ".instar") as running:
        yield running


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "float16"])
def test_arrays_are_answered_as_lists_are(server: ServerTree, dtype: str) -> None:
    x = np.array([[1, 2, 3], [4, 5, 6.5]], dtype)
    with instar.connect(server.url) as client:
        given = client.infer("words", {"x": x, "words": ["a", "b"]}, outputs=["score", "label"])
        assert given.outputs == client.infer("words", {"x": x.tolist(), "words": ["a", "b"]}).outputs
        assert given.outputs == {"score": [[6.0], [15.5]], "label": ["A", "B"]}
        assert client.infer("words", {"x": x.T.copy().T[0], "words": "a"}).outputs["score"] == [[6.0]]
        with pytest.raises(RequestError):
            client.infer("words", {"x": np.array([[1, 2, np.nan]]), "words": ["a"]})
        with pytest.raises(RequestError):
            client.infer("words", {"x": np.zeros((2, 4), dtype), "words": ["a", "b"]})


@pytest.mark.parametrize(
    ("name", "value", "size"),
    [
        ("x", np.zeros((2, 3), "float64"), 24),
        ("x", np.zeros((3, 2), "float32").T, 24),
        ("x", np.full((1, 3), 1e300), None),
        ("x", np.full((1, 3), np.nan), None),
        ("x", np.zeros((1, 3), "int64"), None),
        ("n", np.zeros((1, 3), "int16"), 12),
        ("n", np.zeros((1, 3), "int64"), None),
        ("n", np.zeros((1, 3)), None),
        ("x", [[1.0, 2.0, 3.0]], None),
    ],
)
def test_bytes_are_sent_only_where_they_say_the_same(name: str, value: Any, size: int | None) -> None:
    body, headers = tensors_body({name: value}, SPECS, {}, None, None)
    if size is None:
        assert headers == {"content-type": "application/json"}
    else:
        assert len(body) - int(headers["inference-header-content-length"]) == size
