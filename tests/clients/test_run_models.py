"""Modules of PyTorch and ONNX models that a run logs: loaded by MLflow's own client, and served without any pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pytest
import torch
from mlflow.tracking import MlflowClient

import instar
from instar.app import open_app
from instar.core.errors import BadInput
from instar.interfaces.sdk import graphs, models
from instar.release import scan_files
from instar.serve.worker.loading import load
from instar.train import bundle, logged_models

ROWS = np.array([[1.0, 0.5], [2.0, 0.25], [3.0, -1.0]], dtype=np.float32)


class Branching(torch.nn.Module):
    """Takes another way for other values: a trace of it would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, rows: Any) -> Any:
        return self.layer(rows) if rows.sum() > 0 else -self.layer(rows)


class Solving(torch.nn.Module):
    """Uses what ONNX has no word for."""

    def forward(self, rows: Any) -> Any:
        return torch.linalg.eigvalsh(rows.unsqueeze(2) @ rows.unsqueeze(1))[:, -1:]


def net(seed: int = 7) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(4, 1))


def answers(module: Any, rows: Any) -> Any:
    with torch.no_grad():
        return module.eval()(torch.tensor(rows)).numpy()


Log = Callable[..., tuple[str, str]]


@pytest.fixture
def log(tracking: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    """Log a model in a run; the ids of both."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def log(model: Any, **about: Any) -> tuple[str, str]:
        with instar.run("nets", url=tracking, resources=False, wait_seconds=60) as run:
            return run.id, run.log_model(model, "net", **about)

    return log


@pytest.mark.parametrize(
    "sample", [ROWS, torch.tensor(ROWS), ROWS[:1].astype(np.float64)], ids=["matrix", "tensor", "one row"]
)
def test_a_module_is_kept_in_onnx_and_answers_as_it_did(log: Log, folder: Path, tmp_path: Path, sample: Any) -> None:
    module = net().train()
    run, logged = log(module, sample=sample)
    assert module.training  # the training goes on as it was
    loaded = mlflow.pyfunc.load_model(f"models:/{logged}")
    given = ROWS.astype(np.float64) if isinstance(sample, np.ndarray) and sample.dtype == np.float64 else ROWS
    (found,) = loaded.predict(given).values()
    assert found == pytest.approx(answers(module, ROWS), abs=1e-5)
    assert MlflowClient().get_logged_model(logged).source_run_id == run
    with open_app(folder) as app:
        about = logged_models.get(app.store, logged)
        assert (about.state, about.reason) == (logged_models.READY, "")
        assert about.bundle is not None
        bundle.unpack(app.store.blobs, about.bundle, tmp_path / "bundle")
    served = load(tmp_path / "bundle", named=about.bundle)
    scores = served.score({"x0": ROWS[:, 0].tolist(), "x1": ROWS[:, 1].tolist()})
    assert scores == pytest.approx(answers(module, ROWS)[:, 0], abs=1e-5)


def test_what_onnx_cannot_say_is_kept_as_a_program_that_loads_without_pickle(
    log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = Solving()
    _, logged = log(module, sample=ROWS)
    assert "not in ONNX" in caplog.text
    loaded = mlflow.pyfunc.load_model(f"models:/{logged}")
    assert loaded.predict(ROWS) == pytest.approx(answers(module, ROWS), abs=1e-4)
    file = tmp_path / "model.pt2"
    file.write_bytes(graphs.of_module(module, ROWS).files[graphs.PROGRAM])
    assert scan_files.inspect_file(file, "data/model.pt2").refused == ""
    assert not [name for name in zipfile.ZipFile(file).namelist() if name.endswith((".pkl", ".py"))]


def test_what_cannot_be_exported_at_all_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadInput, match="neither to ONNX") as error:
        graphs.of_module(Branching(), ROWS)
    assert "state_dict" in str(error.value.next_step)
    with pytest.raises(BadInput, match="by running it"):
        graphs.of_module(net(), None)
    for sample in (np.zeros((2, 5)), np.zeros(3), np.array([["a", "b"]])):
        with pytest.raises(BadInput, match="sample"):
            graphs.of_module(net(), sample)


def test_a_graph_that_answers_otherwise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    other = graphs._exported(net(8).eval(), torch.tensor(ROWS), 1)
    monkeypatch.setattr(graphs, "_exported", lambda *_: other)
    assert set(graphs.of_module(net(), ROWS).files) == {graphs.PROGRAM}


def test_without_the_packages_of_onnx_a_module_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert set(graphs.of_module(net(), ROWS).files) == {graphs.PROGRAM}
    with pytest.raises(BadInput) as error:
        graphs.of_graph(onnx.ModelProto(), None)
    assert "onnxruntime" in str(error.value.found)


def test_an_onnx_model_is_kept_as_it_is(log: Log, tmp_path: Path) -> None:
    data = graphs.of_module(net(), ROWS).files[graphs.GRAPH]
    (tmp_path / "net.onnx").write_bytes(data)
    for model in (onnx.load_from_string(data), tmp_path / "net.onnx"):
        _, logged = log(model, sample=ROWS)
        (found,) = mlflow.pyfunc.load_model(f"models:/{logged}").predict(ROWS).values()
        assert found == pytest.approx(answers(net(), ROWS), abs=1e-5)
    assert "signature" not in models.folder_of(tmp_path / "net.onnx", None, run="run_1")["MLmodel"].decode()
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    for wrong in (tmp_path / "no.onnx", tmp_path / "away.onnx"):
        with pytest.raises(BadInput, match="ONNX model"):
            graphs.of_graph(wrong, None)
    with pytest.raises(BadInput, match="does not run"):
        graphs.of_graph(tmp_path / "net.onnx", np.zeros((2, 5)))


def test_images_are_kept_and_nothing_speaks_against_calls_with_tensors(log: Log, folder: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 6 * 6, 1))
    _, logged = log(module, sample=torch.zeros(2, 1, 8, 8))
    with open_app(folder) as app:
        assert logged_models.get(app.store, logged).reason == ""
