"""Rows by column name in JSON, for people: one object a row.

{"records": [{"distance": 1400.0, "carrier": "UA"}]}       # or the list, or one object, alone
"""

from __future__ import annotations

from typing import Any

import msgspec

from instar.core.errors import MalformedRequest
from instar.serve.protocol import replies, v2_json, wire
from instar.serve.protocol.forms import rows
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import Signature
from instar.serve.protocol.v2_json import Request

_any = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read(ask: wire.Ask, signature: Signature) -> Request:
    """A request of rows.

    Raises:
        RequestError: It is not JSON, has no rows, or a row is not of the signature's inputs; with the JSON path.
    """
    body = v2_json.decoded(_any, ask.body)
    request_id = parameters = None
    if type(body) is dict and "records" in body:
        request_id, parameters = body.get("id"), body.get("parameters")
        if request_id is not None and type(request_id) is not str:
            raise MalformedRequest("the id is not a text", subject="$.id", found=v2_json.short(request_id))
        if parameters is not None and type(parameters) is not dict:
            raise MalformedRequest("the parameters are not an object", subject="$.parameters")
        found, path = body["records"], "$.records"
        others = body.keys() - {"records", "id", "parameters"}
        if others:
            raise MalformedRequest(
                "there is no such member", subject=f"$.{min(others)[:80]}", asked="records, id, parameters"
            )
    else:
        found, path = (body, "$") if type(body) is list else ([body], "$")
    if type(found) is not list or not found:
        raise MalformedRequest("there are no rows", subject=path, asked='{"records": [{"NAME": VALUE, ...}, ...]}')
    return Request(rows.from_records(found, signature, path), request_id, parameters)


def where(ask: wire.Ask, name: str, row: int | None) -> str:
    """Where a caller finds a value."""
    named = ask.body.lstrip()[:1] == b"{" and b'"records"' in ask.body[:65536]
    path = "$.records" if named else "$"
    if row is None:
        return f"{path}[*].{name}"
    return f"{path}[{row}].{name}" if named or ask.body.lstrip()[:1] == b"[" else f"$.{name}"


def write(answer: Answer) -> Written:
    """The answer: a row for each row, by output name."""
    body: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if answer.asked.request_id is not None:
        body["id"] = answer.asked.request_id
    body["parameters"] = answer.parameters
    body["records"] = by_row(answer)
    return _encoder.encode(body), wire.RECORDS, 0


def by_row(answer: Answer) -> list[dict[str, Any]]:
    """Outputs of each row; of a model that does not go by rows, one row with all of it."""
    outputs = [(output.name, nested(output)) for output in answer.outputs(False)]
    counts = {len(values) if type(values) is list else -1 for _, values in outputs}
    if len(counts) != 1 or -1 in counts:
        return [dict(outputs)]
    return [{name: values[at] for name, values in outputs} for at in range(counts.pop())]


def nested(output: replies.Output) -> Any:
    """Values of an output, nested as its shape says."""
    values: Any = replies.plain(output)
    if not output.shape:
        return values[0]
    for length in reversed(output.shape[1:]):
        values = [values[at : at + length] for at in range(0, len(values), length)] if length else []
    return values
