"""Fitted models as the folder that MLflow's clients write and load: an `MLmodel`, the model, and what must be installed."""

from __future__ import annotations

import json
import pickle
import platform
import uuid
from collections.abc import Sequence
from typing import Any

from instar.core.errors import BadInput
from instar.interfaces.sdk import graphs
from instar.interfaces.sdk.graphs import Kept

PICKLE, PROTOCOL = "model.pkl", 4  # read by every Python from 3.8 on
# Packages whose estimators are loaded by the flavour of scikit-learn, by their module's first name.
PACKAGES = {"sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm"}


def new_id() -> str:
    """An id for a logged model, in the form that MLflow's clients know."""
    return f"m-{uuid.uuid4().hex}"


def checked_name(name: str) -> str:
    """The name of a logged model.

    Raises:
        BadInput: MLflow's clients could not name it.
    """
    if not name.strip() or len(name) > 500 or set(name) & set("/:.%\"'\0"):
        raise BadInput("that cannot be the name of a model", found=repr(name[:60]), asked="no / : . % \" or '")
    return name


def folder_of(model: Any, sample: Any, *, run: str) -> dict[str, bytes]:
    """The files of a model's folder, by path.

    Args:
        sample: Rows as the model is asked; None where nothing is known of them.

    Raises:
        BadInput: It is no model that can be kept so.
    """
    import yaml

    if graphs.is_module(model):
        kept = graphs.of_module(model, sample)
    elif graphs.is_graph(model):
        kept = graphs.of_graph(model, sample)
    else:
        kept = _estimator(model)
    requirements = _requirements(kept.packages)
    facts: dict[str, Any] = {"flavors": kept.flavors, "run_id": run}
    facts["flavors"]["python_function"] |= {
        "python_version": platform.python_version(),
        "env": {"virtualenv": "requirements.txt"},
    }
    if sample is not None:
        facts["signature"] = {"inputs": json.dumps(_inputs(sample)), "outputs": None, "params": None}
    return {
        "MLmodel": yaml.safe_dump(facts, sort_keys=True, allow_unicode=True).encode(),
        **kept.files,
        "requirements.txt": "".join(f"{line}\n" for line in requirements).encode(),
    }


def _estimator(model: Any) -> Kept:
    package = type(model).__module__.split(".")[0]
    if package not in PACKAGES or not hasattr(model, "predict"):
        raise BadInput(
            "that model cannot be kept by itself", found=f"{type(model).__module__}.{type(model).__qualname__}",
            asked="an estimator of scikit-learn, XGBoost or LightGBM, a module of PyTorch, or an ONNX model",
            next_step="Log it with MLflow's client, which knows its library, or return it from a step of the pipeline.",
        )  # fmt: skip
    try:
        pickled = pickle.dumps(model, protocol=PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise BadInput("the model cannot be pickled", found=str(error)[:200]) from error
    flavors: dict[str, dict[str, Any]] = {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": PICKLE, "predict_fn": "predict"},
        "sklearn": {
            "pickled_model": PICKLE,
            "serialization_format": "pickle",
            "sklearn_version": graphs.version("scikit-learn"),
            "code": None,
        },
    }
    return Kept(flavors, {PICKLE: pickled}, ("scikit-learn", PACKAGES[package], "numpy", "pandas"))


def _requirements(packages: Sequence[str]) -> list[str]:
    found = {name: graphs.version(name) for name in packages}
    return [f"{name}=={number}" for name, number in found.items() if number]


def _inputs(sample: Any) -> list[dict[str, Any]]:
    """The columns of some rows, or their matrix, as MLflow's signatures have them."""
    if hasattr(sample, "dtype") and hasattr(sample, "shape"):
        shape, kind = [int(size) for size in sample.shape], str(sample.dtype).removeprefix("torch.")
        if len(shape) < 2:
            raise BadInput("that is no sample of rows", found=f"shape {tuple(shape)}", asked="(rows, columns)")
        return [{"type": "tensor", "tensor-spec": {"dtype": kind, "shape": [-1, *shape[1:]]}}]
    import polars as pl

    from instar.train import mlmodel_writing
    from instar.train.signature import normalise, signature

    if not hasattr(sample, "columns"):
        raise BadInput("that is no sample of rows", found=type(sample).__name__, asked="a frame or a matrix")
    frame = sample if isinstance(sample, pl.DataFrame) else pl.from_pandas(sample.rename(columns=str))
    return [mlmodel_writing.spec(column) for column in signature(normalise(frame))]
