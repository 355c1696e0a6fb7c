"""What only MLflow can load, served: models of PyTorch and of their users' own code, through the python_function flavour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature

from tests.clients.test_models import QUICK, data
from tests.journeys.driving import Server, instar, looked_at, wait_for

OWN_CODE = """
import mlflow
from mlflow.pyfunc import PythonModel


class Minutes(PythonModel):
    def load_context(self, context):
        with open(context.artifacts["factors"]) as file:
            self.factor = float(file.read())

    def predict(self, context, model_input, params=None):
        return model_input["distance"] * self.factor + model_input["hour"]


mlflow.models.set_model(Minutes())
"""


@pytest.fixture
def client(tracking: str, request: pytest.FixtureRequest) -> MlflowClient:
    mlflow.set_experiment(request.node.name)
    return MlflowClient()


def answer_of(folder: Path, server: Server, name: str, **row: object) -> Any:
    """What an endpoint answers once a person approved and promoted the version."""
    instar(folder, "approve", f"{name}@1", "--note", "looked at it")
    instar(folder, "promote", f"{name}@1")
    wait_for(lambda: httpx2.get(f"{server.url}/v2/models/{name}/ready", timeout=60).status_code == 200)
    asked = [f"{key}={value}" for key, value in row.items()]
    (answer,) = json.loads(instar(folder, "predict", name, *asked, "--json").stdout)
    return answer


@pytest.mark.parametrize("form", ["columns", "matrix"])
def test_a_model_of_pytorch(client: MlflowClient, folder: Path, server: Server, form: str) -> None:
    import torch

    rows = data()[0].astype(np.float32)
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    said = model(torch.tensor(rows.to_numpy())).detach().numpy()
    given = rows if form == "columns" else rows.to_numpy()
    with mlflow.start_run() as run:
        mlflow.pytorch.log_model(
            model, name="net", registered_model_name=f"net-{form}", serialization_format="pickle",
            signature=infer_signature(given, said), input_example=given[:2], **QUICK,
        )  # fmt: skip
    distance, hour = rows.iloc[5]
    row = {"distance": distance, "hour": hour} if form == "columns" else {"x0": distance, "x1": hour}
    answer = answer_of(folder, server, f"net-{form}", **row)
    assert answer["score"] == pytest.approx(float(said[5, 0]), rel=1e-5)
    assert answer["decision"] is None
    assert run.info.run_id in looked_at(folder, "trace", answer["prediction"])


def test_a_model_of_its_users_own_code(client: MlflowClient, folder: Path, server: Server, tmp_path: Path) -> None:
    code, factors = tmp_path / "minutes.py", tmp_path / "factors.txt"
    code.write_text(OWN_CODE)
    factors.write_text("0.25")
    rows = data()[0]
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="own", python_model=str(code), artifacts={"factors": str(factors)}, registered_model_name="own-code",
            signature=infer_signature(rows, rows.distance), input_example=rows.head(2), **QUICK,
        )  # fmt: skip
    answer = answer_of(folder, server, "own-code", distance=400.0, hour=3)
    assert answer["score"] == pytest.approx(103.0)


def test_a_class_of_its_users_own_module(
    client: MlflowClient, folder: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_minutes.py"
    module.write_text(OWN_CODE.replace("mlflow.models.set_model(Minutes())", ""))
    (tmp_path / "factors.txt").write_text("0.5")
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_minutes  # type: ignore[import-not-found]

    rows = data()[0]
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="own", python_model=own_minutes.Minutes(), artifacts={"factors": str(tmp_path / "factors.txt")},
            code_paths=[str(module)], registered_model_name="own-class",
            signature=infer_signature(rows, rows.distance), input_example=rows.head(2), **QUICK,
        )  # fmt: skip
    answer = answer_of(folder, server, "own-class", distance=400.0, hour=3)
    assert answer["score"] == pytest.approx(203.0)
