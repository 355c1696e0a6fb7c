"""Tensors of a request held to the signature of a tensor model, at the moment of a call.

Used inside workers; numpy comes in only where a caller sent arrays. Values stay the plain lists that JSON gave until the
calls of a batch are laid together, since one conversion of many lists is quicker than many of one. Whatever does not fit is
refused with the JSON path of the first thing that is wrong.

    bound = Binder(signature).read(body)
    bound.tensors["x"].shape      # -> (1, 30)

A dimension that the signature leaves open may be 0, with no data. Where the first dimension counts rows, a call has at least one:
a call without a prediction would be an answer without a record.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import chain
from typing import Any

import msgspec

from instar.core.errors import RequestError, WrongDatatype, WrongShape
from instar.core.limits import Limits
from instar.serve.protocol.signature import ACCEPTED, BYTES, DYNAMIC, FLOATS, Signature, TensorSpec
from instar.serve.protocol.v2_json import (
    Asked,
    Request,
    Tensor,
    asked_of,
    beyond,
    decode_floats,
    decode_quickly,
    decode_whole,
    missing,
    other_datatype,
    out_of_range,
    short,
    twice,
    unknown,
)

# numpy's names of the datatypes; text is an array of Python objects.
DTYPES = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    BYTES: "object",
}  # fmt: skip


_NONE = type(None)
_KINDS: dict[str, frozenset[type]] = {
    **dict.fromkeys(DTYPES, frozenset({int})),
    **dict.fromkeys(FLOATS, frozenset({float, int})),
    "BOOL": frozenset({bool}),
    BYTES: frozenset({str, bytes}),
}
_TYPED: dict[frozenset[type], Callable[[bytes | memoryview], Request]] = {
    frozenset({float, int}): decode_floats,
    frozenset({int}): decode_whole,
}
# Smallest and largest value of each number.
_RANGES: dict[str, tuple[float, float]] = {
    **{f"INT{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
    "FP16": (-65504.0, 65504.0),
    "FP32": (-3.4028234663852886e38, 3.4028234663852886e38),
    "FP64": (-sys.float_info.max, sys.float_info.max),
}


class Given(msgspec.Struct, gc=False):
    """One input of a call, of the signature's datatype.

    Attributes:
        values: Row by row, without nesting: a list as JSON has it, or a numpy array.
    """

    shape: tuple[int, ...]
    values: Any


class Bound(msgspec.Struct):
    """A request that fits its signature.

    Attributes:
        tensors: By name, in the signature's order; one that was not required and not given is absent.
        rows: Predictions that it asks for: entries of the first dimension where that counts rows, else 1.
        asked: What the caller said beside the inputs.
        laid: The stack that it lies in when it is asked, and its first and last row there (see `tensor_work`).
    """

    tensors: dict[str, Given]
    rows: int
    asked: Asked
    laid: Any = None


class Binder:
    """Holds requests to one signature; made once, used at each call."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._inputs = [_Input(spec, signature.limits.get(spec.name)) for spec in signature.tensors]
        kinds = {_KINDS[spec.datatype] for spec in signature.tensors if not spec.nullable}
        self._decode: Callable[[bytes | memoryview], Request] | None = None
        if len(kinds) == 1 and not any(spec.nullable for spec in signature.tensors):
            self._decode = _TYPED.get(next(iter(kinds)))

    def read(self, body: bytes | memoryview) -> Bound:
        """A request in JSON, read and held to the signature.

        Raises:
            RequestError: As `decode` and `bind`.
        """
        request, typed = decode_quickly(body, self._decode)
        return self._bind(request, typed)

    def bind(self, request: Request) -> Bound:
        """Hold a request to the signature.

        Raises:
            MissingInput: A required tensor is not there.
            MalformedRequest: A tensor or a wanted output that the signature does not have, or one twice.
            WrongShape: A shape that is not the signature's, that its data does not have, or whose rows differ between inputs.
            WrongDatatype: A datatype or value that the tensor does not take.
            OutOfRange: A value beyond what was declared.
        """
        return self._bind(request, typed=False)

    def _bind(self, request: Request, typed: bool) -> Bound:
        given: dict[str, int] = {}
        for position, tensor in enumerate(request.inputs):
            if given.setdefault(tensor.name, position) != position:
                raise twice(tensor.name, position)
        tensors: dict[str, Given] = {}
        by_rows = self._signature.rows
        rows = -1 if by_rows else 1
        for one in self._inputs:
            name = one.spec.name
            at = given.pop(name, None)
            if at is None:
                if one.spec.required:
                    raise missing(name, one.spec.datatype, list(given))
                continue
            taken = tensors[name] = one.take(request.inputs[at], at, typed)
            if by_rows and rows != taken.shape[0]:
                if rows >= 0 or not taken.shape[0]:
                    raise _other_rows(name, at, taken.shape[0], rows)
                rows = taken.shape[0]
        if given:
            name, position = next(iter(given.items()))
            raise unknown(name, position, [spec.name for spec in self._signature.tensors])
        if request.outputs is None and not request.parameters:
            return Bound(tensors, rows, Asked(request.id))
        return Bound(tensors, rows, asked_of(request, rows, [spec.name for spec in self._signature.outputs]))


