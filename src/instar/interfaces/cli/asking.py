"""How `instar predict` reads tensors from a command line or a file, and prints what a tensor model answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from instar.core.errors import BadInput

if TYPE_CHECKING:
    from instar.serve.tensor_client import Spec, TensorAnswer, TensorClient


def ask_tensors(
    client: TensorClient,
    calls: Sequence[Mapping[str, Any]],
    *,
    event_time: datetime | None,
    key: str | None,
    entity: str | None,
    table_version: str | None,
) -> list[TensorAnswer]:
    """One call for each of `calls`, whose texts are read as JSON where the tensor is none of text."""
    headers = {
        **({"Instar-Event-Time": event_time.isoformat()} if event_time is not None else {}),
        **({"Instar-Key": key} if key is not None else {}),
    }
    parameters = {
        name: text for name, text in (("entity", entity), ("table_version", table_version)) if text is not None
    }
    return [
        client.infer(
            {name: _value(name, value, client.inputs.get(name)) for name, value in call.items()}, headers, parameters
        )
        for call in calls
    ]


def document(answer: TensorAnswer) -> dict[str, Any]:
    """An answer as JSON values."""
    return {
        "prediction": f"{answer.call}/0" if answer.call else None,
        "status": answer.status,
        "version": answer.version,
        "outputs": answer.outputs,
        "error": answer.error,
    }


def line(answer: TensorAnswer) -> str:
    """An answer in a line."""
    if answer.status != 200:
        return f"{answer.status}  {answer.error}"
    outputs = "  ".join(f"{name} {json.dumps(value)}" for name, value in answer.outputs.items())
    return f"{answer.call}/0  version {answer.version}  {outputs}"


def _value(name: str, value: Any, spec: Spec | None) -> Any:
    if not isinstance(value, str):
        return value
    if spec is not None and spec.datatype == "BYTES" and not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise BadInput(
            "its value is no JSON", subject=f"tensor {name}", found=value[:60], asked="as in x=[[1.5, 2]]"
        ) from None
