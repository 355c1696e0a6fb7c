"""The binary tensor extension of the Open Inference Protocol V2: a JSON head, and the values of tensors behind it as they are.

Values are little-endian and without gaps, in the order in which the head names them; texts are four bytes of length and the text.
The header `Inference-Header-Content-Length` says where the head ends.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any

import msgspec

from instar.core.errors import MalformedRequest, WrongDatatype, WrongShape
from instar.serve.protocol import replies, v2_json, wire
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import BYTES, ELEMENT_BYTES, Signature
from instar.serve.protocol.tensors import DTYPES

_LENGTH = struct.Struct("<I")


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _Head(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[v2_json.Wanted] | None = None


_head = msgspec.json.Decoder(_Head)
_encoder = msgspec.json.Encoder()


def read(ask: wire.Ask, signature: Signature) -> v2_json.Request:
    """A request with binary tensors; others may stand in its head, as in JSON.

    Raises:
        MalformedRequest: The head is none, or values are missing or left over.
        WrongShape, WrongDatatype: A tensor whose size is not that of its values.
    """
    body = memoryview(ask.body)
    if ask.head > len(body):
        raise MalformedRequest(
            "the head is longer than the body",
            subject="$",
            found=len(body),
            asked=f"{ask.head} bytes, as its header says",
        )
    head = v2_json.decoded(_head, body[: ask.head])
    at = ask.head
    columns = bool(signature.columns)
    inputs = []
    for position, one in enumerate(head.inputs):
        v2_json.hold(one.parameters or {}, f"$.inputs[{position}].parameters")
        size = (one.parameters or {}).get("binary_data_size")
        if size is None:
            if one.data is None:
                raise MalformedRequest(
                    f"input {one.name!r} has no values", subject=f"$.inputs[{position}]",
                    asked="data, or binary_data_size and values behind the head",
                )  # fmt: skip
            inputs.append(v2_json.Tensor(one.name, one.shape, one.datatype, one.data, one.parameters))
            continue
        path = f"$.inputs[{position}]"
        if type(size) is not int or size < 0 or at + size > len(body):
            raise MalformedRequest(
                f"the values of input {one.name!r} are not whole", subject=f"{path}.parameters.binary_data_size",
                found=f"{len(body) - at} bytes", asked=v2_json.short(size),
            )  # fmt: skip
        values = _values(one, body[at : at + size], path)
        at += size
        # A table model's columns are lists; a tensor model takes arrays as they are.
        inputs.append(v2_json.Tensor(one.name, one.shape, one.datatype, _listed(values) if columns else values))
    if at != len(body):
        raise MalformedRequest("there are bytes behind the last tensor", subject="$", found=f"{len(body) - at} bytes")
    return v2_json.Request(inputs, head.id, head.parameters, head.outputs)


def write(answer: Answer) -> Written:
    """The answer, with those tensors in binary that the caller wants so."""
    asked = answer.asked
    wanted = asked.binary
    head: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if asked.request_id is not None:
        head["id"] = asked.request_id
    head["parameters"] = answer.parameters
    outputs, tail = [], []
    for output in answer.outputs(False):
        about: dict[str, Any] = {"name": output.name, "shape": output.shape, "datatype": output.datatype}
        if wanted is True or (wanted and output.name in wanted):
            data = encoded(output)
            about["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            about["data"] = replies.plain(output)
        outputs.append(about)
    head["outputs"] = outputs
    encoded_head = _encoder.encode(head)
    if not tail:
        return encoded_head, wire.JSON, 0
    return b"".join((encoded_head, *tail)), wire.BINARY, len(encoded_head)


def write_all(answer: Answer) -> Written:
    """The answer with all tensors in binary, but for those that the request wants otherwise."""
    if answer.asked.binary is None:
        answer = dataclasses.replace(answer, asked=msgspec.structs.replace(answer.asked, binary=True))
    return write(answer)


def encoded(output: replies.Output) -> bytes:
    """Values of an output as the extension has them."""
    import numpy as np

    if output.datatype != BYTES:
        array = np.ascontiguousarray(output.data, dtype=np.dtype(DTYPES[output.datatype]).newbyteorder("<"))
        return array.tobytes()
    values = output.data if type(output.data) is list else output.data.ravel().tolist()
    texts = [value if type(value) is bytes else str(value).encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def _values(one: _Tensor, data: memoryview, path: str) -> Any:
    import numpy as np

    count = math.prod(one.shape) if all(length >= 0 for length in one.shape) else -1
    values: Any
    if one.datatype == BYTES:
        values = _texts(data, path)
    elif one.datatype in ELEMENT_BYTES:
        if len(data) % ELEMENT_BYTES[one.datatype]:
            raise WrongShape(
                f"the values of input {one.name!r} are not whole", subject=f"{path}.parameters.binary_data_size",
                found=len(data), asked=f"a multiple of {ELEMENT_BYTES[one.datatype]}",
            )  # fmt: skip
        if one.datatype == "BOOL" and data and max(data) > 1:
            raise WrongDatatype("a byte of a BOOL is neither 0 nor 1", subject=path, found=max(data))
        values = np.frombuffer(data, dtype=np.dtype(DTYPES[one.datatype]).newbyteorder("<"))
    else:
        raise WrongDatatype(
            "the protocol has no such datatype", subject=f"{path}.datatype", found=v2_json.short(one.datatype)
        )
    if len(values) != count:
        raise WrongShape(
            f"the shape of input {one.name!r} and its data disagree", subject=f"{path}.shape",
            found=f"{len(values)} values", asked=f"{count} as in the shape" if count >= 0 else "lengths from 0 on",
        )  # fmt: skip
    return values


def _texts(data: memoryview, path: str) -> list[Any]:
    found: list[Any] = []
    at = 0
    while at < len(data):
        stop = at + 4 + (_LENGTH.unpack_from(data, at)[0] if at + 4 <= len(data) else len(data))
        if stop > len(data):
            raise MalformedRequest("a text is not whole", subject=f"{path}.data[{len(found)}]", asked="length and text")
        try:
            found.append(str(data[at + 4 : stop], "utf-8"))
        except UnicodeDecodeError:
            raise WrongDatatype("a text is not UTF-8", subject=f"{path}.data[{len(found)}]") from None
        at = stop
    return found


def _listed(values: Any) -> list[Any]:
    return values if type(values) is list else values.tolist()
