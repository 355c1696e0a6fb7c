"""The messages of the Open Inference Protocol V2 over gRPC, made from the numbers of their fields, without generated code.

    request = message("ModelInferRequest").FromString(data)

The protocol's package is `inference`, its service `GRPCInferenceService`. gRPC's own health check is there, too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

PACKAGE, SERVICE = "inference", "GRPCInferenceService"
HEALTH_PACKAGE, HEALTH_SERVICE = "grpc.health.v1", "Health"

# Fields of each message: number, name, type. `*` stands before the type of a repeated field, `{}` before that of a map's values.
_FIELDS: dict[str, list[tuple[int, str, str]]] = {
    "ServerLiveRequest": [],
    "ServerLiveResponse": [(1, "live", "bool")],
    "ServerReadyRequest": [],
    "ServerReadyResponse": [(1, "ready", "bool")],
    "ModelReadyRequest": [(1, "name", "string"), (2, "version", "string")],
    "ModelReadyResponse": [(1, "ready", "bool")],
    "ServerMetadataRequest": [],
    "ServerMetadataResponse": [(1, "name", "string"), (2, "version", "string"), (3, "extensions", "*string")],
    "ModelMetadataRequest": [(1, "name", "string"), (2, "version", "string")],
    "ModelMetadataResponse": [
        (1, "name", "string"), (2, "versions", "*string"), (3, "platform", "string"),
        (4, "inputs", "*ModelMetadataResponse.TensorMetadata"), (5, "outputs", "*ModelMetadataResponse.TensorMetadata"),
    ],
    "ModelMetadataResponse.TensorMetadata": [(1, "name", "string"), (2, "datatype", "string"), (3, "shape", "*int64")],
    "InferParameter": [
        (1, "bool_param", "bool"), (2, "int64_param", "int64"), (3, "string_param", "string"),
        (4, "double_param", "double"), (5, "uint64_param", "uint64"),
    ],
    "InferTensorContents": [
        (1, "bool_contents", "*bool"), (2, "int_contents", "*int32"), (3, "int64_contents", "*int64"),
        (4, "uint_contents", "*uint32"), (5, "uint64_contents", "*uint64"), (6, "fp32_contents", "*float"),
        (7, "fp64_contents", "*double"), (8, "bytes_contents", "*bytes"),
    ],
    "ModelInferRequest": [
        (1, "model_name", "string"), (2, "model_version", "string"), (3, "id", "string"),
        (4, "parameters", "{}InferParameter"), (5, "inputs", "*ModelInferRequest.InferInputTensor"),
        (6, "outputs", "*ModelInferRequest.InferRequestedOutputTensor"), (7, "raw_input_contents", "*bytes"),
    ],
    "ModelInferRequest.InferInputTensor": [
        (1, "name", "string"), (2, "datatype", "string"), (3, "shape", "*int64"), (4, "parameters", "{}InferParameter"),
        (5, "contents", "InferTensorContents"),
    ],
    "ModelInferRequest.InferRequestedOutputTensor": [(1, "name", "string"), (2, "parameters", "{}InferParameter")],
    "ModelInferResponse": [
        (1, "model_name", "string"), (2, "model_version", "string"), (3, "id", "string"),
        (4, "parameters", "{}InferParameter"), (5, "outputs", "*ModelInferResponse.InferOutputTensor"),
        (6, "raw_output_contents", "*bytes"),
    ],
    "ModelInferResponse.InferOutputTensor": [
        (1, "name", "string"), (2, "datatype", "string"), (3, "shape", "*int64"), (4, "parameters", "{}InferParameter"),
        (5, "contents", "InferTensorContents"),
    ],
    "RepositoryIndexRequest": [(1, "repository_name", "string"), (2, "ready", "bool")],
    "RepositoryIndexResponse": [(1, "models", "*RepositoryIndexResponse.ModelIndex")],
    "RepositoryIndexResponse.ModelIndex": [
        (1, "name", "string"), (2, "version", "string"), (3, "state", "string"), (4, "reason", "string"),
    ],
    "RepositoryModelLoadRequest": [(1, "repository_name", "string"), (2, "model_name", "string")],
    "RepositoryModelLoadResponse": [],
    "RepositoryModelUnloadRequest": [(1, "repository_name", "string"), (2, "model_name", "string")],
    "RepositoryModelUnloadResponse": [],
}  # fmt: skip
_ONE_OF = {"InferParameter": "parameter_choice"}
_HEALTH: dict[str, list[tuple[int, str, str]]] = {
    "HealthCheckRequest": [(1, "service", "string")],
    "HealthCheckResponse": [(1, "status", "int32")],  # an enumeration; on the wire it is such a number
}


def message(name: str) -> Any:
    """The class of a message of the protocol."""
    return _classes()[name]


@cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    found: dict[str, Any] = {}
    pool = descriptor_pool.DescriptorPool()  # our own: a client library in this process may have the same names
    for package, fields in ((PACKAGE, _FIELDS), (HEALTH_PACKAGE, _HEALTH)):
        file = descriptor_pb2.FileDescriptorProto(name=f"instar/{package}.proto", package=package, syntax="proto3")
        made: dict[str, Any] = {}
        for name, members in fields.items():
            outer, _, inner = name.rpartition(".")
            made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
            for member in members:
                _add(made[name], f"{package}.{name}", package, member, _ONE_OF.get(name))
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
        for name in fields:
            found[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return found


def _add(message_type: Any, full: str, package: str, member: tuple[int, str, str], one_of: str | None) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    number, name, kind = member
    field = message_type.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL)
    if one_of is not None:
        if not message_type.oneof_decl:
            message_type.oneof_decl.add(name=one_of)
        field.oneof_index = 0
    if kind.startswith("{}"):  # a map is a repeated message of key and value
        entry = message_type.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
        value = entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL, type=Field.TYPE_MESSAGE)
        value.type_name = f".{package}.{kind[2:]}"
        field.label, field.type, field.type_name = Field.LABEL_REPEATED, Field.TYPE_MESSAGE, f".{full}.{entry.name}"
        return
    if kind.startswith("*"):
        field.label, kind = Field.LABEL_REPEATED, kind[1:]
    scalar = getattr(Field, f"TYPE_{kind.upper()}", None)
    if scalar is not None:
        field.type = scalar
    else:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{package}.{kind}"
