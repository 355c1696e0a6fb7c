"""May rows of several calls be answered together, and are the answers the same? Tried out when a model's file is taken in.

A runtime may count a single row with another kernel than many, in another order of the same sums: ONNX Runtime does so for
linear models, whose answers differ by 2e-6 then. Asked for two rows at least it counts as for many. So a model is asked for rows
alone and together, and what is found is kept with it: whether a row's answer depends on that row alone, how many rows a
question has at least so that answers are equal to the last bit, and by how much they differ if they never are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instar.train.bundle import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = (1, 2, 3, 5, 8, 17, 32, 64)
ROWS = 64
OTHER_LENGTH = 4  # of a dimension that is open and is none of rows
TOLERANCE = 1e-4  # of an output's largest value: beyond it a row's answer depends on its neighbours
DTYPES = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool", "BYTES": "object"}

Infer = Callable[[Mapping[str, "NDArray[Any]"]], Mapping[str, "NDArray[Any]"]]


@dataclass(frozen=True)
class Stacking:
    """What was found.

    Attributes:
        rows: The first dimension of all inputs and outputs is one and the same.
        batchable: A row's answer depends on that row alone.
        least: Rows that a question has at least, so that answers do not depend on their number.
        difference: Largest difference between a row's answers alone and together, relative to the output's largest value; 0 means
            equal to the last bit.
        why: Why it is not batchable; empty if it is.
    """

    rows: bool
    batchable: bool = False
    least: int = 1
    difference: float = 0.0
    why: str = ""


def try_stacking(infer: Infer, inputs: Sequence[Tensor], outputs: Sequence[Tensor], same: bool | None) -> Stacking:
    """Ask a model for rows alone and together.

    Args:
        same: Does the model itself say that the first dimensions are one and the same? None when it says nothing.
    """
    if not outputs or any(one.shape[:1] != (-1,) for one in inputs if not one.optional):
        return Stacking(False, why="the first dimension of its inputs is fixed")
    if same is False or any(one.shape[:1] != (-1,) for one in outputs):
        return Stacking(False, why="the first dimension of its outputs is another than that of its inputs")
    asked = [one for one in inputs if not one.optional]
    given = {one.name: example(one, at) for at, one in enumerate(asked)}
    found: dict[int, dict[str, NDArray[Any]]] = {}
    try:
        for size in SIZES:
            parts = [
                infer({name: array[at : at + size] for name, array in given.items()}) for at in range(0, ROWS, size)
            ]
            for at, part in zip(range(0, ROWS, size), parts, strict=True):
                if any(one.shape[:1] != (min(size, ROWS - at),) for one in part.values()):
                    return Stacking(False, why="its outputs have not as many rows as its inputs")
            found[size] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except Exception as error:  # made-up values are not what every model takes: then nothing is known
        text = " ".join(str(error).split())[:200]
        return Stacking(same is True, why=f"it could not be tried out with made-up values: {text}")
    alone = _difference(found[1], [found[size] for size in SIZES[1:]])
    if alone > TOLERANCE:
        return Stacking(True, difference=alone, why="a row's answer depends on the rows beside it")
    # Sizes that leave a single row over show the same as single rows do, so they are left out here.
    pairs = [found[size] for size in SIZES[1:] if ROWS % size != 1]
    together = _difference(pairs[0], pairs[1:])
    if alone and together < alone:
        return Stacking(True, True, 2, together)
    return Stacking(True, True, 1, alone)


def _difference(first: Mapping[str, NDArray[Any]], others: Sequence[Mapping[str, NDArray[Any]]]) -> float:
    largest = 0.0
    for name, array in first.items():
        for other in others:
            if array.dtype.kind not in "fc":
                if not np.array_equal(array, other[name]):
                    return float("inf")
                continue
            one, two = array.astype(np.float64), other[name].astype(np.float64)
            if not np.array_equal(np.isnan(one), np.isnan(two)):
                return float("inf")
            apart = float(np.nanmax(np.abs(one - two), initial=0.0))
            largest = max(largest, apart / max(float(np.nanmax(np.abs(one), initial=0.0)), 1e-12))
    return largest


def example(tensor: Tensor, seed: int) -> NDArray[Any]:
    """Made-up values: normal floats, and zeros and ones where a number may be a place in a table."""
    first = [ROWS if length < 0 else length for length in tensor.shape[:1]]
    shape = (*first, *(OTHER_LENGTH if length < 0 else length for length in tensor.shape[1:]))
    random = np.random.default_rng(seed)
    if tensor.datatype == "BYTES":
        return np.array(["a", "b"], dtype=object)[random.integers(0, 2, shape)]
    if tensor.datatype in ("FP16", "FP32", "FP64"):
        return random.standard_normal(shape).astype(DTYPES[tensor.datatype])
    return random.integers(0, 2, shape).astype(DTYPES.get(tensor.datatype, tensor.datatype.lower()))
