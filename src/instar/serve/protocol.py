"""Requests of the Open Inference Protocol V2 in JSON: read one and hold it to the signature, at the moment of a call.

Used inside workers, so it imports nothing heavy. A request is decoded once and bound to a `Signature` column by column;
whatever does not fit is refused with the JSON path of the first thing that is wrong.

    bound = bind(decode(body), signature)
    bound.columns["distance"]      # -> [1400.0]
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import msgspec

from instar.core.errors import (
    MalformedRequest,
    MissingInput,
    RequestError,
    WrongDatatype,
    WrongShape,
)
from instar.core.ids import digest

BODY_LIMIT_BYTES = 16 * 1024 * 1024

FLOATS = frozenset({"FP64", "FP32"})
INTEGER_BITS = {"INT64": 64, "INT32": 32}

# Which datatypes a caller may declare for a column: its own, and those which it holds without loss.
_ACCEPTED: dict[str, frozenset[str]] = {
    "FP64": frozenset(
        {"FP64", "FP32", "FP16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
    ),
    "FP32": frozenset({"FP64", "FP32", "FP16", "INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32"}),
    "INT64": frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"}),
    "INT32": frozenset({"INT8", "INT16", "INT32", "UINT8", "UINT16"}),
    "BOOL": frozenset({"BOOL"}),
    "BYTES": frozenset({"BYTES"}),
}
_ELEMENTS: dict[str, frozenset[type]] = {
    "FP64": frozenset({float, int}),
    "FP32": frozenset({float, int}),
    "INT64": frozenset({int}),
    "INT32": frozenset({int}),
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
}


class InputColumn(msgspec.Struct, frozen=True):
    """One column that an endpoint takes.

    Attributes:
        datatype: V2 name: FP64, FP32, INT64, INT32, BOOL or BYTES (text).
        nullable: May a value be null?
        required: Must a request name it? False for columns that only a shadow reads.
        personal: Kept apart in the record, so that it can be erased.
    """

    name: str
    datatype: str
    nullable: bool = False
    required: bool = True
    personal: bool = False


class Signature(msgspec.Struct, frozen=True):
    """The columns of an endpoint, in the order in which records hold them."""

    columns: tuple[InputColumn, ...]

    @property
    def digest(self) -> str:
        """Content digest; a call's record names it, so that its values can be read by position."""
        return digest(msgspec.json.encode(self.columns))


class Tensor(msgspec.Struct):
    """A named tensor as it came: one column of `shape[0]` rows."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct):
    """The body of `POST …/infer`. Unknown members are allowed by the protocol and ignored."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None


class Bound(msgspec.Struct):
    """A request that fits its signature.

    Attributes:
        columns: Values by column, each of `rows` length; a column that was not required and not given is absent.
        request_id: The client's own id, echoed; need not be unique.
        entities: The entity key of each row, when the caller names it (V2 parameter `entity`).
        table_version: The table version that the rows were taken from (V2 parameter `table_version`).
    """

    columns: dict[str, list[Any]]
    rows: int
    request_id: str | None
    entities: list[str] | None
    table_version: str | None


_decoder = msgspec.json.Decoder(Request)
_encoder = msgspec.json.Encoder()