class _Input:
    """One tensor of a signature, prepared."""

    __slots__ = ("accepted", "inner", "largest", "limits", "open", "spec", "width")

    def __init__(self, spec: TensorSpec, limits: Limits | None) -> None:
        self.spec = spec
        self.limits = limits
        self.accepted = ACCEPTED[spec.datatype] | {spec.datatype}
        # Rows of a fixed form, by far the most common: then two comparisons say that a shape fits.
        self.open = spec.shape[:1] == (DYNAMIC,) and DYNAMIC not in spec.shape[1:]
        self.inner = list(spec.shape[1:])
        self.width = math.prod(self.inner)
        self.largest = _RANGES[spec.datatype][1] if spec.datatype in FLOATS else 0.0

    def take(self, tensor: Tensor, position: int, typed: bool) -> Given:
        spec, shape = self.spec, tensor.shape
        if self.open and shape and shape[0] >= 0 and shape[1:] == self.inner:
            count = shape[0] * self.width
        else:
            count = _fitting(tensor, position, spec)
        if tensor.datatype not in self.accepted:
            raise other_datatype(spec.name, position, tensor.datatype, spec.datatype)
        values: Any = tensor.data
        if not typed and type(values) is list and values and type(values[0]) is list:
            values = _flat(tensor, position)
        if len(values) != count:
            raise WrongShape(
                f"the shape of input {spec.name!r} and its data disagree",
                subject=f"$.inputs[{position}].shape",
                found=f"{len(values)} values",
                asked=f"{count} as in the shape",
            )
        if type(values) is not list:
            values = _array(values, tensor, position, spec)
        # The root of the sum of squares is no less than any of them, and quicker than looking at each.
        elif not (typed and self.largest and math.hypot(*values) <= self.largest):
            _check(values, tensor, position, spec)
        if self.limits is not None:
            plain = values if type(values) is list else values.tolist()
            at = self.limits.outside(plain)
            if at is not None:
                raise beyond(spec.name, _where(tensor, position, at), plain[at], self.limits)
        return Given(tuple(shape), values)


def _fitting(tensor: Tensor, position: int, spec: TensorSpec) -> int:
    """How many values a shape has that is the signature's."""
    shape, asked = tensor.shape, spec.shape
    if len(shape) != len(asked):
        raise _other_shape(tensor, position, spec)
    for length, wanted in zip(shape, asked, strict=True):
        if length < 0 or wanted not in (length, DYNAMIC):
            raise _other_shape(tensor, position, spec)
    return math.prod(shape)


