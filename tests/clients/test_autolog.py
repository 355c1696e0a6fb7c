"""Autologging of the libraries that people train with, by the unmodified client, without a complaint of the client's."""

from __future__ import annotations

import logging
from pathlib import Path

import lightgbm
import lightning
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
from mlflow import MlflowClient
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier


@pytest.fixture
def client(tracking: str, request: pytest.FixtureRequest) -> MlflowClient:
    mlflow.set_experiment(request.node.name)
    return MlflowClient()


@pytest.fixture
def data() -> tuple[pd.DataFrame, np.ndarray]:
    x, y = make_classification(200, 6, random_state=0)
    return pd.DataFrame(x, columns=[f"f{n}" for n in range(6)]), y


def complaints(records: list[logging.LogRecord]) -> list[str]:
    """What the client said that its user would take for a failure."""
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING and "mlflow" in record.name]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    logging.getLogger("mlflow").propagate = True
    caplog.set_level(logging.WARNING, "mlflow")
    return caplog


def test_scikit_learn(
    client: MlflowClient, data: tuple[pd.DataFrame, np.ndarray], said: pytest.LogCaptureFixture
) -> None:
    mlflow.sklearn.autolog(log_models=False)
    with mlflow.start_run() as run:
        forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(*data)
        forest.score(*data)
    found = client.get_run(run.info.run_id)
    assert found.data.params["n_estimators"] == "5"
    assert found.data.metrics["training_accuracy_score"] > 0.9
    assert any(name.startswith("RandomForestClassifier_score") for name in found.data.metrics)
    assert found.data.tags["estimator_name"] == "RandomForestClassifier"
    (used,) = found.inputs.dataset_inputs
    assert used.dataset.name == "dataset"
    assert not [words for words in complaints(said.records) if "trace" in words.lower()]


def test_a_search_over_parameters_makes_a_run_for_each_try(
    client: MlflowClient, data: tuple[pd.DataFrame, np.ndarray]
) -> None:
    mlflow.sklearn.autolog(log_models=False)
    with mlflow.start_run() as run:
        GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 3]}, cv=2).fit(*data)
    tries = client.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'", order_by=["params.max_depth ASC"]
    )
    assert [one.data.params["max_depth"] for one in tries] == ["1", "2", "3"]
    assert all("mean_test_score" in one.data.metrics for one in tries)
    assert client.get_run(run.info.run_id).data.params["best_max_depth"] in ("1", "2", "3")


def test_xgboost(client: MlflowClient, data: tuple[pd.DataFrame, np.ndarray]) -> None:
    mlflow.xgboost.autolog(log_models=False)
    with mlflow.start_run() as run:
        table = xgboost.DMatrix(data[0], label=data[1])
        xgboost.train(
            {"max_depth": 2, "objective": "binary:logistic"}, table, 12, evals=[(table, "train")], verbose_eval=False
        )
    found = client.get_run(run.info.run_id)
    assert found.data.params["max_depth"] == "2"
    history = client.get_metric_history(run.info.run_id, "train-logloss")
    assert [point.step for point in history] == list(range(12))
    assert history[-1].value < history[0].value


def test_lightgbm(client: MlflowClient, data: tuple[pd.DataFrame, np.ndarray]) -> None:
    mlflow.lightgbm.autolog(log_models=False)
    with mlflow.start_run() as run:
        table = lightgbm.Dataset(data[0], label=data[1])
        lightgbm.train(
            {"objective": "binary", "num_leaves": 4, "verbosity": -1, "metric": "binary_logloss"}, table, 9,
            valid_sets=[table], valid_names=["train"],
        )  # fmt: skip
    found = client.get_run(run.info.run_id)
    assert found.data.params["num_leaves"] == "4"
    assert len(client.get_metric_history(run.info.run_id, "train-binary_logloss")) == 9


def test_pytorch_logged_by_hand_and_by_its_summary_writer(client: MlflowClient) -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(64, 3), torch.randn(64, 1)
    with mlflow.start_run() as run:
        mlflow.log_params({"rate": 0.1, "layers": str(net)})
        for step in range(20):
            loss = torch.nn.functional.mse_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mlflow.log_metric("loss", loss, step=step)  # a tensor of one number
        mlflow.log_metric("norm", np.float32(0.5))
    history = [point.value for point in client.get_metric_history(run.info.run_id, "loss")]
    assert len(history) == 20
    assert history[-1] < history[0]
    assert client.get_run(run.info.run_id).data.params["rate"] == "0.1"


def test_everything_at_once_says_nothing_about_traces(
    client: MlflowClient, data: tuple[pd.DataFrame, np.ndarray], said: pytest.LogCaptureFixture
) -> None:
    mlflow.autolog(log_models=False, silent=False)
    with mlflow.start_run() as run:
        DecisionTreeClassifier(max_depth=2).fit(*data)
    assert client.get_run(run.info.run_id).data.params["max_depth"] == "2"
    assert not [words for words in complaints(said.records) if "trace" in words.lower() or "ENDPOINT" in words]


def test_pytorch_lightning(client: MlflowClient, said: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    torch.manual_seed(0)
    rows = torch.randn(32, 3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows, rows.sum(1, keepdim=True)), batch_size=8)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    try:
        with mlflow.start_run() as run:
            lightning.Trainer(
                max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, default_root_dir=tmp_path,
            ).fit(Line(), loader)  # fmt: skip
    finally:
        mlflow.pytorch.autolog(disable=True)
    found = client.get_run(run.info.run_id)
    assert found.data.params["epochs"] == "3"
    losses = [point.value for point in client.get_metric_history(run.info.run_id, "train_loss_epoch")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert complaints(said.records) == []
