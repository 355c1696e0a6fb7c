"""Requests of the Open Inference Protocol V2 in JSON, read as they come, at the moment of a call.

Used inside workers, so it imports nothing heavy. A request is decoded once, and then held to its signature: by `columns` for a
table model, by `tensors` for a tensor model.

    decode(body).inputs[0].name     # -> "distance"
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from instar.core.errors import MalformedRequest, MissingInput, OutOfRange, RequestError, WrongDatatype, WrongShape
from instar.core.limits import Limits

BODY_LIMIT_BYTES = 16 * 1024 * 1024


class Tensor(msgspec.Struct, gc=False):
    """A named tensor as it came. `data` is flat, or nested as its shape says."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class Wanted(msgspec.Struct, gc=False):
    """An output that the caller asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct, gc=False):
    """The body of `POST …/infer`. Unknown members are allowed by the protocol and ignored."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Wanted] | None = None


class _Floats(Tensor):
    data: list[float]


class _Whole(Tensor):
    data: list[int]


class _FloatRequest(Request):
    inputs: list[_Floats]  # type: ignore[assignment]


class _WholeRequest(Request):
    inputs: list[_Whole]  # type: ignore[assignment]


class Asked(msgspec.Struct, frozen=True):
    """What a caller says beside the inputs.

    Attributes:
        request_id: The client's own id, echoed; need not be unique.
        entities: The entity key of each row, when the caller names it (V2 parameter `entity`).
        table_version: The table version that the rows were taken from (V2 parameter `table_version`).
        outputs: Outputs wanted, in order; None for all.
        binary: Outputs wanted as binary tensors: True for all; None for none.
        timeout_us: Microseconds that the caller waits (V2 parameter `timeout`, as Triton has it); None for no bound.
    """

    request_id: str | None = None
    entities: list[str] | None = None
    table_version: str | None = None
    outputs: tuple[str, ...] | None = None
    binary: bool | tuple[str, ...] | None = None
    timeout_us: int | None = None


# Parameters of the protocol and its extensions that would change the answer where they are kept, and are not kept here.
_UNKEPT = {
    "sequence_id": "models here keep no state from one call to the next: there are no sequences",
    "sequence_start": "models here keep no state from one call to the next: there are no sequences",
    "sequence_end": "models here keep no state from one call to the next: there are no sequences",
    "priority": "calls of an endpoint have no priorities",
    "classification": "outputs are given as they are, and not as classes",
    "shared_memory_region": "no shared memory is read or written: values travel in the body",
}

HEAD_BYTES = 64 * 1024  # of a body that is refused, in which is looked for what it may have meant

_decoder = msgspec.json.Decoder(Request)
# Requests all of whose values are numbers of one kind and lie flat; msgspec's own errors say that one is not.
decode_floats: Callable[[bytes | memoryview], Request] = msgspec.json.Decoder(_FloatRequest).decode
decode_whole: Callable[[bytes | memoryview], Request] = msgspec.json.Decoder(_WholeRequest).decode
_encoder = msgspec.json.Encoder()


def decode(body: bytes | memoryview) -> Request:
    """Read a request's body.

    Raises:
        MalformedRequest: Not JSON, or not of the protocol's form; the JSON path is the subject.
    """
    request: Request = decoded(_decoder, body)
    return request


def decode_quickly(
    body: bytes | memoryview, quick: Callable[[bytes | memoryview], Request] | None
) -> tuple[Request, bool]:
    """A request, and whether `quick` read it: a decoder of one kind of values, for which reading is holding them to it.

    Whatever that stumbles over (nested data, too) is read again for what it is.

    Raises:
        MalformedRequest: As `decode`.
    """
    if quick is not None:
        try:
            return quick(body), True
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return decode(body), False


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes | memoryview) -> Any:
    """What a decoder makes of a body, refused as `decode` refuses."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as problem:
        text = str(problem)
        what, _, path = text.partition(" - at `")
        if b"shared_memory_region" in bytes(body[:HEAD_BYTES]):
            what = _UNKEPT["shared_memory_region"]
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
            next_step="Send null for a value that is not known, where the input is nullable.",
        ) from None


def asked_of(request: Request, rows: int, outputs: Sequence[str]) -> Asked:
    """What a request says beside its inputs.

    Args:
        rows: Predictions that it asks for.
        outputs: Names of the outputs that there are.

    Raises:
        MalformedRequest: An output that there is not, or one twice.
        WrongShape, WrongDatatype: A parameter that cannot be read.
        MalformedRequest: A parameter asks for what models here do not do.
    """
    parameters = request.parameters
    if parameters:
        hold(parameters, "$.parameters")
    wanted = None if request.outputs is None else _wanted(request.outputs, outputs)
    if not parameters:
        return Asked(request.id, None, None, wanted, None if request.outputs is None else _binary(request))
    return Asked(
        request.id,
        _entities(parameters.get("entity"), rows),
        _text(parameters.get("table_version"), "$.parameters.table_version"),
        wanted,
        _binary(request),
        _timeout(parameters),
    )


def short(value: object) -> str:
    """A value in an error."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value!r} (a number)"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def twice(name: str, position: int) -> RequestError:
    """The refusal of an input that comes twice."""
    return MalformedRequest(
        f"input {name!r} comes twice",
        subject=f"$.inputs[{position}].name",
        asked="each input once",
        next_step="Send one tensor with all rows.",
    )


