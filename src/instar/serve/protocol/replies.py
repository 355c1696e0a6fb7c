"""Answers of the Open Inference Protocol V2 in JSON, and what a refusal looks like, at the moment of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from instar.core.errors import (
    DeadlineExceeded,
    MalformedRequest,
    NotAcceptable,
    NotAllowed,
    NotFound,
    RequestError,
    TooLarge,
    TooManyCalls,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from instar.serve.protocol.signature import BYTES, Signature, TensorSpec

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413), (UnsupportedMedia, 415), (NotAcceptable, 406), (RequestError, 400), (Unauthenticated, 401),
    (NotAllowed, 403), (NotFound, 404),
    (TooManyCalls, 429), (Unavailable, 503), (DeadlineExceeded, 504),
)  # fmt: skip

_encoder = msgspec.json.Encoder()


class Output(msgspec.Struct, gc=False):
    """A named tensor of an answer.

    Attributes:
        data: Row by row: a list, or a numpy array. What JSON has no word for (NaN, infinity) is null in it.
    """

    name: str
    shape: list[int]
    datatype: str
    data: Any


class _Answer(msgspec.Struct, omit_defaults=True, gc=False):
    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: Sequence[Output] = ()


def select(outputs: Sequence[Output], wanted: Sequence[str]) -> list[Output]:
    """The outputs that a caller wants, in that order.

    Raises:
        MalformedRequest: The version that answers does not give one of them.
    """
    given = {output.name: output for output in outputs}
    for position, name in enumerate(wanted):
        if name not in given:
            raise MalformedRequest(
                f"the version that answers gives no output {name!r}",
                subject=f"$.outputs[{position}].name",
                found=", ".join(given),
                next_step="Leave `outputs` out to get all that it gives.",
            )
    return [given[name] for name in wanted]


def encode_answer(
    model: str, version: str, request_id: str | None, outputs: Sequence[Output], parameters: dict[str, Any]
) -> bytes:
    """The body of an answer."""
    for output in outputs:
        if type(output.data) is not list:
            output.data = plain(output)
    return _encoder.encode(_Answer(model, version, request_id, parameters, outputs))


def plain(output: Output) -> list[Any]:
    """Values of an output as JSON has them, without nesting."""
    values: list[Any] = output.data if type(output.data) is list else output.data.ravel().tolist()
    if output.datatype == BYTES and bytes in set(map(type, values)):
        return [value.decode(errors="replace") if type(value) is bytes else value for value in values]
    return values


def status_of(problem: Exception) -> int:
    """HTTP status of a refusal on the inference routes."""
    for kind, status in _STATUS:
        if isinstance(problem, kind):
            return status
    return 500


def headers_of(problem: Exception) -> list[tuple[bytes, bytes]]:
    """What a refusal says beside its body: how to say who one is, or when to come again."""
    if isinstance(problem, Unauthenticated):
        return [(b"www-authenticate", b'Bearer realm="instar"')]
    if isinstance(problem, TooManyCalls | Unavailable):
        return [(b"retry-after", b"%d" % problem.retry_after)]
    return []


def encode_error(problem: Exception) -> bytes:
    """The body of a refusal: `error` as V2 asks, and the error's kind and facts beside it."""
    body: dict[str, Any] = {"error": str(problem), "kind": type(problem).__name__}
    if isinstance(problem, RequestError) and problem.subject.startswith("$"):
        body["path"] = problem.subject
    return _encoder.encode(body)


def metadata(
    model: str, versions: Sequence[str], signature: Signature, decides: bool = True, state: str = "cold"
) -> bytes:
    """The body of `GET /v2/models/{model}`.

    Args:
        decides: The champion answers with decisions, not with scores alone.
        state: `"warm"`: it is loaded; `"cold"`: the next call loads it.

    `rows` among the parameters says that the first dimension counts predictions, so that rows can be sent together.
    """
    inputs: list[dict[str, Any]] = [
        {
            "name": c.name,
            "datatype": c.datatype,
            "shape": [-1],
            "parameters": {"nullable": c.nullable} | _limits(signature, c.name),
        }
        for c in signature.columns
        if c.required
    ]
    outputs = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
    if decides:
        outputs.append({"name": "decision", "datatype": "INT64", "shape": [-1]})
    if signature.tensors:
        inputs = [
            _tensor(t)
            | {"parameters": {"optional": not t.required, "nullable": t.nullable} | _limits(signature, t.name)}
            for t in signature.tensors
        ]
        outputs = [_tensor(t) for t in signature.outputs]
    return _encoder.encode(
        {
            "name": model,
            "versions": versions,
            "platform": "instar",
            "inputs": inputs,
            "outputs": outputs,
            "parameters": {"state": state, "rows": signature.rows or not signature.tensors},
        }
    )


def _limits(signature: Signature, name: str) -> dict[str, Any]:
    limits = signature.limits.get(name)
    found: dict[str, Any] = {} if limits is None else msgspec.to_builtins(limits)
    return found


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}
