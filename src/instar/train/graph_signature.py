"""The tensors of an ONNX graph, read from a session when a file is taken in: names, datatypes, shapes, and what cannot be served.

tensors_of(open_session(file))     # -> ((Tensor("x", "FP32", (-1, 30)),), (Tensor("label", "INT64", (-1,)), …), {…})
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instar.core.errors import Blocked
from instar.train.bundle import Tensor

DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float": "FP32", "double": "FP64",
    "string": "BYTES",
}  # fmt: skip

_TENSOR = re.compile(r"tensor\((\w+)\)\Z")
# What converters of scikit-learn write by default: a list of probabilities by label.
_ZIPMAP = re.compile(r"seq\(map\((?:int64|string), ?tensor\((float|double)\)\)\)\Z")


@dataclass(frozen=True)
class Found:
    """What a graph takes and gives.

    Attributes:
        symbols: Name that the graph gives to the first dimension of each input and output; empty where it gives none, None
            where that has a fixed length or there is none.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: dict[str, str | None]


def tensors_of(session: Any) -> Found:
    """The tensors of a session.

    Raises:
        Blocked: An input or output is no tensor of a datatype that the protocol has.
    """
    required, outputs = session.get_inputs(), session.get_outputs()
    names = {one.name for one in required}
    optional = [one for one in session.get_overridable_initializers() if one.name not in names]
    inputs = [_tensor(one, "input") for one in required] + [_tensor(one, "input", optional=True) for one in optional]
    if not inputs:
        raise Blocked("its graph takes no inputs", found="none", asked="one tensor or more")
    symbols = {one.name: _symbol(one.shape) for one in (*required, *optional, *outputs)}
    return Found(tuple(inputs), tuple(_tensor(one, "output") for one in outputs), symbols)


def _tensor(one: Any, what: str, optional: bool = False) -> Tensor:
    if what == "output" and _ZIPMAP.match(one.type):
        kind = "FP32"  # the runtime gives Python numbers; converters count in single precision
        return Tensor(one.name, kind, (-1, -1))
    matched = _TENSOR.match(one.type)
    datatype = DATATYPES.get(matched[1]) if matched else None
    if datatype is None:
        raise Blocked(
            f"its {what} {one.name!r} is not served",
            found=one.type,
            asked=f"a tensor of {', '.join(DATATYPES)}",
            next_step="Export the model with tensors only: maps of skl2onnx go with options={id(model): {'zipmap': False}}.",
        )
    return Tensor(one.name, datatype, _shape(one.shape), optional)


def _shape(dimensions: Sequence[Any]) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) and length >= 0 else -1 for length in dimensions)


def _symbol(dimensions: Sequence[Any] | None) -> str | None:
    if not dimensions or (isinstance(dimensions[0], int) and dimensions[0] >= 0):
        return None
    return str(dimensions[0] or "")
