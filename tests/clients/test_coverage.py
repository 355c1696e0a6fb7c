"""Every address that MLflow's own server answers is answered here, or refused with a reason, and every field is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import httpx2
import msgspec
import pytest

from instar.interfaces.mlflow import routes
from tests.journeys.driving import Server

# Fields of the messages of operations that are answered here, which are neither read nor sent.
LEFT_OUT = {
    "deployment_job_id": "deployment jobs belong to a service in a cloud",
    "deployment_job_state": "deployment jobs belong to a service in a cloud",
    "effective_trace_archival_retention": "traces are not kept",
    "Metric.run_id": "a metric that is logged belongs to the run of its batch",
    "Metric.model_id": "MLflow's own server leaves it out of what a run logged, too",
    "Metric.dataset_name": "MLflow's own server leaves it out of what a run logged, too",
    "Metric.dataset_digest": "MLflow's own server leaves it out of what a run logged, too",
    "ModelVersion.model_params": "MLflow's own server leaves it out; the logged model has them",
    "ModelVersion.model_metrics": "MLflow's own server leaves it out; the logged model has them",
    "LoggedModelInfo.creator_id": "MLflow's own server leaves it out; the tag mlflow.user has the name",
    "ListArtifacts.Response.next_page_token": "a listing of files is whole",
    "ListLoggedModelArtifacts.Response.next_page_token": "a listing of files is whole",
}


@pytest.mark.timeout(120)
def test_no_address_of_mlflow_is_forgotten(server: Server) -> None:
    from mlflow.server import handlers  # warns of its own libraries when it is imported

    forgotten = []
    with httpx2.Client(base_url=server.url) as client:
        for path, _, methods in handlers.get_endpoints():
            if "2.0mlflow" in path:  # a slip of MLflow's own: the address with its slash is listed, too
                continue
            for method in methods:
                body = {} if method == "GET" else {"json": {}}
                reply = client.request(method, re.sub(r"<[^>]+>", "x", path), **body)
                wordless = reply.status_code != 200 and '"error_code"' not in reply.text
                if reply.status_code == 500 or wordless or "no such address" in reply.text:
                    forgotten.append((method, path, reply.status_code, reply.text[:100]))
    assert forgotten == []


def test_no_field_of_mlflow_is_forgotten() -> None:
    """What a client may send is read, and what it may look for is sent, field by field; paths carry the rest."""
    forgotten = {name for name in _differences() if name not in LEFT_OUT and name.rsplit(".", 1)[1] not in LEFT_OUT}
    assert forgotten == set()


def _differences() -> Iterator[str]:
    from mlflow.protos import databricks_pb2, mlflow_artifacts_pb2, model_registry_pb2, service_pb2, webhooks_pb2

    operations = {(one.method, _plain(f"{one.root}/{one.path}")): one for one in routes.all_operations()}
    compared = 0
    for module in (service_pb2, model_registry_pb2, mlflow_artifacts_pb2, webhooks_pb2):
        methods = [method for service in module.DESCRIPTOR.services_by_name.values() for method in service.methods]
        for method in methods:
            for end in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
                operation = operations.get((end.method, _plain(end.path.lstrip("/"))))
                if operation is None:
                    continue
                compared += 1
                message = method.input_type
                in_path = set(re.findall(r"[<{](\w+)", end.path))
                yield from _missing(operation.message, message, in_path)
                answer = get_type_hints(operation.handler).get("return")
                if isinstance(answer, type) and issubclass(answer, msgspec.Struct):
                    yield from _missing(answer, message.nested_types_by_name["Response"], set())
    assert compared > 70


def _missing(struct: type[msgspec.Struct], message: Any, elsewhere: set[str]) -> Iterator[str]:
    """Fields of a message that the struct for it has not, and those of the messages within it."""
    hints = get_type_hints(struct)
    for field in message.fields:
        if field.name not in hints:
            if field.name not in elsewhere:
                yield f"{message.full_name.removeprefix('mlflow.')}.{field.name}"
        elif field.message_type is not None:
            inner = _struct(hints[field.name])
            if inner is not None and (inner, field.message_type.name) != (struct, message.name):
                yield from _missing(inner, field.message_type, set())


def _struct(hint: Any) -> type[msgspec.Struct] | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next((found for one in get_args(hint) if (found := _struct(one)) is not None), None)


def _plain(path: str) -> str:
    return re.sub(r"[<{][^>}]*[>}]", "{}", path)
