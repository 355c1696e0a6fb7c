"""What an application asks of an endpoint and what it is told: the bodies of calls, and answers as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instar.core.errors import BadInput
from instar.interfaces.wire import Rows, columns_of, datatype_of

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
) -> dict[str, Any]:
    """The body of a call for tensors, given as arrays or nested lists.

    Raises:
        BadInput: The endpoint takes no such tensor, or a list is ragged.
    """
    from instar.serve.tensor_client import Spec, tensor

    known = {one["name"]: Spec(one["name"], one["datatype"], list(one["shape"])) for one in specs}
    unknown = [name for name in tensors if name not in known]
    if unknown:
        raise BadInput("the endpoint takes no such tensor", found=unknown[0], asked=", ".join(known))
    inputs = [
        tensor(known[name], value.tolist() if hasattr(value, "tolist") else value) for name, value in tensors.items()
    ]
    body = _body(inputs, named, request_id)
    return body if outputs is None else {**body, "outputs": [{"name": name} for name in outputs]}


def inference_of(call: str, answer: Mapping[str, Any]) -> Inference:
    """The outputs in an answer."""
    from instar.serve.tensor_client import nest

    outputs = {one["name"]: nest(one["data"], one["shape"]) for one in answer["outputs"]}
    return Inference(call, int(answer["model_version"]), outputs)


def _body(inputs: list[dict[str, Any]], named: Mapping[str, Any], request_id: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "inputs": inputs,
        "parameters": {name: value for name, value in named.items() if value is not None},
    }
    return body if request_id is None else {**body, "id": request_id}
