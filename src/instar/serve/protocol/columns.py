"""Columns of a request held to the signature of a table model, at the moment of a call.

Used inside workers, so it imports nothing heavy. Whatever does not fit is refused with the JSON path of the first thing that
is wrong.

    bound = Binder(signature).read(body)
    bound.columns["distance"]      # -> [1400.0]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from instar.core.errors import RequestError, WrongDatatype, WrongShape
from instar.serve.protocol.signature import ACCEPTED, FLOATS, InputColumn, Signature
from instar.serve.protocol.v2_json import (
    Asked,
    Request,
    Tensor,
    asked_of,
    beyond,
    decode,
    decode_floats,
    decode_quickly,
    missing,
    other_datatype,
    out_of_range,
    short,
    twice,
    unknown,
)

INTEGER_BITS = {"INT64": 64, "INT32": 32}

_ELEMENTS: dict[str, frozenset[type]] = {
    "FP64": frozenset({float, int}),
    "FP32": frozenset({float, int}),
    "INT64": frozenset({int}),
    "INT32": frozenset({int}),
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
}
_OUTPUTS = ("score", "decision")


class Bound(msgspec.Struct):
    """A request that fits its signature.

    Attributes:
        columns: Values by column, each of `rows` length; a column that was not required and not given is absent.
        asked: What the caller said beside the inputs.
    """

    columns: dict[str, list[Any]]
    rows: int
    asked: Asked


class Binder:
    """Holds requests to one signature; made once, used at each call.

    Most requests name all columns in the signature's order, flat and of its very types. Those are seen to be such column by
    column; whatever else comes is left to `bind`, which tells it all.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._columns = [
            (
                column.name,
                column.datatype,
                _quickly_taken(column),
                _limit(column.datatype),
                signature.limits.get(column.name),
            )
            for column in signature.columns
        ]
        self._decode: Callable[[bytes | memoryview], Request] | None = None
        if all(column.datatype in FLOATS and not column.nullable for column in signature.columns):
            self._decode = decode_floats

    def read(self, body: bytes | memoryview) -> Bound:
        """A request in JSON, read and held to the signature.

        Raises:
            RequestError: As `decode` and `bind`.
        """
        request, typed = decode_quickly(body, self._decode)
        if typed:  # what is not of the usual form is read again for what it is
            return self._quick(request, typed=True) or self.bind(decode(body))
        return self.bind(request)

    def bind(self, request: Request) -> Bound:
        """Hold a request to the signature.

        Raises:
            RequestError: As `bind`.
        """
        return self._quick(request, typed=False) or bind(request, self._signature)

    def _quick(self, request: Request, typed: bool) -> Bound | None:
        inputs = request.inputs
        if not inputs or len(inputs) != len(self._columns) or request.outputs is not None or request.parameters:
            return None
        rows = len(inputs[0].data)
        flat, tall = [rows], [rows, 1]
        columns: dict[str, list[Any]] = {}
        for tensor, (name, datatype, taken, limit, declared) in zip(inputs, self._columns, strict=True):
            data = tensor.data
            if tensor.name != name or tensor.datatype != datatype or len(data) != rows:
                return None
            if tensor.shape != flat and tensor.shape != tall:
                return None
            if not typed and not (type(data[0]) in taken if rows == 1 else taken.issuperset(map(type, data))):
                return None
            if limit and not all(value is None or -limit <= value < limit for value in data):
                return None
            if declared is not None and declared.outside(data) is not None:
                return None
            columns[name] = data
        return Bound(columns, rows, Asked(request.id)) if rows else None


def bind(request: Request, signature: Signature) -> Bound:
    """Hold a request to a signature.

    Raises:
        MissingInput: A required column is not there.
        MalformedRequest: A column that the signature does not have, or one twice.
        WrongShape: A shape that its data does not have, is not one column, or differs between inputs; no rows.
        WrongDatatype: A datatype or value that the column does not take.
        OutOfRange: A value beyond what was declared.
    """
    inputs = request.inputs
    rows = -1
    given: dict[str, int] = {}
    for position, tensor in enumerate(inputs):
        if given.setdefault(tensor.name, position) != position:
            raise twice(tensor.name, position)
        found = _rows(tensor, position)
        if rows < 0:
            rows = found
        elif found != rows:
            raise WrongShape(
                f"input {tensor.name!r} has another number of rows than {inputs[0].name!r}",
                subject=f"$.inputs[{position}].shape",
                found=found,
                asked=rows,
            )
    columns: dict[str, list[Any]] = {}
    for column in signature.columns:
        at = given.pop(column.name, None)
        if at is None:
            if column.required:
                raise missing(column.name, column.datatype, list(given))
            continue
        values = columns[column.name] = _values(inputs[at], at, column)
        limits = signature.limits.get(column.name)
        row = None if limits is None else limits.outside(values)
        if limits is not None and row is not None:
            raise beyond(column.name, f"$.inputs[{at}].data[{row}]", values[row], limits)
    if given:
        name, position = next(iter(given.items()))
        raise unknown(name, position, [column.name for column in signature.columns])
    return Bound(columns, rows, asked_of(request, rows, _OUTPUTS))


