"""The unmodified MLflow client logs, reads and searches runs: all that changes in its user's program is the address."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from tests.journeys.driving import Server, told

NOW = 1_700_000_000_000


@pytest.fixture
def client(tracking: str) -> MlflowClient:
    return MlflowClient()


@pytest.fixture
def experiment(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    """An experiment of the test's own, chosen as the active one."""
    id: str = mlflow.set_experiment(request.node.name).experiment_id
    return id


def test_a_run_is_logged_as_ever(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run(run_name="first", description="a try", tags={"team": "ships"}) as run:
        mlflow.log_param("depth", 3)
        mlflow.log_params({f"p{n}": n for n in range(250)})
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"nan": math.nan, "up": math.inf, "down": -math.inf})
        mlflow.set_tags({"stage": "try", "long": "x" * 20_000})
    found = client.get_run(run.info.run_id)
    assert (found.info.run_name, found.info.status, found.info.experiment_id) == ("first", "FINISHED", experiment)
    assert found.info.end_time >= found.info.start_time > NOW
    assert found.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert found.data.params["depth"] == "3"
    assert len(found.data.params) == 251
    assert found.data.metrics["loss"] == 0.2
    assert math.isnan(found.data.metrics["nan"])
    assert (found.data.metrics["up"], found.data.metrics["down"]) == (math.inf, -math.inf)
    assert found.data.tags["mlflow.note.content"] == "a try"
    assert found.data.tags["long"][:8000] == "x" * 8000
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, 1 / (step + 1)) for step in range(5)]


