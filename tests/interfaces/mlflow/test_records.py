"""It is one record: what clients log is found by the rest of Instar, and what Instar trained is found by clients."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from instar.app import App, open_store
from instar.core import lineage
from instar.core.store import Store
from instar.data import tables
from instar.interfaces.api.application import Application
from instar.interfaces.mlflow import routes
from instar.train import runs
from instar.train.run_records import Metric

from .conftest import Api
from .conversation import GOLDEN, Conversation

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = 1_700_000_000_000


def test_a_run_of_the_pipeline_is_found_by_clients(api: Api, store: Store) -> None:
    frame = pl.DataFrame({"id": [1, 2], "late": [True, False]})
    table = tables.write_version(store, "default", "features", "gold", frame, key=["id"])
    made = runs.start(
        store, "default", experiment="delay", step="trees", parameters={"depth": 3, "rate": 0.1, "warm": True, "none": None},
        tags={"recipe": "b3:1"}, inputs=[table.id],
    )  # fmt: skip
    runs.log(store, made.id, metrics=[Metric("cost", 0.5, 0, NOON), Metric("cost", float("nan"), 1, NOON)])
    runs.fail(store, made.id, ValueError("the rails are wet"))
    experiment = api.get("experiments/get-by-name", experiment_name="delay")["experiment"]["experiment_id"]
    (found,) = api.post("runs/search", experiment_ids=[experiment], filter="params.depth = '3'")["runs"]
    info, data = found["info"], found["data"]
    assert (info["run_name"], info["status"], info["user_id"]) == ("trees", "FAILED", "ada")
    assert {one["key"]: one["value"] for one in data["params"]} == {
        "depth": "3",
        "rate": "0.1",
        "warm": "True",
        "none": "None",
    }
    assert data["metrics"] == [{"key": "cost", "value": "NaN", "timestamp": 1_767_268_800_000, "step": 1}]
    assert {"key": "mlflow.runName", "value": "trees"} in data["tags"]
    (used,) = found["inputs"]["dataset_inputs"]
    about = used["dataset"]
    assert (about["name"], about["source_type"], about["source"]) == ("features@1", "instar", table.id)
    assert used["tags"] == [{"key": "mlflow.data.context", "value": "training"}]
    assert len(about["digest"]) == 32
    assert api.get("runs/get", run_id=made.id)["run"] == found


def test_a_run_whose_process_died_shows_as_killed(api: Api, store: Store) -> None:
    made = runs.start(store, "default", experiment="delay", step="trees")
    runs.update(store, made.id, state="abandoned")
    assert api.get("runs/get", run_id=made.id)["run"]["info"]["status"] == "KILLED"


def test_a_run_of_a_client_is_on_the_record_with_its_lineage(api: Api, store: Store) -> None:
    table = tables.write_version(store, "default", "features", "gold", pl.DataFrame({"id": [1]}), key=["id"])
    run = api.run(run_name="mine", start_time=NOW, tags=[{"key": "mlflow.user", "value": "ravi"}])
    api.post("runs/log-parameter", run_id=run, key="depth", value="3")
    api.post("runs/log-metric", run_id=run, key="auc", value=0.9, timestamp=NOW, step=2)
    dataset = {"name": "features", "digest": "d", "source_type": "instar", "source": table.id}
    api.post("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])
    api.post("runs/update", run_id=run, status="FINISHED", end_time=NOW + 1500)
    found = runs.get_run(store, run)
    assert (found.experiment, found.name, found.state, found.user, found.seconds) == (
        "Default",
        "mine",
        "finished",
        "ravi",
        1.5,
    )
    assert (found.parameters, found.metrics) == ({"depth": "3"}, {"auc": 0.9})
    assert found.environment is None  # the server's own is not the client's
    assert [one.id for one in runs.list_runs(store, "default", experiment="Default")] == [run]
    with store.database.read() as tx:
        assert [(edge.source, edge.relation) for edge in lineage.up(tx, run)] == [(table.id, "was read by")]


def test_a_name_is_one_name_however_it_is_given(api: Api, store: Store) -> None:
    run = api.run(tags=[{"key": "mlflow.runName", "value": "by tag"}])
    assert runs.get_run(store, run).name == "by tag"
    api.post("runs/update", run_id=run, run_name="by update")
    assert api.data(run)["tags"]["mlflow.runName"] == "by update"
    api.post("runs/set-tag", run_id=run, key="mlflow.runName", value="by another tag")
    assert api.get("runs/get", run_id=run)["run"]["info"]["run_name"] == "by another tag"
    api.post("runs/log-batch", run_id=run, tags=[{"key": "mlflow.runName", "value": "by batch"}])
    assert runs.get_run(store, run).name == "by batch"
    both = "attributes.run_name = 'by batch' and tags.mlflow.runName = 'by batch'"
    found = api.post("runs/search", experiment_ids=["0"], filter=both)
    assert [one["info"]["run_id"] for one in found["runs"]] == [run]
    named = api.get("runs/get", run_id=api.run())["run"]["info"]["run_name"]
    assert len(named.split("-")) == 3


def test_saying_it_again_changes_nothing(api: Api) -> None:
    run = api.run()
    batch = {
        "metrics": [{"key": "loss", "value": n, "timestamp": NOW + n, "step": n} for n in range(50)],
        "params": [{"key": "depth", "value": "3"}],
        "tags": [{"key": "team", "value": "ships"}],
    }
    for _ in range(3):
        api.post("runs/log-batch", run_id=run, **batch)
        api.post("runs/log-metric", run_id=run, **batch["metrics"][7])
        api.post(
            "runs/log-model",
            run_id=run,
            model_json='{"artifact_path":"","flavors":{},"utc_time_created":"","run_id":""}',
        )
    assert len(api.get("metrics/get-history", run_id=run, metric_key="loss")["metrics"]) == 50
    assert api.data(run)["tags"]["mlflow.log-model.history"].count("artifact_path") == 1
    for _ in range(2):
        api.post("runs/delete", run_id=run)
    for _ in range(2):
        api.post("runs/restore", run_id=run)
    made = api.post("experiments/create", name="oaks")["experiment_id"]
    for path in ("experiments/delete", "experiments/delete", "experiments/restore", "experiments/restore"):
        api.post(path, experiment_id=made)


def test_models_that_threads_of_one_run_log_at_once_are_all_in_its_history(api: Api) -> None:
    run = api.run()
    start = threading.Barrier(8)

    def log(number: int) -> None:
        start.wait(60)
        for nth in range(5):
            about = {"artifact_path": f"{number}/{nth}", "flavors": {}, "utc_time_created": "", "run_id": run}
            api.post("runs/log-model", run_id=run, model_json=json.dumps(about))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(log, range(8)))
    history = json.loads(api.data(run)["tags"]["mlflow.log-model.history"])
    assert {one["artifact_path"] for one in history} == {f"{number}/{nth}" for number in range(8) for nth in range(5)}


def test_searching_in_an_experiment_that_is_not_there_finds_nothing(api: Api) -> None:
    assert api.post("runs/search", experiment_ids=["99"]) == {"runs": []}
    assert api.post("runs/search", experiment_ids=["0"]) == {"runs": []}
    api.run()
    assert api.post("runs/search", experiment_ids=[]) == {"runs": []}
    assert len(api.post("runs/search", experiment_ids=["0", "99"])["runs"]) == 1


@pytest.mark.parametrize("name", sorted(file.stem for file in GOLDEN.glob("*.json")))
def test_postgresql_answers_word_for_word_the_same(postgres_database: str, tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path / "store", postgres_database)
    application = Application(App(store, None), routes.all_routes())
    try:
        with TestClient(application, base_url="http://127.0.0.1:5000") as client:
            Conversation(client, name).replay()
    finally:
        store.database.close()