def _rows(tensor: Tensor, position: int) -> int:
    shape = tensor.shape
    if not shape or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise WrongShape(
            f"input {tensor.name!r} is not one column",
            subject=f"$.inputs[{position}].shape",
            found=shape,
            asked="[rows] or [rows, 1]",
        )
    data = tensor.data
    # The protocol allows nested data: [[1.0], [2.0]] for a shape of [2, 1].
    if data and type(data[0]) is list:
        tensor.data = data = _flat(data, position, tensor.name)
    if shape[0] != len(data):
        raise WrongShape(
            f"the shape of input {tensor.name!r} and its data disagree",
            subject=f"$.inputs[{position}].shape",
            found=f"{len(data)} values",
            asked=f"{shape[0]} as in the shape",
        )
    if not data:
        raise WrongShape(
            f"input {tensor.name!r} has no rows", subject=f"$.inputs[{position}].data", found=0, asked="1 or more"
        )
    return len(data)


def _flat(data: list[Any], position: int, name: str) -> list[Any]:
    for row, item in enumerate(data):
        if type(item) is not list or len(item) != 1:
            raise WrongShape(
                f"row {row} of input {name!r} is not one value",
                subject=f"$.inputs[{position}].data[{row}]",
                asked="one value a row",
            )
    return [item[0] for item in data]


def _values(tensor: Tensor, position: int, column: InputColumn) -> list[Any]:
    asked = column.datatype
    if tensor.datatype != asked and tensor.datatype not in ACCEPTED[asked]:
        raise other_datatype(column.name, position, tensor.datatype, asked)
    data = tensor.data
    kinds = set(map(type, data))
    if kinds <= _ELEMENTS[asked] or (
        type(None) in kinds and column.nullable and kinds - {type(None)} <= _ELEMENTS[asked]
    ):
        pass
    else:
        raise _wrong_value(data, position, column)
    if asked in FLOATS:
        return _floats(data, position, column) if int in kinds else data
    if asked in INTEGER_BITS:
        limit = _limit(asked)
        for row, value in enumerate(data):
            if value is not None and not -limit <= value < limit:
                raise out_of_range(column.name, f"$.inputs[{position}].data[{row}]", value, asked)
    return data


def _quickly_taken(column: InputColumn) -> frozenset[type]:
    """Types of values that need not be looked at any further: a whole number among floats is made one."""
    kinds = {float} if column.datatype in FLOATS else _ELEMENTS[column.datatype]
    return frozenset(kinds | ({type(None)} if column.nullable else set()))


def _limit(datatype: str) -> int:
    """By how much a whole number may be away from 0; 0 for what is none."""
    return 1 << (INTEGER_BITS[datatype] - 1) if datatype in INTEGER_BITS else 0


def _floats(data: list[Any], position: int, column: InputColumn) -> list[float | None]:
    values: list[float | None] = []
    for row, value in enumerate(data):
        try:
            values.append(None if value is None else float(value))
        except OverflowError:
            raise out_of_range(column.name, f"$.inputs[{position}].data[{row}]", value, column.datatype) from None
    return values


def _wrong_value(data: list[Any], position: int, column: InputColumn) -> RequestError:
    allowed = _ELEMENTS[column.datatype] | ({type(None)} if column.nullable else set())
    row = next(row for row, value in enumerate(data) if type(value) not in allowed)
    value = data[row]
    asked = column.datatype + (" or null" if column.nullable else "")
    what = (
        f"input {column.name!r} takes no null" if value is None else f"a value of input {column.name!r} is not {asked}"
    )
    return WrongDatatype(what, subject=f"$.inputs[{position}].data[{row}]", found=short(value), asked=asked)
