"""`MLmodel`: what the folder of a logged model says of the model in it, read when the folder becomes a bundle or is loaded.

The file is YAML, written by MLflow or by any client of its protocol: flavours by name, each with what its loader needs, and
the signature as JSON. It comes from outside: it is read without building objects, and bounded.

    described = read(text)
    described.flavors["sklearn"]["pickled_model"]      # -> "model.pkl"
    described.inputs                                   # -> (Column("a", "FP64"), …)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instar.core.errors import BadInput
from instar.train.bundle import Column, Tensor, Tensors

FILE = "MLmodel"
LARGEST_BYTES = 4 * 1024 * 1024
WIDEST = 2000  # columns of a matrix that become inputs

# MLflow's types of columns and of tensors, and the protocol's.
COLUMN_TYPES = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
}  # fmt: skip
TENSOR_TYPES = {
    "bool": "BOOL", "int8": "INT32", "int16": "INT32", "int32": "INT32", "uint8": "INT32", "uint16": "INT32",
    "int64": "INT64", "uint32": "INT64", "float16": "FP32", "float32": "FP32", "float64": "FP64", "object": "BYTES",
    "str": "BYTES",
}  # fmt: skip
# Those of a tensor model, which keeps its types.
EXACT_TYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "object": "BYTES", "str": "BYTES",
}  # fmt: skip
ONLY_INPUT, ONLY_OUTPUT = "input", "output"  # names of the one that the signature does not name


@dataclass(frozen=True)
class Described:
    """What an `MLmodel` says.

    Attributes:
        flavors: Settings by flavour's name.
        inputs: Columns that a call brings; None when the signature has none that a call could bring, and `why` says so.
        matrix: The inputs are the columns of one matrix.
        tensors: The inputs are tensors of another form; then there are no columns.
        outputs: What its `predict` answers; empty when nothing is said.
        python: Version of the interpreter that wrote it.
        run: Id of the run that logged it, if any.
        mlflow_version: Version of MLflow that wrote it.
    """

    flavors: Mapping[str, Mapping[str, Any]]
    inputs: tuple[Column, ...] | None
    matrix: bool
    outputs: tuple[Column, ...]
    why: str = ""
    python: str = ""
    run: str = ""
    mlflow_version: str = ""
    tensors: Tensors | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pyfunc(self) -> Mapping[str, Any]:
        """Settings of the flavour that every client can load; empty without it."""
        return self.flavors.get("python_function", {})


def read(text: bytes, subject: str = "logged model") -> Described:
    """What an `MLmodel` says.

    Raises:
        BadInput: It is no such file.
    """
    facts = _yaml(text, subject)
    flavors = facts.get("flavors")
    if not isinstance(flavors, dict) or not all(isinstance(one, dict) for one in flavors.values()):
        raise BadInput("its MLmodel names no flavours", subject=subject, asked="a mapping of names to settings")
    signature = facts.get("signature")
    tensors = _tensors(signature, subject)
    inputs, matrix, why = ((), False, "") if tensors is not None else _inputs(signature, subject)
    python = flavors.get("python_function", {}).get("python_version")
    return Described(
        flavors={str(name): settings for name, settings in flavors.items()},
        inputs=inputs,
        matrix=matrix,
        outputs=_outputs(signature, subject),
        why=why,
        python=str(python or ""),
        run=str(facts.get("run_id") or ""),
        mlflow_version=str(facts.get("mlflow_version") or ""),
        tensors=tensors,
        more=facts,
    )


def _yaml(text: bytes, subject: str) -> dict[str, Any]:
    import yaml

    if len(text) > LARGEST_BYTES:
        raise BadInput(
            "its MLmodel is too large", subject=subject, found=len(text), asked=f"{LARGEST_BYTES} bytes or fewer"
        )
    try:
        # An alias may stand for a tree of aliases: ten lines of YAML can mean a thousand million values.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise BadInput("its MLmodel has YAML aliases", subject=subject, asked="plain values")
        facts = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"its MLmodel cannot be read: {first}", subject=subject) from None
    if not isinstance(facts, dict):
        raise BadInput("its MLmodel is no mapping", subject=subject, found=type(facts).__name__)
    return facts


def _inputs(signature: Any, subject: str) -> tuple[tuple[Column, ...] | None, bool, str]:
    """The columns that a call brings, whether they are those of one matrix, and why there are none."""
    specs = _specs(signature, "inputs", subject)
    if not specs:
        return None, False, "it has no signature; log it with `signature` or an `input_example`"
    if any(one.get("type") == "tensor" for one in specs):
        return _matrix(specs)
    columns = []
    for at, one in enumerate(specs):
        name, kind = str(one.get("name") or f"x{at}"), one.get("type")
        if kind not in COLUMN_TYPES:
            return None, False, f"input {name} has type {kind}, which no call can bring"
        columns.append(Column(name, COLUMN_TYPES[kind], nullable=not one.get("required", True)))
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        return None, False, "two inputs have the same name"
    matrix = all(not one.get("name") for one in specs)
    return tuple(columns), matrix, ""


def _tensors(signature: Any, subject: str) -> Tensors | None:
    """Tensors of a signature whose inputs are more than one matrix of rows and fixed columns."""
    specs = _specs(signature, "inputs", subject)
    if not specs or not all(one.get("type") == "tensor" for one in specs) or not _matrix(specs)[2]:
        return None
    inputs = _named(specs, ONLY_INPUT)
    outputs = _named([one for one in _specs(signature, "outputs", subject) if one.get("type") == "tensor"], ONLY_OUTPUT)
    if inputs is None:
        return None
    rows = bool(outputs) and all(one.shape[:1] == (-1,) for one in (*inputs, *(outputs or ())))
    return Tensors(inputs, outputs or (), rows)


def _named(specs: list[dict[str, Any]], alone: str) -> tuple[Tensor, ...] | None:
    """Tensors by name; None where one has a type or a shape that the protocol has not, or no name beside others."""
    found: dict[str, Tensor] = {}
    for one in specs:
        spec = one.get("tensor-spec") or {}
        shape, kind = spec.get("shape"), EXACT_TYPES.get(str(spec.get("dtype")))
        name = str(one.get("name") or (alone if len(specs) == 1 else ""))
        if kind is None or not name or name in found or not isinstance(shape, list):
            return None
        if not all(type(length) is int and length >= -1 for length in shape):
            return None
        found[name] = Tensor(name, kind, tuple(shape))
    return tuple(found.values())


def _matrix(specs: list[dict[str, Any]]) -> tuple[tuple[Column, ...] | None, bool, str]:
    spec: dict[str, Any] = specs[0].get("tensor-spec") or {}
    shape, kind = spec.get("shape"), str(spec.get("dtype"))
    flat = isinstance(shape, list) and len(shape) == 2 and shape[0] == -1 and isinstance(shape[1], int)
    if len(specs) != 1 or not isinstance(shape, list) or not flat or not 1 <= shape[1] <= WIDEST:
        return (
            None,
            False,
            f"its inputs are tensors of shape {shape}; a call brings one matrix of rows and fixed columns",
        )
    if TENSOR_TYPES.get(kind, "BYTES") == "BYTES":
        return None, False, f"its input is a matrix of {kind}, which no call can bring"
    return tuple(Column(f"x{at}", TENSOR_TYPES[kind]) for at in range(shape[1])), True, ""


def _outputs(signature: Any, subject: str) -> tuple[Column, ...]:
    columns = []
    for at, one in enumerate(_specs(signature, "outputs", subject)):
        spec = one.get("tensor-spec") or {}
        kind = TENSOR_TYPES.get(str(spec.get("dtype"))) if spec else COLUMN_TYPES.get(str(one.get("type")))
        columns.append(Column(str(one.get("name") or f"y{at}"), kind or "BYTES"))
    return tuple(columns)


def _specs(signature: Any, side: str, subject: str) -> list[dict[str, Any]]:
    text = signature.get(side) if isinstance(signature, dict) else None
    if not text:
        return []
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadInput(f"the {side} of its signature cannot be read", subject=subject, found=str(text)[:100])
    return found
