"""Bringing in MLflow's stores, made here as MLflow writes them; `tests/clients` does it with stores that MLflow made."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.adapters.source_mlflow_database import MlflowDatabase
from instar.adapters.source_mlflow_folder import MlflowFolder
from instar.app import open_source
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train import artifacts, datasets, experiment_search, experiments, histories, run_search, runs
from instar.train.importing import FROM, Source, bring_in, run_id

SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER, name TEXT, artifact_location TEXT, lifecycle_stage TEXT);
CREATE TABLE experiment_tags (key TEXT, value TEXT, experiment_id INTEGER);
CREATE TABLE runs (run_uuid TEXT, name TEXT, user_id TEXT, status TEXT, start_time INTEGER, end_time INTEGER,
    lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INTEGER);
CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT, step INTEGER, is_nan INTEGER);
CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE datasets (dataset_uuid TEXT, name TEXT, digest TEXT, dataset_source_type TEXT, dataset_source TEXT,
    dataset_schema TEXT, dataset_profile TEXT);
CREATE TABLE inputs (input_uuid TEXT, source_type TEXT, source_id TEXT, destination_type TEXT, destination_id TEXT);
CREATE TABLE input_tags (input_uuid TEXT, name TEXT, value TEXT);
INSERT INTO experiments VALUES (0, 'Default', '', 'active'), (1, 'churn', '', 'active'), (2, 'churn', '', 'deleted');
INSERT INTO experiment_tags VALUES ('owner', 'ada', 1);
INSERT INTO runs VALUES
    ('a1', 'first', 'ada', 'FINISHED', 1700000000000, 1700000009000, 'active', 'mlflow-artifacts:/1/a1/artifacts', 1),
    ('a2', 'second', '', 'KILLED', 1700000001000, NULL, 'deleted', 's3://bucket/a2', 1),
    ('a3', NULL, NULL, 'RUNNING', 1700000002000, NULL, 'active', 'mlflow-artifacts:/2/a3/artifacts', 2);
INSERT INTO metrics VALUES ('loss', 0.5, 1700000000100, 'a1', 0, 0), ('loss', 0.25, 1700000000200, 'a1', 1, 0),
    ('loss', 0, 1700000000300, 'a1', 2, 1), ('top', 1.7976931348623157e308, 1700000000300, 'a1', -1, 0);
INSERT INTO params VALUES ('rate', '0.1', 'a1'), ('a/b', 'x', 'a1');
INSERT INTO tags VALUES ('mlflow.runName', 'first', 'a1'), ('mlflow.parentRunId', 'a1', 'a2');
INSERT INTO datasets VALUES ('d1', 'rows', 'abc', 's3', '{"uri": "s3://x"}', '{}', NULL);
INSERT INTO inputs VALUES ('i1', 'DATASET', 'd1', 'RUN', 'a1');
INSERT INTO input_tags VALUES ('i1', 'mlflow.data.context', 'training');
"""


def database(folder: Path) -> MlflowDatabase:
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.executescript(SCHEMA)
    connection.close()
    write(folder / "mlartifacts" / "1" / "a1" / "artifacts", {"sub/h.txt": "hello"})
    return MlflowDatabase(folder / "mlflow.db")


def mlruns(folder: Path) -> MlflowFolder:
    run = "artifact_uri: mlflow-artifacts:/x\nuser_id: ada\nstart_time: 1700000000000\n"
    write(
        folder / "mlruns",
        {
            "0/meta.yaml": "experiment_id: '0'\nname: Default\nlifecycle_stage: active\n",
            "1/meta.yaml": "experiment_id: '1'\nname: churn\nlifecycle_stage: active\n",
            "1/tags/owner": "ada",
            "1/a1/meta.yaml": f"run_id: a1\nrun_name: first\nstatus: 3\nend_time: 1700000009000\nlifecycle_stage: active\n{run}",
            "1/a1/params/rate": "0.1",
            "1/a1/params/a/b": "x",
            "1/a1/tags/mlflow.runName": "first",
            "1/a1/metrics/loss": "1700000000100 0.5 0\n1700000000200 0.25 1\n1700000000300 nan 2\n",
            "1/a1/metrics/top": "1700000000300 inf -1\n",
            "1/a1/artifacts/sub/h.txt": "hello",
            "1/a1/inputs/i1/meta.yaml": "source_type: DATASET\nsource_id: d1\ntags: {mlflow.data.context: training}\n",
            "1/datasets/d1/meta.yaml": "name: rows\ndigest: abc\nsource_type: s3\nsource: s3://x\nschema: '{}'\n",
            "1/a2/meta.yaml": f"run_id: a2\nrun_name: second\nstatus: 5\nlifecycle_stage: deleted\n{run}".replace(
                "mlflow-artifacts:/x", "s3://bucket/a2"
            ).replace("1700000000000", "1700000001000"),
            "1/a2/tags/mlflow.parentRunId": "a1",
            ".trash/2/meta.yaml": "experiment_id: '2'\nname: churn\nlifecycle_stage: deleted\n",
            ".trash/2/a3/meta.yaml": "run_id: a3\nstatus: 1\nlifecycle_stage: active\nstart_time: 1700000002000\n",
        },
    )
    return MlflowFolder(folder / "mlruns")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("make", [database, mlruns])
