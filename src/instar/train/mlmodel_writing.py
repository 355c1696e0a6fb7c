"""The `MLmodel` of Instar's own bundles, so that MLflow's clients load them, made whenever a client asks for a bundle's files.

A bundle is loaded by the code that loads it in a worker, so its scores are those of the endpoint: the client needs Instar
beside MLflow. It is made from the manifest alone, so bundles that were packed before have one, too.
"""

from __future__ import annotations

import json
from typing import Any

from instar.train.bundle import MANIFEST_FILE, Column, Manifest, Tensor
from instar.train.mlmodel import COLUMN_TYPES, FILE

LOADER = "instar.serve.pyfunc"
REQUIREMENTS = "requirements.txt"
_NAMES = {datatype: name for name, datatype in COLUMN_TYPES.items()}


def texts(manifest: Manifest, digest: str) -> dict[str, bytes]:
    """The files that a bundle's folder has besides its own, by name.

    Args:
        digest: The bundle's.
    """
    return {FILE: mlmodel(manifest, digest), REQUIREMENTS: requirements(manifest)}


def mlmodel(manifest: Manifest, digest: str) -> bytes:
    """The text of `MLmodel`: loaded by Instar, with the signature of the manifest."""
    import yaml

    facts: dict[str, Any] = {
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "data": ".",
                "env": {"virtualenv": REQUIREMENTS},
            },
            "instar": {
                "bundle": digest,
                "manifest": MANIFEST_FILE,
                "step": manifest.step,
                "threshold": manifest.threshold,
            },
        },
        "run_id": manifest.run,
        "signature": _signature(manifest),
    }
    text: str = yaml.safe_dump(facts, sort_keys=True, allow_unicode=True)
    return text.encode()


def requirements(manifest: Manifest) -> bytes:
    """What a client needs installed, as pip reads it."""
    extra = "" if manifest.portable is None and manifest.native is None else "[sklearn]"
    pandas = "pandas\n" if manifest.form == "pandas" and manifest.portable is None else ""
    return f"instar{extra}\n{pandas}".encode()


def _signature(manifest: Manifest) -> dict[str, Any]:
    if manifest.tensors is not None:
        inputs = [tensor_spec(one) for one in manifest.tensors.inputs]
        outputs = [tensor_spec(one) for one in manifest.tensors.outputs]
    else:
        inputs, outputs = [spec(one) for one in manifest.inputs], [spec(one) for one in manifest.outputs]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}


def tensor_spec(tensor: Tensor) -> dict[str, Any]:
    """A tensor as MLflow's signatures have it."""
    kind = {"FP": "float", "UI": "uint", "IN": "int"}.get(tensor.datatype[:2], "")
    named = {"BOOL": "bool", "BYTES": "object"}.get(tensor.datatype) or kind + tensor.datatype.lstrip("FPUINT")
    return {"name": tensor.name, "type": "tensor", "tensor-spec": {"dtype": named, "shape": list(tensor.shape)}}


def spec(column: Column) -> dict[str, Any]:
    """A column as MLflow's signatures have it."""
    kind = _NAMES[column.datatype]
    if column.nullable and column.datatype in ("INT32", "INT64", "BOOL"):
        kind = "double"  # a column of pandas with missing values holds no whole numbers
    return {"type": kind, "name": column.name, "required": not column.nullable}
