"""The unmodified MLflow client with a token: by `MLFLOW_TRACKING_TOKEN`, or as the password of any user; and without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from tests.clients.conftest import project
from tests.journeys.driving import Server, instar, up

WORDS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("guarded"))


@pytest.fixture(scope="module")
def guarded(place: Path) -> Iterator[Server]:
    """A server that asks everybody."""
    with up(place, settings={"INSTAR_LOOPBACK": "token"}) as server:
        yield server


@pytest.fixture
def client(guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    monkeypatch.chdir(tmp_path)
    for word in WORDS:
        monkeypatch.delenv(word, raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(guarded.url)
    yield MlflowClient()
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def token(place: Path, name: str, role: str) -> str:
    return instar(place, "token", "create", name, "--role", role).stdout.splitlines()[0]


def test_a_token_logs_runs_files_and_models(client: MlflowClient, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token(place, "ravi", "data scientist"))
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1000")
    big = Path("big.bin")
    big.write_bytes(os.urandom(3_000_000))
    experiment = client.create_experiment("guarded")
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_param("depth", 3)
        mlflow.log_metric("loss", 0.5)
        mlflow.log_text("small", "small.txt")
        mlflow.log_artifact(str(big))  # in parts, at signed addresses
    assert client.get_run(run.info.run_id).data.params == {"depth": "3"}
    back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path="back")
    assert (Path(back) / "big.bin").read_bytes() == big.read_bytes()
    assert client.create_registered_model("guarded").name == "guarded"


def test_a_token_is_the_password_of_any_user(
    client: MlflowClient, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anybody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", token(place, "rita", "reader"))
    assert client.search_experiments()
    with pytest.raises(RestException) as refused:
        client.create_experiment("not mine")
    assert refused.value.error_code == "PERMISSION_DENIED"
    assert "rita may not train" in refused.value.message


@pytest.mark.parametrize("sent", [None, "instar_wrong", "x"])
def test_without_a_token_the_client_says_why(
    client: MlflowClient, sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sent is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", sent)
    with pytest.raises(MlflowException) as refused:
        client.search_experiments()
    assert refused.value.error_code == "UNAUTHENTICATED"
    assert "Authorization: Bearer" in refused.value.message
    assert "instar_wrong" not in refused.value.message


def test_a_token_of_another_project_reads_nothing_here(
    client: MlflowClient, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = instar(place, "token", "create", "zoe", "--role", "admin", "--project", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", made.stdout.splitlines()[0])
    with pytest.raises(RestException) as refused:
        client.search_experiments()
    assert refused.value.error_code == "PERMISSION_DENIED"
    mlflow.set_tracking_uri(f"{mlflow.get_tracking_uri()}/projects/elsewhere")
    there = MlflowClient()
    there.create_experiment("mine")
    assert [one.name for one in there.search_experiments(filter_string="name = 'mine'")] == ["mine"]
