"""Tensors as nested lists, when a client writes a request and reads an answer.

tensor(Spec("x", "FP32", [-1, 2]), [0.5, 1.5])      # one row, where the first dimension is open
nest([1, 2, 3, 4], [2, 2])                           # -> [[1, 2], [3, 4]]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from instar.core.errors import BadInput
from instar.serve.protocol.signature import DYNAMIC


class Spec(msgspec.Struct):
    """A tensor, as the endpoint's metadata has it."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


def nest(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    """Values row by row as nested lists.

    >>> nest([1, 2, 3, 4], [2, 2])
    [[1, 2], [3, 4]]
    """
    if not shape:
        return flat[0]
    width = math.prod(shape[1:])
    return (
        [nest(flat[at * width : (at + 1) * width], shape[1:]) for at in range(shape[0])]
        if len(shape) > 1
        else list(flat)
    )


def tensor(spec: Spec, value: Any) -> dict[str, Any]:
    """A tensor in a request, from nested lists: whole, or one row where the first dimension is open."""
    shape = shape_of(value, spec.name)
    if len(shape) == len(spec.shape) - 1 and spec.shape[0] == DYNAMIC:
        value, shape = [value], [1, *shape]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": value if shape else [value]}


def shape_of(value: Any, name: str) -> list[int]:
    """Lengths of nested lists, which are the same wherever one looks."""
    if not isinstance(value, list):
        return []
    inner = [shape_of(one, name) for one in value]
    if any(one != inner[0] for one in inner):
        raise BadInput("its lists are of different lengths", subject=f"tensor {name}", asked="lists of one length each")
    return [len(value), *(inner[0] if inner else [])]
