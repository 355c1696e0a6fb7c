"""What an application asks of an endpoint and what it is told: the bodies of calls, and answers as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from instar.core.errors import BadInput
from instar.interfaces.wire import Rows, columns_of, datatype_of
from instar.serve.protocol.signature import BYTES, DYNAMIC

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Prediction:
    """One row's answer.

    Attributes:
        id: `call_…/row`, by which outcomes and traces name it.
        score: P(target is true), or the number that the version predicts.
        decision: The score is at or above the version's threshold; None where it predicts a number.
        version: Version that answered.
    """

    id: str
    score: float
    decision: bool | None
    version: int


@dataclass(frozen=True)
class Inference:
    """A tensor model's answer to one call.

    Attributes:
        call: By which traces name it; its predictions are `<call>/0` and so on.
        version: Version that answered.
        outputs: Nested lists by output, in the order in which they were asked for.
    """

    call: str
    version: int
    outputs: dict[str, Any]


def rows_body(
    rows: Rows | pl.DataFrame, specs: Sequence[Mapping[str, Any]], named: Mapping[str, Any], request_id: str | None
) -> dict[str, Any]:
    """The body of a call for rows of a table model.

    Raises:
        BadInput: The endpoint is a tensor model's.
    """
    if any("optional" in one.get("parameters", {}) for one in specs):
        raise BadInput(
            "it takes tensors, not rows of columns", subject=", ".join(str(one["name"]) for one in specs),
            next_step="Ask it with `infer`.",
        )  # fmt: skip
    datatypes = {one["name"]: one["datatype"] for one in specs}
    inputs = [
        {"name": name, "shape": [len(data)], "datatype": datatypes.get(name) or datatype_of(name, data), "data": data}
        for name, data in columns_of(rows).items()
    ]
    return _body(inputs, named, request_id)


def predictions_of(call: str, answer: Mapping[str, Any]) -> list[Prediction]:
    """The predictions in an answer."""
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    decisions = outputs.get("decision") or [None] * len(outputs["score"])
    version = int(answer["model_version"])
    return [
        Prediction(f"{call}/{row}", score, None if decision is None else bool(decision), version)
        for row, (score, decision) in enumerate(zip(outputs["score"], decisions, strict=True))
    ]


def tensors_body(
    tensors: Mapping[str, Any],
    specs: Sequence[Mapping[str, Any]],
    named: Mapping[str, Any],
    request_id: str | None,
    outputs: Sequence[str] | None,
) -> tuple[bytes, dict[str, str]]:
    """The body of a call for tensors, given as arrays or nested lists, and its headers.

    Arrays of numbers go as their bytes behind the JSON, where the server would read the same from JSON.

    Raises:
        BadInput: The endpoint takes no such tensor, or a list is ragged.
    """
    from instar.serve.clients.nested import Spec, tensor

    known = {one["name"]: Spec(one["name"], one["datatype"], list(one["shape"])) for one in specs}
    unknown = [name for name in tensors if name not in known]
    if unknown:
        raise BadInput("the endpoint takes no such tensor", found=unknown[0], asked=", ".join(known))
    inputs, tail = [], b""
    for name, value in tensors.items():
        spec = known[name]
        data = _bytes_of(value, spec.datatype)
        if data is None:
            inputs.append(tensor(spec, value.tolist() if hasattr(value, "tolist") else value))
            continue
        shape = list(value.shape)
        if len(shape) == len(spec.shape) - 1 and spec.shape[0] == DYNAMIC:
            shape = [1, *shape]
        parameters = {"binary_data_size": len(data)}
        inputs.append({"name": name, "datatype": spec.datatype, "shape": shape, "parameters": parameters})
        tail += data
    body = _body(inputs, named, request_id)
    head = msgspec.json.encode(body if outputs is None else {**body, "outputs": [{"name": name} for name in outputs]})
    if not tail:
        return head, {"content-type": "application/json"}
    return head + tail, {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }


def _bytes_of(value: Any, datatype: str) -> bytes | None:
    """An array as the binary tensor extension has it; None where JSON must say it: lists, texts, NaN, what does not fit."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if not kind or kind not in "biuf" or datatype == BYTES or not value.size:
        return None
    import numpy as np

    from instar.serve.protocol.tensors import DTYPES

    wanted = np.dtype(DTYPES[datatype]).newbyteorder("<")
    if kind != wanted.kind or not (kind == "f" or np.can_cast(value.dtype, wanted, "safe")):
        return None
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(value, dtype=wanted)
    return cast.tobytes() if wanted.kind != "f" or bool(np.isfinite(cast).all()) else None


def inference_of(call: str, answer: Mapping[str, Any]) -> Inference:
    """The outputs in an answer."""
    from instar.serve.clients.nested import nest

    outputs = {one["name"]: nest(one["data"], one["shape"]) for one in answer["outputs"]}
    return Inference(call, int(answer["model_version"]), outputs)


def _body(inputs: list[dict[str, Any]], named: Mapping[str, Any], request_id: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "inputs": inputs,
        "parameters": {name: value for name, value in named.items() if value is not None},
    }
    return body if request_id is None else {**body, "id": request_id}
