from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.serve.clients.nested import Spec, nest, tensor


@given(st.lists(st.integers(0, 4), max_size=4))
def test_values_are_nested_by_their_shape(shape: list[int]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape)
    assert nest(array.ravel().tolist(), shape) == array.tolist()


def test_a_tensor_comes_whole_or_as_one_row() -> None:
    spec = Spec("x", "FP32", [-1, 2])
    whole = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}
    assert tensor(spec, [[1, 2]]) == tensor(spec, [1, 2]) == whole
    assert tensor(Spec("t", "FP32", []), 2.5) == {"name": "t", "datatype": "FP32", "shape": [], "data": [2.5]}
    assert tensor(Spec("w", "BYTES", [-1]), "word")["data"] == ["word"]
    with pytest.raises(BadInput, match="different lengths"):
        tensor(spec, [[1, 2], [3]])
