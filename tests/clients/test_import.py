"""Stores that MLflow itself wrote, brought in whole: every run with every value of every metric."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import ViewType
from sklearn.linear_model import LogisticRegression

from instar.app import open_source
from instar.core.store import Store
from instar.release import aliases, registry
from instar.release import importing as models
from instar.release.packing import pack_logged
from instar.train import artifacts, datasets, histories, run_search
from instar.train.bundle import load_manifest
from instar.train.importing import FROM, bring_in


def fill(uri: str) -> mlflow.MlflowClient:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("team/churn model")
    made = []
    for number in range(3):
        with mlflow.start_run(run_name=f"r{number}", tags={"who": "ada", "odd/tag": "x"}) as run:
            made.append(run.info.run_id)
            mlflow.log_params({"lr": 0.1 * number, "a/b": "q"})
            for step in range(20):
                mlflow.log_metric("loss", 1 / (step + 1 + number), step=step)
            mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "deep/er/m": -math.inf}, step=3)
            mlflow.log_text("hello", "sub/h.txt")
            rows = mlflow.data.from_pandas(pd.DataFrame({"a": [1, 2]}), name="d", source="s3://x/y")
            mlflow.log_input(rows, context="train", tags={"t": "1"})
            if number == 2:
                with mlflow.start_run(nested=True, run_name="child"):
                    mlflow.log_metric("k", 1)
    mlflow.delete_run(made[1])
    gone = mlflow.create_experiment("gone")
    with mlflow.start_run(experiment_id=gone):
        mlflow.log_param("p", "1")
    mlflow.delete_experiment(gone)
    client = mlflow.MlflowClient()
    with mlflow.start_run(run_name="fit"):
        model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
        mlflow.sklearn.log_model(model, name="model", registered_model_name="clf", input_example=[[0.0]])
    client.set_registered_model_alias("clf", "best", "1")
    client.set_model_version_tag("clf", "1", "k", "v")
    return client


def infinite(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) > 1e308 else value


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_a_store_of_mlflow_comes_over_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = tmp_path / ("m.db" if kind == "database" else "mlruns")
    client = fill(f"sqlite:///{place}" if kind == "database" else place.as_uri())
    bring_in(store, "p", open_source(place))
    here = {run.tags[FROM]: run for run in run_search.search(store, projects=["p"], experiments=None, view="all").items}
    experiments = client.search_experiments(view_type=ViewType.ALL)
    theirs = [
        run
        for one in experiments
        for run in client.search_runs([one.experiment_id], run_view_type=ViewType.ALL)
        if one.lifecycle_stage == "active"
    ]
    assert len(theirs) == 5
    assert len(here) == 6  # and the one of the deleted experiment
    for their in theirs:
        own = here[their.info.run_id]
        assert (own.name, own.state.upper(), own.lifecycle) == (
            their.info.run_name, their.info.status, their.info.lifecycle_stage,
        )  # fmt: skip
        assert own.parameters == their.data.params
        assert their.data.tags.items() <= own.tags.items()
        assert own.metrics.keys() == their.data.metrics.keys()
        for name in own.metrics:
            told = [
                (point.step, point.timestamp, infinite(point.value))  # MLflow's database has the largest number instead
                for point in client.get_metric_history(their.info.run_id, name)
            ]
            kept = [
                (one.step, round(one.at.timestamp() * 1000), one.value)
                for one in histories.metric_history(store, own.id, name)
            ]
            assert sorted(map(repr, kept)) == sorted(map(repr, told))
        if their.info.run_name not in ("child", "fit"):
            assert artifacts.open(store, own.id, "sub/h.txt").read_text() == "hello"
            read: Any = datasets.inputs_of(store, own.id)
            assert [(one.dataset.name, one.tags["t"]) for one in read] == [("d", "1")]
    models.bring_in(store, "p", open_source(place), pack_logged)
    (version,) = registry.versions(store, "p", "clf")
    (fit,) = [run for run in here.values() if run.name == "fit"]
    assert version.run == fit.id
    assert aliases.aliases(store, "p", "clf") == {"best": 1}
    manifest = load_manifest(store.blobs, version.bundle)
    assert manifest.folder is not None
    assert "MLmodel" in manifest.folder.files
