"""The OpenAPI 3.1 description of an endpoint, made from its signature whenever somebody asks how to ask it.

Requests and answers of all JSON forms are described as they are held to the signature: tools make clients and tests of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from instar.core.limits import Limits
from instar.serve.gateway.ways import Endpoint
from instar.serve.protocol.signature import BYTES, DYNAMIC, FLOATS, InputColumn, Signature, TensorSpec

_FLOAT_LIMIT = 3.4028234663852886e38  # of FP32; a larger number has no value in it
Json = dict[str, Any]

_REFUSALS = {
    "400": "The request does not fit.",
    "401": "Who calls is not known.",
    "403": "The caller may not.",
    "404": "There is no such endpoint or version.",
    "406": "There is no answer of a kind that the caller accepts.",
    "413": "The body is too large.",
    "415": "Such a body is not read.",
    "429": "The caller or the endpoint has too many calls; see Retry-After.",
    "500": "The model failed on this request.",
    "503": "It cannot be answered now; see Retry-After.",
    "504": "The caller's time was over.",
}
_HEADERS: list[Json] = [
    {"name": "Instar-Key", "in": "header", "description": "Routing key.", "schema": {"type": "string"}},
    {
        "name": "Instar-Timeout",
        "in": "header",
        "description": "How long the caller waits, as in 2s or 250ms.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,1}s$"},
    },
]


def of_endpoint(endpoint: Endpoint) -> Json:
    """The description of one endpoint."""
    return _document(f"Endpoint {endpoint.name}", [endpoint])


def of_server(endpoints: Iterable[Endpoint]) -> Json:
    """The description of all endpoints."""
    document = _document("Endpoints", endpoints)
    document["paths"] |= {
        "/v2": {"get": _get("The server and its endpoints.")},
        "/v2/health/live": {"get": _get("Does the server live?", "503")},
        "/v2/health/ready": {"get": _get("Do all endpoints answer?", "503")},
    }
    return document


def _document(title: str, endpoints: Iterable[Endpoint]) -> Json:
    paths: Json = {}
    for endpoint in endpoints:
        base, signature = f"/v2/models/{endpoint.name}", endpoint.signature
        paths |= {
            base: {"get": _get("Inputs and outputs.", "401", "403")},
            f"{base}/ready": {"get": _get("Does it answer?", "401", "403", "503")},
            f"{base}/infer": {
                "post": _post("Predictions, in the Open Inference Protocol.", _infer(signature), _INFERRED)
            },
            f"{base}/records": {"post": _post("Predictions, row by row.", _records(signature), _RECORDS)},
            f"/endpoints/{endpoint.name}/invocations": {
                "post": _post(
                    "Predictions, as MLflow's scoring server has them.", _invocations(signature), _PREDICTIONS
                )
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "2"},
        "paths": paths,
        "components": {
            "schemas": {"Refusal": _REFUSAL},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_REFUSAL: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "kind": {"type": "string"}, "path": {"type": "string"}},
}
_INFERRED: Json = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "datatype": {"type": "string"},
                    "data": {"type": "array"},
                },
            },
        },
    },
}
_RECORDS: Json = {
    "type": "object",
    "required": ["model_name", "model_version", "records"],
    "properties": {"records": {"type": "array", "items": {"type": "object"}}},
}
_PREDICTIONS: Json = {"type": "object", "required": ["predictions"]}


def _get(summary: str, *refusals: str) -> Json:
    answers: Json = {"200": {"description": "It is so.", "content": {"application/json": {"schema": {}}}}}
    return {"summary": summary, "responses": answers | _refused(refusals)}


def _post(summary: str, body: Json, answer: Json) -> Json:
    call = {"Instar-Call": {"description": "The call's id on the record.", "schema": {"type": "string"}}}
    content: Json = {"application/json": {"schema": answer}, "text/csv": {}, "application/vnd.apache.arrow.stream": {}}
    good = {"description": "The answer.", "headers": call, "content": content}
    return {
        "summary": summary,
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": good, **_refused(_REFUSALS)},
    }


def _refused(statuses: Iterable[str]) -> Json:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}


def _infer(signature: Signature) -> Json:
    """A body of the protocol: a tensor for each input that must be there. Its rows are one here, which JSON Schema can say."""
    tensors = []
    for name, datatype, shape, value, required in _inputs(signature):
        if required:
            lengths = [1 if length == DYNAMIC else length for length in shape]
            count = 1
            for length in lengths:
                count *= length
            tensors.append(
                _object(
                    {
                        "name": {"const": name},
                        "shape": {"const": lengths},
                        "datatype": {"const": datatype},
                        "data": {
                            "type": "array",
                            "items": value,
                            "minItems": count,
                            "maxItems": count,
                        },
                    }
                )
            )
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "prefixItems": tensors, "items": False, "minItems": len(tensors)},
        },
        "additionalProperties": False,
    }


def _records(signature: Signature) -> Json:
    return _object({"records": {"type": "array", "items": _row(signature), "minItems": 1, "maxItems": 100}})


def _invocations(signature: Signature) -> Json:
    return _object({"instances": {"type": "array", "items": _row(signature), "minItems": 1, "maxItems": 100}})


def _row(signature: Signature) -> Json:
    properties: Json = {}
    required = []
    for name, _, shape, value, must in _inputs(signature):
        for length in reversed(shape[1:]):
            size = 1 if length == DYNAMIC else length
            value = {"type": "array", "items": value, "minItems": size, "maxItems": size}
        properties[name] = value
        if must:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _inputs(signature: Signature) -> list[tuple[str, str, tuple[int, ...], Json, bool]]:
    """Name, datatype, shape, schema of a value, required."""
    shapes = {one.name: one.shape for one in signature.tensors}
    named: list[InputColumn | TensorSpec] = [*signature.columns, *signature.tensors]
    return [
        (
            one.name,
            one.datatype,
            shapes.get(one.name, (DYNAMIC,)),
            _value(one.datatype, one.nullable, signature.limits.get(one.name)),
            one.required,
        )
        for one in named
    ]


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _value(datatype: str, nullable: bool, limits: Limits | None) -> Json:
    made: Json
    if datatype == "BOOL":
        made = {"type": "boolean"}
    elif datatype == BYTES:
        made = {"type": "string"}
    elif datatype in FLOATS:
        limit = {"FP16": 65504.0, "FP32": _FLOAT_LIMIT, "FP64": 1e308}[datatype]
        made = {"type": "number", "minimum": -limit, "maximum": limit}
    else:
        bits = int(datatype.lstrip("UINT"))
        low, high = (0, (1 << bits) - 1) if datatype.startswith("U") else (-(1 << bits - 1), (1 << bits - 1) - 1)
        made = {"type": "integer", "minimum": low, "maximum": high}
    if limits is not None:
        if limits.values is not None:
            made["enum"] = [*limits.values, *([None] if nullable else [])]
        if limits.minimum is not None:
            made["minimum"] = max(limits.minimum, made["minimum"])
        if limits.maximum is not None:
            made["maximum"] = min(limits.maximum, made["maximum"])
    return {**made, "type": [made["type"], "null"]} if nullable else made
