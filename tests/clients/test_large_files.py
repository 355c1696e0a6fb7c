"""Large files by the unmodified client, when its user asks for parts and ranges: several threads send and read one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from sklearn.linear_model import LogisticRegression

MEGABYTE = 1024 * 1024


@pytest.fixture
def client(tracking: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1000")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(MEGABYTE))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(MEGABYTE))
    mlflow.set_experiment(request.node.name)
    return MlflowClient()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the parts that the client sends."""
    seen: list[int] = []
    plain = HttpArtifactRepository._upload_part

    def noted(credential: Any, local_file: str, size: int, start_byte: int) -> Any:
        seen.append(credential.part_number)
        return plain(credential, local_file, size, start_byte)

    monkeypatch.setattr(HttpArtifactRepository, "_upload_part", staticmethod(noted))
    return seen


@pytest.fixture
def big(tmp_path: Path) -> Path:
    file = tmp_path / "über & co.bin"
    file.write_bytes(os.urandom(7 * MEGABYTE + 12_345))
    return file


def test_a_file_goes_up_in_parts_and_comes_down_in_ranges(
    client: MlflowClient, parts: list[int], big: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(big), "weights")
        mlflow.log_text("small", "small.txt")
    assert sorted(parts) == list(range(1, 9))
    assert [(one.path, one.file_size) for one in client.list_artifacts(run.info.run_id, "weights")] == [
        ("weights/über & co.bin", big.stat().st_size)
    ]
    back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=str(tmp_path / "back"))
    assert (Path(back) / "weights" / big.name).read_bytes() == big.read_bytes()
    assert (Path(back) / "small.txt").read_text() == "small"
    assert "does not support" not in caplog.text


def test_a_part_that_fails_leaves_nothing(
    client: MlflowClient, big: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = requests.put

    def failing(url: str, **more: Any) -> Any:
        if "/3?" in url:
            raise requests.ConnectionError("the line was cut")
        return plain(url, **more)

    with mlflow.start_run() as run:
        with monkeypatch.context() as patch:
            patch.setattr(requests, "put", failing)
            with pytest.raises(Exception, match="the line was cut"):
                mlflow.log_artifact(str(big))
        assert client.list_artifacts(run.info.run_id) == []
        assert not any((folder / ".instar" / "multipart").glob("*/0*"))
        mlflow.log_artifact(str(big))
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == [big.name]


def test_a_model_goes_up_in_parts_and_is_a_model(client: MlflowClient, parts: list[int], monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "0")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "300")
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with mlflow.start_run():
        about = mlflow.sklearn.log_model(
            model, name="lr", registered_model_name="in-parts", serialization_format="cloudpickle", pip_requirements=[]
        )
    assert len(parts) > 3
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    for uri in (about.model_uri, "models:/in-parts/1"):
        assert list(mlflow.pyfunc.load_model(uri).predict([[0.0], [1.0]])) == [0, 1]
