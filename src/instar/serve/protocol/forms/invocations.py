"""What MLflow's scoring server takes and gives, so that its callers need not change: `POST /invocations`.

One of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, as MLflow documents them; the answer is
`{"predictions": ...}`: rows by output name, the values of a single tensor, or several tensors by name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core.errors import MalformedRequest
from instar.serve.protocol import replies, v2_json, wire
from instar.serve.protocol.forms import records, rows
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import Signature
from instar.serve.protocol.v2_json import Request, Tensor

MLFLOW_VERSION = "3.17.2"  # of which callers are told that this is its protocol

KINDS = ("dataframe_split", "dataframe_records", "instances", "inputs")

_any = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read(ask: wire.Ask, signature: Signature) -> Request:
    """A request as MLflow's clients send it.

    Raises:
        RequestError: It is not JSON, not one of the four kinds, or does not fit the signature; with the JSON path.
    """
    body = v2_json.decoded(_any, ask.body)
    given = [kind for kind in KINDS if type(body) is dict and kind in body]
    if len(given) != 1:
        raise MalformedRequest(
            "the body names no input" if not given else "the body names several inputs", subject="$",
            found=", ".join(given) or None, asked=f"one of {', '.join(KINDS)}",
        )  # fmt: skip
    others = body.keys() - {given[0], "params"}
    if others:
        raise MalformedRequest("there is no such member", subject=f"$.{min(others)[:80]}", asked=f"{given[0]}, params")
    if body.get("params"):
        raise MalformedRequest("the model takes no params", subject="$.params", found=v2_json.short(body["params"]))
    kind, value, path = given[0], body[given[0]], f"$.{given[0]}"
    if kind == "dataframe_split":
        return Request(_split(value, signature))
    if kind == "inputs" and type(value) is dict:
        return Request(rows.from_columns(value, signature, path))
    if type(value) is not list or not value:
        raise MalformedRequest("there are no rows", subject=path, found=v2_json.short(value))
    if kind == "dataframe_records" or type(value[0]) is dict:
        return Request(rows.from_records(value, signature, path))
    return Request(rows.from_matrix(value, signature, path))


def where(ask: wire.Ask, name: str, row: int | None) -> str:
    """Where a caller finds a value."""
    kind = next((kind for kind in KINDS if b'"%b"' % kind.encode() in ask.body), "inputs")
    if kind == "dataframe_split":
        return f"$.{kind}.data[{'*' if row is None else row}] ({name})"
    return f"$.{kind}[{'*' if row is None else row}].{name}"


def write(answer: Answer) -> Written:
    """The answer."""
    outputs = answer.outputs(False)
    predictions: Any
    if {output.name for output in outputs} <= {"score", "decision"}:
        predictions = records.by_row(answer)
    elif len(outputs) == 1:
        predictions = records.nested(outputs[0])
    else:
        predictions = {output.name: records.nested(output) for output in outputs}
    return _encoder.encode({"predictions": predictions}), wire.INVOCATIONS, 0


def refusal(problem: Exception) -> bytes:
    """The body of a refusal, with the words that MLflow's clients look for, too."""
    code = "BAD_REQUEST" if replies.status_of(problem) < 500 else "INTERNAL_ERROR"
    facts = msgspec.json.decode(replies.encode_error(problem))
    return _encoder.encode({**facts, "error_code": code, "message": str(problem)})


def _split(value: Any, signature: Signature) -> list[Tensor]:
    path = "$.dataframe_split"
    if type(value) is not dict or type(value.get("data")) is not list or not value["data"]:
        raise MalformedRequest("there are no rows", subject=path, asked='{"columns": [...], "data": [[...], ...]}')
    columns, data = value.get("columns"), value["data"]
    if columns is None:
        return rows.from_matrix(data, signature, f"{path}.data")
    if type(columns) is not list or len(set(map(str, columns))) != len(columns):
        raise MalformedRequest("the columns are not a list of different names", subject=f"{path}.columns")
    for at, row in enumerate(data):
        if type(row) is not list or len(row) != len(columns):
            raise MalformedRequest(
                "a row has another number of values than there are columns", subject=f"{path}.data[{at}]",
                found=len(row) if type(row) is list else v2_json.short(row), asked=len(columns),
            )  # fmt: skip
    specs = rows.inputs_of(signature)
    if signature.tensors and len(specs) == 1 and not set(map(str, columns)) & specs.keys():
        return rows.from_matrix(data, signature, f"{path}.data")  # columns that a matrix was once made of
    named = {str(name): [row[at] for row in data] for at, name in enumerate(columns)}
    return rows.from_columns(named, signature, path)
