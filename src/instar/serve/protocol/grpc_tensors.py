"""Between gRPC's messages and the binary tensor form: what a worker is handed, and what is made of its answer, at a call."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from instar.core.errors import MalformedRequest, WrongDatatype, WrongShape
from instar.serve.protocol import v2_json
from instar.serve.protocol.grpc_messages import message

_encoder, _decoder = msgspec.json.Encoder(), msgspec.json.Decoder()

# Where the values of a datatype stand in `InferTensorContents`, and how one of them is written.
_CONTENTS = {
    "BOOL": ("bool_contents", "?"), "INT8": ("int_contents", "b"), "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"), "INT64": ("int64_contents", "q"), "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"), "UINT32": ("uint_contents", "I"), "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"), "FP64": ("fp64_contents", "d"), "BYTES": ("bytes_contents", ""),
}  # fmt: skip


def to_binary(request: Any) -> tuple[bytes, int]:
    """A `ModelInferRequest` as a body with binary tensors, and the length of its head.

    Raises:
        MalformedRequest, WrongDatatype, WrongShape: Values are missing, come twice, or do not fit their datatype.
    """
    for position, one in enumerate(request.inputs):
        v2_json.hold(_plain(one.parameters), f"$.inputs[{position}].parameters")
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise WrongShape(
            "raw contents are not there for each input",
            subject="$.raw_input_contents",
            found=len(raw),
            asked=len(request.inputs),
        )
    inputs, tail = [], []
    for position, one in enumerate(request.inputs):
        if raw and one.HasField("contents"):
            raise MalformedRequest("an input has raw contents and others", subject=f"$.inputs[{position}].contents")
        data = raw[position] if raw else _packed(one, position)
        tail.append(data)
        inputs.append(
            {
                "name": one.name, "datatype": one.datatype, "shape": list(one.shape),
                "parameters": {**_plain(one.parameters), "binary_data_size": len(data)},
            }
        )  # fmt: skip
    head: dict[str, Any] = {"inputs": inputs, "parameters": {**_plain(request.parameters), "binary_data_output": True}}
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [{"name": one.name, "parameters": _plain(one.parameters)} for one in request.outputs]
    encoded = _encoder.encode(head)
    return b"".join((encoded, *tail)), len(encoded)


def from_answer(body: bytes, head: int) -> Any:
    """The `ModelInferResponse` of an answer with binary tensors.

    Args:
        head: Length of the JSON head; 0 where the answer is all of it.
    """
    said = _decoder.decode(body[:head] if head else body)
    response = message("ModelInferResponse")(
        model_name=said["model_name"], model_version=said["model_version"], id=said.get("id", "")
    )
    for name, value in said.get("parameters", {}).items():
        _set(response.parameters[name], value)
    at = head
    for output in said["outputs"]:
        size = output["parameters"]["binary_data_size"]
        response.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        response.raw_output_contents.append(body[at : at + size])
        at += size
    return response


def _packed(one: Any, position: int) -> bytes:
    place = _CONTENTS.get(one.datatype)
    if place is None:
        raise WrongDatatype(
            "values of that datatype come as raw contents", subject=f"$.inputs[{position}].datatype",
            found=repr(one.datatype[:40]), asked=", ".join(_CONTENTS),
        )  # fmt: skip
    name, letter = place
    values = getattr(one.contents, name)
    others = [field.name for field, _ in one.contents.ListFields() if field.name != name]
    if others:
        raise WrongDatatype(
            "the values stand where those of another datatype do", subject=f"$.inputs[{position}].contents",
            found=others[0], asked=name,
        )  # fmt: skip
    if not letter:
        return b"".join(part for text in values for part in (struct.pack("<I", len(text)), text))
    try:
        return struct.pack(f"<{len(values)}{letter}", *values)
    except struct.error as problem:
        raise WrongDatatype(
            f"a value does not fit its datatype: {problem}",
            subject=f"$.inputs[{position}].contents",
            asked=one.datatype,
        ) from None


def _plain(parameters: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in parameters.items()
        if not name.startswith("binary_data")  # of HTTP: a message has its own place for values
    }


def _set(parameter: Any, value: object) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.string_param = str(value)