def missing(name: str, datatype: str, given: Sequence[str]) -> RequestError:
    """The refusal of a request without an input; `given` are names that the signature does not have."""
    near = _near(name, given)
    return MissingInput(
        f"input {name!r} is missing",
        subject="$.inputs",
        found=f"{near!r}, which the signature does not have" if near else None,
        asked=f"{name} ({datatype})",
        next_step="Send all inputs that GET /v2/models/{endpoint} lists.",
    )


def unknown(name: str, position: int, known: Sequence[str]) -> RequestError:
    """The refusal of an input that the signature does not have."""
    near = _near(name, known)
    return MalformedRequest(
        "the signature has no such input",
        subject=f"$.inputs[{position}].name",
        found=repr(name[:80]),
        asked=f"perhaps {near!r}" if near else None,
        next_step="Leave it out; GET /v2/models/{endpoint} lists the inputs.",
    )


def other_datatype(name: str, position: int, found: str, asked: str) -> RequestError:
    """The refusal of a datatype which the input does not hold without loss."""
    return WrongDatatype(
        f"input {name!r} has another datatype than the signature",
        subject=f"$.inputs[{position}].datatype",
        found=found,
        asked=asked,
        next_step="Send the datatype that GET /v2/models/{endpoint} lists.",
    )


def out_of_range(name: str, path: str, value: object, datatype: str) -> RequestError:
    """The refusal of a number that its datatype cannot hold."""
    return WrongDatatype(
        f"a value of input {name!r} does not fit its datatype", subject=path, found=short(value), asked=datatype
    )


def beyond(name: str, path: str, value: object, limits: Limits) -> RequestError:
    """The refusal of a value that is beyond what was declared."""
    return OutOfRange(
        f"a value of input {name!r} is beyond what was declared for it", subject=path, found=short(value),
        asked=limits.describe(), next_step="See GET /v2/models/{endpoint} for what each input may have.",
    )  # fmt: skip


def not_of(datatype: str, path: str, value: object) -> RequestError:
    """The refusal of a text that is no value of a datatype."""
    return WrongDatatype("a value is not of its input's datatype", subject=path, found=short(value), asked=datatype)


def _binary(request: Request) -> bool | tuple[str, ...] | None:
    """Which outputs are wanted as binary tensors (parameters `binary_data_output` and, of one output, `binary_data`)."""
    every = _flag(request.parameters or {}, "binary_data_output", "$.parameters", False)
    if not request.outputs:
        return every or None
    names: list[str] = []
    for position, one in enumerate(request.outputs):
        parameters, path = one.parameters or {}, f"$.outputs[{position}].parameters"
        hold(parameters, path)
        if _flag(parameters, "binary_data", path, every):
            names.append(one.name)
    return tuple(names) or None


def _timeout(parameters: dict[str, Any]) -> int | None:
    """Microseconds; 0 sets no bound."""
    value = parameters.get("timeout")
    if value is None or (type(value) is int and 0 <= value < 1 << 63):
        return value or None
    raise WrongDatatype(
        "this parameter is a whole number of microseconds", subject="$.parameters.timeout", found=short(value),
        asked="0 or more; the header Instar-Timeout takes seconds",
    )  # fmt: skip


def hold(parameters: dict[str, Any], path: str) -> None:
    """Refuse what is asked for and would not be done; a parameter that asks for nothing (0, false, an empty text) may stand."""
    for name, why in _UNKEPT.items():
        if parameters.get(name):
            raise MalformedRequest(
                why, subject=f"{path}.{name}", found=short(parameters[name]), next_step="Leave this parameter out."
            )


def _flag(parameters: dict[str, Any], name: str, path: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is bool:
        return value
    raise WrongDatatype("this parameter is true or false", subject=f"{path}.{name}", found=short(value), asked="BOOL")


def _near(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` that somebody may have meant."""
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def _wanted(outputs: list[Wanted], known: Sequence[str]) -> tuple[str, ...] | None:
    names: list[str] = []
    for position, output in enumerate(outputs):
        path = f"$.outputs[{position}].name"
        if output.name not in known:
            perhaps = _near(output.name, known)
            raise MalformedRequest(
                "the model has no such output",
                subject=path,
                found=repr(output.name[:80]),
                asked=f"perhaps {perhaps!r}" if perhaps else ", ".join(known),
                next_step="GET /v2/models/{endpoint} lists the outputs.",
            )
        if output.name in names:
            raise MalformedRequest(f"output {output.name!r} is asked for twice", subject=path, asked="each output once")
        names.append(output.name)
    return tuple(names) or None


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
    raise WrongDatatype("this parameter is a text", subject=path, found=short(value), asked="a JSON string")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
