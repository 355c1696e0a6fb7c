"""Answers of the Open Inference Protocol V2 in JSON, and what a refusal looks like, at the moment of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from instar.core.errors import NotAllowed, NotFound, RequestError, TooLarge, Unavailable
from instar.serve.protocol import Signature

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413), (RequestError, 400), (NotAllowed, 403), (NotFound, 404), (Unavailable, 503),
)  # fmt: skip

_encoder = msgspec.json.Encoder()


def encode_answer(
    model: str,
    version: str,
    request_id: str | None,
    scores: Sequence[float],
    decisions: Sequence[int],
    parameters: dict[str, Any],
) -> bytes:
    """The body of an answer: outputs `score` (FP64) and `decision` (INT64, 1 from the threshold on); no decisions, no output."""
    rows = len(scores)
    answer: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id is not None:
        answer["id"] = request_id
    answer["parameters"] = parameters
    outputs: list[dict[str, Any]] = [{"name": "score", "shape": [rows], "datatype": "FP64", "data": scores}]
    if decisions or not rows:
        outputs.append({"name": "decision", "shape": [rows], "datatype": "INT64", "data": decisions})
    answer["outputs"] = outputs
    return _encoder.encode(answer)


def status_of(problem: Exception) -> int:
    """HTTP status of a refusal on the inference routes."""
    for kind, status in _STATUS:
        if isinstance(problem, kind):
            return status
    return 500


def encode_error(problem: Exception) -> bytes:
    """The body of a refusal: `error` as V2 asks, and the error's kind and facts beside it."""
    body: dict[str, Any] = {"error": str(problem), "kind": type(problem).__name__}
    if isinstance(problem, RequestError) and problem.subject.startswith("$"):
        body["path"] = problem.subject
    return _encoder.encode(body)


def metadata(model: str, versions: Sequence[str], signature: Signature, decides: bool = True) -> bytes:
    """The body of `GET /v2/models/{model}`.

    Args:
        decides: The champion answers with decisions, not with scores alone.
    """
    return _encoder.encode(
        {
            "name": model,
            "versions": versions,
            "platform": "instar",
            "inputs": [
                {"name": c.name, "datatype": c.datatype, "shape": [-1], "parameters": {"nullable": c.nullable}}
                for c in signature.columns
                if c.required
            ],
            "outputs": [
                {"name": "score", "datatype": "FP64", "shape": [-1]},
                *([{"name": "decision", "datatype": "INT64", "shape": [-1]}] if decides else []),
            ],
        }
    )