def _flat(tensor: Tensor, position: int) -> list[Any]:
    """Nested data as one list, held to the shape."""
    values, shape = tensor.data, tensor.shape
    if len(values) != shape[0]:
        raise WrongShape(
            f"the shape of input {tensor.name!r} and its data disagree",
            subject=f"$.inputs[{position}].shape",
            found=f"{len(values)} entries",
            asked=f"{shape[0]} as in the shape",
        )
    for axis, length in enumerate(shape[1:], 1):
        for at, item in enumerate(values):
            if type(item) is not list or len(item) != length:
                raise WrongShape(
                    f"input {tensor.name!r} is nested in another way than its shape says",
                    subject=_path(position, at, shape[:axis]),
                    found=f"{len(item)} entries" if type(item) is list else short(item),
                    asked=f"a list of {length}",
                )
        values = list(chain.from_iterable(values))
    return values


def _check(values: list[Any], tensor: Tensor, position: int, spec: TensorSpec) -> None:
    """Hold plain values to the datatype."""
    asked = spec.datatype
    kinds = set(map(type, values))
    allowed = _KINDS[asked]
    some = values
    if not kinds <= allowed:
        if not (spec.nullable and asked in FLOATS and kinds <= {*allowed, _NONE}):
            raise _wrong_value(values, tensor, position, spec)
        some = [value for value in values if value is not None]
    if some and asked in _RANGES and (asked != "FP64" or int in kinds):
        low, high = _RANGES[asked]
        if min(some) < low or max(some) > high:
            at = next(at for at, value in enumerate(values) if value is not None and not low <= value <= high)
            raise out_of_range(spec.name, _where(tensor, position, at), values[at], asked)


def _array(values: Any, tensor: Tensor, position: int, spec: TensorSpec) -> Any:
    """An array in the signature's datatype, held to it."""
    import numpy as np

    if spec.datatype == BYTES:
        return values
    with np.errstate(over="ignore"):
        taken = values.astype(DTYPES[spec.datatype], copy=False)
    if spec.datatype in FLOATS:
        bad = ~np.isfinite(taken) if not spec.nullable else np.isinf(taken) & np.isfinite(values)
        if bad.any():
            at = int(bad.argmax())
            raise out_of_range(spec.name, _where(tensor, position, at), values[at].item(), spec.datatype)
    return taken


def _where(tensor: Tensor, position: int, at: int) -> str:
    """JSON path of value number `at`, in the nesting in which it came."""
    nested = type(tensor.data) is list and bool(tensor.data) and type(tensor.data[0]) is list
    return _path(position, at, tensor.shape if nested else [0])


def _path(position: int, at: int, shape: list[int]) -> str:
    places: list[int] = []
    for length in reversed(shape[1:]):
        at, place = divmod(at, length)
        places.append(place)
    return f"$.inputs[{position}].data" + "".join(f"[{place}]" for place in [at, *reversed(places)])


def _other_shape(tensor: Tensor, position: int, spec: TensorSpec) -> RequestError:
    return WrongShape(
        f"input {spec.name!r} has another shape than the signature",
        subject=f"$.inputs[{position}].shape",
        found=tensor.shape,
        asked=list(spec.shape),
        next_step="A dimension of -1 may have any length; GET /v2/models/{endpoint} lists the shapes.",
    )


def _other_rows(name: str, position: int, found: int, rows: int) -> RequestError:
    what = (
        f"input {name!r} has no rows" if rows < 0 else f"input {name!r} has another number of rows than those before it"
    )
    return WrongShape(what, subject=f"$.inputs[{position}].shape", found=found, asked="1 or more" if rows < 0 else rows)


def _wrong_value(values: list[Any], tensor: Tensor, position: int, spec: TensorSpec) -> RequestError:
    allowed = _KINDS[spec.datatype] | ({_NONE} if spec.nullable else set())
    at = next(at for at, value in enumerate(values) if type(value) not in allowed)
    value = values[at]
    asked = spec.datatype + (" or null" if spec.nullable else "")
    what = f"input {spec.name!r} takes no null" if value is None else f"a value of input {spec.name!r} is not {asked}"
    return WrongDatatype(what, subject=_where(tensor, position, at), found=short(value), asked=asked)
