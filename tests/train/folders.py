"""Folders of logged models as MLflow writes them, made without it: small files, for tests of what is made of them."""

from __future__ import annotations

import json
import pickle
from importlib import metadata
from typing import Any

import numpy as np
import yaml

from instar.core.store import Store
from instar.release.scan_files import inspect_folder
from instar.train.folder_bundle import pack_folder

COLUMNS = [{"type": "double", "name": "distance", "required": True}, {"type": "long", "name": "hour", "required": True}]
MATRIX = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]


def mlmodel(flavors: dict[str, Any], inputs: Any = COLUMNS, outputs: Any = None, **more: Any) -> bytes:
    """The text of an `MLmodel`."""
    signature = {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs or [{"type": "double"}]), "params": None}
    facts = {
        "flavors": flavors,
        "signature": signature if inputs is not None else None,
        "mlflow_version": "3.17.2",
        **more,
    }
    return yaml.safe_dump(facts).encode()


def pyfunc(loader: str, **more: Any) -> dict[str, Any]:
    """The flavour that every client can load."""
    return {"loader_module": loader, "python_version": "3.11.7", "env": {"conda": "conda.yaml"}, **more}


def sklearn_files(model: Any, inputs: Any = COLUMNS, form: str = "cloudpickle") -> dict[str, bytes]:
    """A folder with an estimator."""
    flavors = {
        "python_function": pyfunc("mlflow.sklearn", model_path="model.pkl", predict_fn="predict"),
        "sklearn": {
            "pickled_model": "model.pkl",
            "serialization_format": form,
            "sklearn_version": "1.7.0",
            "code": None,
        },
    }
    return {
        "MLmodel": mlmodel(flavors, inputs),
        "model.pkl": pickle.dumps(model),
        # As MLflow writes them: versions of what is installed; so it answers from what is installed here.
        "requirements.txt": "".join(
            f"{name}=={metadata.version(name)}\n" for name in ("scikit-learn", "numpy")
        ).encode(),
        "input_example.json": json.dumps({"columns": ["distance", "hour"], "data": [[1400.0, 8]]}).encode(),
    }


def flights(rows: int = 200) -> tuple[Any, Any, Any]:
    """Two columns, two classes, and a number."""
    random = np.random.default_rng(7)
    given = np.column_stack([random.uniform(100, 3000, rows), random.integers(0, 24, rows)])
    number = given[:, 0] / 100 + given[:, 1]
    return given, number > np.median(number), number


def pack(store: Store, files: dict[str, bytes], name: str = "delays", **about: Any) -> str:
    """The bundle of a folder."""
    blobs = {path: store.blobs.put(body) for path, body in files.items()}
    inspect = about.pop("inspect", lambda found, own: inspect_folder(store, found, own))
    return pack_folder(store, blobs, name=name, inspect=inspect, **about)