def test_all_comes_over_and_coming_again_changes_nothing(
    store: Store, tmp_path: Path, make: Callable[[Path], Source]
) -> None:
    source = make(tmp_path)
    done = bring_in(store, "p", source)
    assert (done.experiments, done.runs, done.known, done.points, done.files) == (3, 3, 0, 4, 1)
    assert len(done.left_out) == 1
    assert "s3://bucket/a2" in done.left_out[0]

    churn = experiments.by_name(store, "p", "churn")
    assert churn is not None
    assert churn.tags == {"owner": "ada", FROM: "1"}
    (run,) = run_search.search(store, projects=["p"], experiments=None).items
    assert (run.name, run.experiment, run.state, run.user) == ("first", "churn", "finished", "ada")
    assert run.parameters == {"rate": "0.1", "a/b": "x"}
    assert (run.started.timestamp(), run.ended.timestamp() if run.ended else None) == (1_700_000_000, 1_700_000_009)
    points = histories.metric_history(store, run.id, "loss")
    assert [(point.step, point.at.timestamp()) for point in points] == [
        (0, 1.7e9 + 0.1),
        (1, 1.7e9 + 0.2),
        (2, 1.7e9 + 0.3),
    ]
    assert [point.value for point in points[:2]] == [0.5, 0.25]
    assert math.isnan(points[2].value)
    assert histories.metric_history(store, run.id, "top")[0].value == math.inf
    assert artifacts.open(store, run.id, "sub/h.txt").read_text() == "hello"
    (read,) = datasets.inputs_of(store, run.id)
    assert (read.dataset.name, read.dataset.digest, read.tags) == ("rows", "abc", {"mlflow.data.context": "training"})

    (hidden, lost) = sorted(
        run_search.search(store, projects=["p"], experiments=None, view="deleted").items, key=lambda run: run.started
    )
    assert (hidden.name, hidden.state, hidden.tags["imported.parent"]) == ("second", "killed", "a1")
    assert lost.tags[FROM] == "a3"
    gone = experiment_search.search(store, ["p"], view="deleted", limit=10).items
    assert [one.tags[FROM] for one in gone] == ["2"]

    again = bring_in(store, "p", source)
    assert (again.runs, again.known, again.points, again.files) == (0, 3, 0, 0)
    assert len(experiment_search.search(store, ["p"], view="all", limit=10).items) == 3
    assert len(run_search.search(store, projects=["p"], experiments=None, view="all").items) == 3


def test_experiments_of_two_trackers_that_number_them_alike_stay_two(store: Store, tmp_path: Path) -> None:
    for number, name in enumerate(("churn", "delay", "churn")):
        about = (
            f"experiment_id: '1'\nname: {name}\nlifecycle_stage: active\ncreation_time: {1_700_000 + ord(name[0])}\n"
        )
        (tmp_path / str(number) / "1").mkdir(parents=True)
        (tmp_path / str(number) / "1" / "meta.yaml").write_text(about)
        bring_in(store, "p", open_source(tmp_path / str(number)))
    connection = sqlite3.connect(tmp_path / "third.db")
    empty = SCHEMA.partition("INSERT")[0]
    connection.executescript(
        empty.replace("lifecycle_stage TEXT);", "lifecycle_stage TEXT, creation_time INTEGER);", 1)
    )
    connection.execute("INSERT INTO experiments VALUES (1, 'fraud', '', 'active', 1800000)")
    connection.commit()
    connection.close()
    for _ in range(2):
        bring_in(store, "p", open_source(tmp_path / "third.db"))
    found = experiment_search.search(store, ["p"], order_by=["name"]).items
    assert [one.name for one in found] == ["churn", "delay", "fraud"]
    assert found[2].tags[FROM] == "1 of 1800000"
    experiments.rename(store, found[1].id, "late")
    bring_in(store, "p", open_source(tmp_path / "1"))
    assert experiments.get(store, found[1].id).name == "late"
    assert len(experiment_search.search(store, ["p"]).items) == 3


def test_an_import_that_was_broken_off_goes_on(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = database(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "log_inputs", stop)
        with pytest.raises(KeyboardInterrupt):
            bring_in(store, "p", source)
    done = bring_in(store, "p", source)
    assert (done.runs, done.known) == (3, 0)
    run = runs.get_run(store, run_id("a1", histories.moment(1_700_000_000_000_000)))
    assert len(histories.metric_history(store, run.id, "loss")) == 3


def test_a_run_that_cannot_be_kept_loses_no_other(store: Store, tmp_path: Path) -> None:
    source = mlruns(tmp_path)
    (tmp_path / "mlruns/1/a1/metrics/loss").write_text("yesterday high\n")
    (tmp_path / "mlruns/1/a2/artifacts").mkdir()
    (tmp_path / "mlruns/1/a2/artifacts/link").symlink_to("/etc/hostname")
    done = bring_in(store, "p", source)
    assert done.runs == 2
    assert any("yesterday high" in line for line in done.left_out)
    assert any("symbolic link" in line for line in done.left_out)


def test_what_is_no_store_of_mlflow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, whatever it is called, and long enough to be looked at" * 20)
    sqlite3.connect(tmp_path / "other.db").executescript("CREATE TABLE runs (id TEXT)").connection.close()
    (tmp_path / "empty").mkdir()
    for name, said in (("text", "no SQLite"), ("other.db", "no database of MLflow"), ("empty", "no folder of MLflow")):
        with pytest.raises(BadInput, match=said):
            open_source(tmp_path / name)
    with pytest.raises(BadInput, match="no such file"):
        open_source(tmp_path / "nothing.db")
