"""Models of libraries that Instar does without, in a shim of an environment that has them: they answer as their library does."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature

from instar.core.store import Store
from instar.serve.traffic.routes import bundle_folder
from instar.serve.worker import housed, loading
from instar.train import bundle
from tests.clients.test_models import QUICK, data
from tests.serve import bundles
from tests.train.folders import pack

INPUTS = (bundle.Column("distance", "FP64"), bundle.Column("hour", "INT64"))


@pytest.fixture
def line() -> Iterator[housed.Line]:
    """A shim under the interpreter of these clients, which stands for that of an environment."""
    started = housed.Line(lambda status: None, lambda: sys.executable)
    yield started
    started.close()


def rows() -> tuple[pd.DataFrame, Any, Any]:
    given, late, minutes = data()
    return given[["distance", "hour"]].astype({"hour": "int64"}), late, minutes


def housed_model(store: Store, line: housed.Line, digest: str) -> Any:
    folder = bundle_folder(store.folder, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    bundle.unpack(store.blobs, digest, folder)
    return housed.load(folder, loading.verified, line)


def logged(store: Store, place: Path) -> str:
    files = {file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*") if file.is_file()}
    return pack(store, files)


def columns(given: pd.DataFrame) -> dict[str, Any]:
    return {name: given[name].tolist() for name in given.columns}


@pytest.mark.parametrize(
    "kind", ["xgboost", "xgboost early", "xgboost booster", "lightgbm", "lightgbm booster", "sklearn"]
)
def test_a_logged_model_answers_as_its_library(store: Store, line: housed.Line, tmp_path: Path, kind: str) -> None:
    given, late, _ = rows()
    decides = True
    if kind.startswith("xgboost"):
        import xgboost

        more = {"early_stopping_rounds": 2} if kind.endswith("early") else {}
        classifier = xgboost.XGBClassifier(n_estimators=20, max_depth=3, **more)
        model: Any = classifier.fit(given, late, eval_set=[(given[:50], late[:50])] if more else None, verbose=False)
        said = model.predict_proba(given)[:, 1]
        if kind.endswith("booster"):
            model = model.get_booster()
            said = model.predict(xgboost.DMatrix(given))
        mlflow.xgboost.save_model(model, tmp_path / "model", signature=infer_signature(given, said), **QUICK)
    elif kind.startswith("lightgbm"):
        import lightgbm

        model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(given, late)
        said = model.predict_proba(given)[:, 1]
        if kind.endswith("booster"):
            model = model.booster_
            said = model.predict(given)
        mlflow.lightgbm.save_model(
            model, tmp_path / "model", signature=infer_signature(given, said), **QUICK,
            **({} if kind.endswith("booster") else {"serialization_format": "pickle"}),
        )  # fmt: skip
    else:
        from sklearn.ensemble import RandomForestRegressor

        model, decides = RandomForestRegressor(5).fit(given, late.astype(float)), False
        said = model.predict(given)
        mlflow.sklearn.save_model(
            model,
            tmp_path / "model",
            signature=infer_signature(given, said),
            serialization_format="cloudpickle",
            **QUICK,
        )
    theirs = housed_model(store, line, logged(store, tmp_path / "model"))
    assert theirs.decides is decides
    assert theirs.score(columns(given)) == pytest.approx(said.astype(float), abs=0)


@pytest.mark.parametrize("form", ["columns", "matrix", "tensors"])
def test_a_logged_net_of_pytorch_answers_as_pytorch(store: Store, line: housed.Line, tmp_path: Path, form: str) -> None:
    import torch

    given = rows()[0].astype(np.float32)
    torch.manual_seed(1)
    shaped = torch.nn.Unflatten(1, (1, 1)) if form == "tensors" else torch.nn.Identity()
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1), shaped)
    asked: Any = given.to_numpy()
    if form == "tensors":
        net, asked = torch.nn.Sequential(torch.nn.Flatten(), net), asked.reshape(-1, 2, 1)
    said = net(torch.tensor(asked)).detach().numpy()
    signature = infer_signature(given if form == "columns" else asked, said)
    mlflow.pytorch.save_model(net, tmp_path / "model", signature=signature, serialization_format="pickle", **QUICK)
    theirs = housed_model(store, line, logged(store, tmp_path / "model"))
    if form == "tensors":
        (found,) = theirs.infer({"input": asked}).values()
        assert found.dtype == said.dtype
        assert (found == said).all()
        return
    named = columns(given) if form == "columns" else {"x0": asked[:, 0], "x1": asked[:, 1]}
    assert theirs.score(named) == pytest.approx(said[:, 0].astype(float), abs=0)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_a_pickled_estimator_answers_as_its_library(store: Store, line: housed.Line, library: str) -> None:
    given, late, _ = rows()
    if library == "xgboost":
        from xgboost import XGBClassifier

        model: Any = XGBClassifier(n_estimators=10)
    else:
        from lightgbm import LGBMClassifier

        model = LGBMClassifier(n_estimators=10, verbose=-1)
    model.fit(given, late)
    made = bundles.manifest(store, pickle.dumps(model), code=None, form="pandas", inputs=INPUTS)
    theirs = housed_model(store, line, bundle.pack(store.blobs, made))
    assert theirs.score(columns(given)) == pytest.approx(model.predict_proba(given)[:, 1].astype(float), abs=0)