def test_a_run_that_fails_is_failed_and_runs_nest(client: MlflowClient, experiment: str) -> None:
    def fail() -> None:
        with mlflow.start_run() as run:
            started.append(run)
            with mlflow.start_run(nested=True, run_name="child") as child:
                started.append(child)
                mlflow.log_metric("a", 1)
            raise RuntimeError("wet rails")

    started: list[mlflow.ActiveRun] = []
    with pytest.raises(RuntimeError):
        fail()
    parent, child = started
    assert client.get_run(parent.info.run_id).info.status == "FAILED"
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert mlflow.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    children = mlflow.search_runs(
        [experiment], filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    assert [run.info.run_id for run in children] == [child.info.run_id]


def test_a_parameter_never_changes_and_the_client_says_so(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run():
        mlflow.log_param("depth", 3)
        mlflow.log_param("depth", 3)
        with pytest.raises(MlflowException, match="Changing param values is not allowed") as caught:
            mlflow.log_param("depth", 5)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
        with pytest.raises(MlflowException, match="Changing param values is not allowed"):
            mlflow.log_params({"depth": 5, "other": 1})


def test_a_run_is_resumed_and_finished_again(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 1.0, step=0)
    with mlflow.start_run(run_id=run.info.run_id):
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("loss", 0.5, step=1)
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2


def test_experiments_are_made_found_renamed_deleted_and_restored(client: MlflowClient, tmp_path: Path) -> None:
    made = client.create_experiment("oaks", artifact_location=tmp_path.as_uri(), tags={"team": "ships"})
    found = client.get_experiment(made)
    assert (found.name, found.lifecycle_stage, found.tags["team"]) == ("oaks", "active", "ships")
    assert client.get_experiment_by_name("oaks").experiment_id == made
    assert client.get_experiment_by_name("no such thing") is None
    with pytest.raises(MlflowException) as caught:
        client.create_experiment("oaks")
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    client.set_experiment_tag(made, "note", "why")
    client.delete_experiment_tag(made, "team")
    assert client.get_experiment(made).tags["note"] == "why"
    assert "team" not in client.get_experiment(made).tags
    client.rename_experiment(made, "elms")
    run = client.create_run(made)
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    listed = client.search_experiments(view_type=ViewType.DELETED_ONLY, filter_string="name = 'elms'")
    assert [one.experiment_id for one in listed] == [made]
    again = client.create_experiment("elms")  # a deleted name is free
    client.delete_experiment(again)
    client.restore_experiment(made)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
    names = [one.name for one in client.search_experiments(order_by=["name ASC"], filter_string="name ILIKE 'ELM%'")]
    assert names == ["elms"]


def test_every_call_of_the_client_on_runs(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment, start_time=NOW, tags={"a": "b"}, run_name="by hand").info.run_id
    client.log_batch(
        run,
        metrics=[Metric("auc", 0.5 + n / 10_000, NOW + n, n) for n in range(1500)],
        params=[Param(f"p{n}", str(n)) for n in range(150)],
        tags=[RunTag(f"t{n}", str(n)) for n in range(150)],
    )
    client.log_metric(run, "loss", 0.25, timestamp=NOW, step=-3)
    client.log_param(run, "deep", [1, 2])
    client.set_tag(run, "gone", "soon")
    client.delete_tag(run, "gone")
    with pytest.raises(MlflowException) as caught:
        client.delete_tag(run, "gone")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    client.update_run(run, status="RUNNING", name="renamed")
    found = client.get_run(run)
    assert (found.info.run_name, found.data.tags["mlflow.runName"], found.info.start_time) == (
        "renamed",
        "renamed",
        NOW,
    )
    assert (found.data.metrics["loss"], found.data.params["deep"], len(found.data.params)) == (0.25, "[1, 2]", 151)
    assert len(client.get_metric_history(run, "auc")) == 1500
    client.set_terminated(run, status=RunStatus.to_string(RunStatus.KILLED), end_time=NOW + 5000)
    ended = client.get_run(run).info
    assert (ended.status, ended.end_time) == ("KILLED", NOW + 5000)
    client.delete_run(run)
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        client.log_metric(run, "loss", 1)
    client.restore_run(run)
    client.log_metric(run, "loss", 1)
    with pytest.raises(MlflowException) as caught:
        client.get_run("f" * 32)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_runs_are_searched_to_a_frame(client: MlflowClient, experiment: str) -> None:
    for n in range(12):
        with mlflow.start_run(run_name=f"r{n}"):
            mlflow.log_params({"depth": n % 3, "kind": "tree" if n % 2 else "line"})
            mlflow.set_tag("data version", f"v{n}")
            if n != 5:
                mlflow.log_metrics({"auc": n / 12, "f1.score": 1 - n / 12})
    frame = mlflow.search_runs(
        [experiment], filter_string="params.depth = '2' AND metrics.auc > 0.2", order_by=["metrics.auc DESC"]
    )
    assert list(frame["tags.mlflow.runName"]) == ["r11", "r8"]
    assert list(frame["params.kind"]) == ["tree", "line"]
    assert np.allclose(frame["metrics.auc"], [11 / 12, 8 / 12])
    assert {"run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time"} <= set(frame.columns)

    def names(filter: str = "", **more: object) -> list[str]:
        return [run.info.run_name for run in client.search_runs([experiment], filter, **more)]

    assert names("tags.`data version` = 'v3'") == ["r3"]
    assert names('metrics."f1.score" >= 0.9', order_by=["attributes.run_name ASC"]) == ["r0", "r1"]
    assert names("attributes.run_name LIKE 'r1%'", order_by=["attribute.start_time ASC"]) == ["r1", "r10", "r11"]
    assert names(
        "params.kind ILIKE 'TREE' and attributes.status = 'FINISHED'", max_results=2, order_by=["start_time ASC"]
    ) == ["r1", "r3"]
    assert names("attributes.run_name IN ('r2', 'r4')", order_by=["attributes.run_name DESC"]) == ["r4", "r2"]
    assert names(order_by=["metrics.auc ASC"])[-1] == "r5"  # a run without the metric comes last
    assert names("metrics.auc > 0.9 OR params.depth = '0'", order_by=["metrics.auc ASC"]) == [
        "r0",
        "r3",
        "r6",
        "r9",
        "r11",
    ]
    pages, token = [], None
    while True:
        page = client.search_runs([experiment], order_by=["metrics.auc DESC"], max_results=5, page_token=token)
        pages.append([run.info.run_name for run in page])
        token = page.token
        if not token:
            break
    assert [len(page) for page in pages] == [5, 5, 2]
    assert len({name for page in pages for name in page}) == 12
    with pytest.raises(MlflowException) as caught:
        names("metrics.auc >")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_data_sets_are_inputs_and_are_searched(client: MlflowClient, experiment: str) -> None:
    wines = mlflow.data.from_pandas(pd.DataFrame({"a": [1.0, 2.0], "y": [0.0, 1.0]}), name="wines", targets="y")
    with mlflow.start_run() as run:
        mlflow.log_input(wines, context="training")
        mlflow.log_input(mlflow.data.from_numpy(np.ones(3), name="ones"), context="eval", tags={"fold": "1"})
    used = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert {one.dataset.name: {tag.key: tag.value for tag in one.tags} for one in used} == {
        "wines": {"mlflow.data.context": "training"},
        "ones": {"mlflow.data.context": "eval", "fold": "1"},
    }
    (kept,) = [one.dataset for one in used if one.dataset.name == "wines"]
    assert (kept.digest, kept.source_type) == (wines.digest, "code")
    assert mlflow.data.get_source(kept) is not None
    found = mlflow.search_runs([experiment], filter_string="datasets.name = 'wines'", output_format="list")
    assert [one.info.run_id for one in found] == [run.info.run_id]


def test_a_long_history_comes_back_whole(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    for start in range(0, 60_000, 1000):
        client.log_batch(run, metrics=[Metric("loss", float(n), NOW + n, n) for n in range(start, start + 1000)])
    assert [point.value for point in client.get_metric_history(run, "loss")] == [float(n) for n in range(60_000)]


def test_sixteen_threads_log_at_once_and_every_point_is_there(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id

    def work(thread: int) -> None:
        for n in range(40):
            client.log_metric(run, f"m{thread}", n, timestamp=NOW + n, step=n)
            client.log_batch(
                run, metrics=[Metric("all", thread * 1000 + n, NOW + n, n)], params=[Param(f"p{thread}.{n}", "1")]
            )
        own = client.create_run(experiment, run_name=f"t{thread}")
        client.set_terminated(own.info.run_id)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    found = client.get_run(run)
    assert len(found.data.params) == 16 * 40
    for thread in range(16):
        assert len(client.get_metric_history(run, f"m{thread}")) == 40
    assert len({point.value for point in client.get_metric_history(run, "all")}) == 640
    assert len(client.search_runs([experiment], "attributes.status = 'FINISHED'")) == 16


def test_asynchronous_logging_arrives(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as run:
        for n in range(300):
            mlflow.log_metric("loss", n, step=n, synchronous=False)
        mlflow.log_params({"a": 1}, synchronous=False).wait()
        mlflow.flush_async_logging()
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 300


def test_another_project_is_named_by_the_address_or_as_workspace(client: MlflowClient, server: Server) -> None:
    mlflow.set_tracking_uri(f"{server.url}/projects/ships")
    mlflow.set_experiment("hulls")
    with mlflow.start_run() as run:
        mlflow.log_metric("a", 1)
    assert MlflowClient().get_run(run.info.run_id).data.metrics == {"a": 1}
    mlflow.set_tracking_uri(server.url)
    with pytest.raises(MlflowException) as caught:
        MlflowClient().get_run(run.info.run_id)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    mlflow.set_workspace("ships")
    try:
        assert MlflowClient().get_run(run.info.run_id).info.run_id == run.info.run_id
        assert "ships" in {one.name for one in mlflow.list_workspaces()}
    finally:
        mlflow.set_workspace(None)


def test_a_run_of_a_client_is_a_run_like_any_other(client: MlflowClient, experiment: str, folder: Path) -> None:
    with mlflow.start_run(run_name="shown") as run:
        mlflow.log_param("depth", 3)
        mlflow.log_metric("auc", 0.9)
    listed = told(folder, "runs", "ls")
    (mine,) = [one for one in listed if one["id"] == run.info.run_id]
    assert (mine["name"], mine["state"], mine["metrics"], mine["parameters"]) == (
        "shown",
        "finished",
        {"auc": 0.9},
        {"depth": "3"},
    )
    assert told(folder, "runs", "show", run.info.run_id)["experiment_id"] == experiment