def decode(body: bytes | memoryview) -> Request:
    """Read a request's body.

    Raises:
        MalformedRequest: Not JSON, or not of the protocol's form; the JSON path is the subject.
    """
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as problem:
        text = str(problem)
        what, _, path = text.partition(" - at `")
        raise MalformedRequest(
            _lower(what),
            subject=path.rstrip("`") or "$",
            asked="a body of the Open Inference Protocol V2",
            next_step="See GET /v2/models/{endpoint} for the inputs.",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise MalformedRequest(
            f"the body is not JSON: {problem}",
            subject="$",
            asked="JSON in UTF-8, without NaN or Infinity",
            next_step="Send null for a value that is not known, where the column is nullable.",
        ) from None


def bind(request: Request, signature: Signature) -> Bound:
    """Hold a request to a signature.

    Raises:
        MissingInput: A required column is not there.
        MalformedRequest: A column that the signature does not have, or one twice.
        WrongShape: A shape that its data does not have, is not one column, or differs between inputs; no rows.
        WrongDatatype: A datatype or value that the column does not take.
    """
    inputs = request.inputs
    rows = -1
    given: dict[str, int] = {}
    for position, tensor in enumerate(inputs):
        if given.setdefault(tensor.name, position) != position:
            raise MalformedRequest(
                f"input {tensor.name!r} comes twice",
                subject=f"$.inputs[{position}].name",
                asked="each input once",
                next_step="Send one tensor with all rows.",
            )
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
                raise _missing(column, given)
            continue
        columns[column.name] = _values(inputs[at], at, column)
    if given:
        raise _unknown(given, signature)
    parameters = request.parameters
    entities = table_version = None
    if parameters:
        entities = _entities(parameters.get("entity"), rows)
        table_version = _text(parameters.get("table_version"), "$.parameters.table_version")
    return Bound(columns, rows, request.id, entities, table_version)


def encode_request(
    columns: dict[str, list[Any]],
    signature: Signature,
    request_id: str | None = None,
    parameters: dict[str, Any] | None = None,
) -> bytes:
    """The body of a request, for clients: `columns` as the signature names them."""
    body: dict[str, Any] = {
        "inputs": [
            {"name": c.name, "shape": [len(columns[c.name])], "datatype": c.datatype, "data": columns[c.name]}
            for c in signature.columns
            if c.name in columns
        ]
    }
    if request_id is not None:
        body["id"] = request_id
    if parameters:
        body["parameters"] = parameters
    return _encoder.encode(body)


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
    if tensor.datatype != asked and tensor.datatype not in _ACCEPTED[asked]:
        raise WrongDatatype(
            f"input {column.name!r} has another datatype than the signature",
            subject=f"$.inputs[{position}].datatype",
            found=tensor.datatype,
            asked=asked,
            next_step="Send the datatype that GET /v2/models/{endpoint} lists.",
        )
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
        limit = 1 << (INTEGER_BITS[asked] - 1)
        for row, value in enumerate(data):
            if value is not None and not -limit <= value < limit:
                raise _out_of_range(row, value, position, column)
    return data


def _floats(data: list[Any], position: int, column: InputColumn) -> list[float | None]:
    values: list[float | None] = []
    for row, value in enumerate(data):
        try:
            values.append(None if value is None else float(value))
        except OverflowError:
            raise _out_of_range(row, value, position, column) from None
    return values


def _wrong_value(data: list[Any], position: int, column: InputColumn) -> RequestError:
    allowed = _ELEMENTS[column.datatype] | ({type(None)} if column.nullable else set())
    row = next(row for row, value in enumerate(data) if type(value) not in allowed)
    value = data[row]
    asked = column.datatype + (" or null" if column.nullable else "")
    what = (
        f"input {column.name!r} takes no null" if value is None else f"a value of input {column.name!r} is not {asked}"
    )
    return WrongDatatype(what, subject=f"$.inputs[{position}].data[{row}]", found=_short(value), asked=asked)


def _out_of_range(row: int, value: object, position: int, column: InputColumn) -> RequestError:
    return WrongDatatype(
        f"a value of input {column.name!r} does not fit its datatype",
        subject=f"$.inputs[{position}].data[{row}]",
        found=_short(value),
        asked=column.datatype,
    )


def _missing(column: InputColumn, given: dict[str, int]) -> RequestError:
    near = difflib.get_close_matches(column.name, list(given), n=1)
    return MissingInput(
        f"input {column.name!r} is missing",
        subject="$.inputs",
        found=f"{near[0]!r}, which the signature does not have" if near else None,
        asked=f"{column.name} ({column.datatype})",
        next_step="Send all inputs that GET /v2/models/{endpoint} lists.",
    )


def _unknown(given: dict[str, int], signature: Signature) -> RequestError:
    name, position = next(iter(given.items()))
    near = difflib.get_close_matches(name, [c.name for c in signature.columns], n=1)
    return MalformedRequest(
        "the signature has no such input",
        subject=f"$.inputs[{position}].name",
        found=repr(name[:80]),
        asked=f"perhaps {near[0]!r}" if near else None,
        next_step="Leave it out; GET /v2/models/{endpoint} lists the inputs.",
    )


def _entities(value: object, rows: int) -> list[str] | None:
    """One entity for a request of one row, or a list with one for each row."""
    if value is None:
        return None
    names = value if isinstance(value, list) else [value]
    if len(names) != rows:
        raise WrongShape("`entity` does not name each row", subject="$.parameters.entity", found=len(names), asked=rows)
    return [_text(name, "$.parameters.entity") or "" for name in names]


def _text(value: object, path: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise WrongDatatype("this parameter is a text", subject=path, found=_short(value), asked="a JSON string")


def _short(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value!r} (a number)"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
