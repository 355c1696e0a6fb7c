"""What `instar.run` records is what MLflow's own client finds: runs within runs, metrics, files, and models to load."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LogisticRegression

import instar

ROWS = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0], [4.0, 1.0]])


def test_a_run_of_a_script_is_a_run_of_the_client(
    tracking: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    model = LogisticRegression().fit(ROWS, [0, 0, 1, 1])
    with instar.run("songs", url=tracking, resources=False, wait_seconds=60) as run:
        run.log(loss=0.5)
        run.log(loss=0.25)
        run.log_text("text", "said/a.txt")
        with run.child("fold", parameters={"fold": 1}) as child:
            child.log(loss=1.0)
        logged = run.log_model(model, "singer", sample=ROWS)
    client = MlflowClient()
    found = client.get_run(run.id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"loss": 0.25})
    assert [point.value for point in client.get_metric_history(run.id, "loss")] == [0.5, 0.25]
    assert Path(mlflow.artifacts.download_artifacts(run_id=run.id, artifact_path="said/a.txt")).read_text() == "text"
    nested = client.search_runs([found.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.id}'")
    assert [one.info.run_id for one in nested] == [child.id]
    loaded = mlflow.pyfunc.load_model(f"models:/{logged}")
    assert (loaded.predict(ROWS) == model.predict(ROWS)).all()
    assert client.get_logged_model(logged).source_run_id == run.id
