"""Nothing reports to the makers of libraries, wherever a graph is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instar.core.silence import WORDS, keep_silence


def test_a_word_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WORDS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    keep_silence()
    assert {name: os.environ[name] for name in WORDS} == {**WORDS, "ORT_DISABLE_TELEMETRY": "0"}


def test_a_session_keeps_nothing_to_report(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    number = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "secret", [number("x", onnx.TensorProto.FLOAT, [1])], [number("y", onnx.TensorProto.FLOAT, [1])]
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "secret.onnx").write_bytes(made.SerializeToString())
    home = tmp_path / "home"
    home.mkdir()
    # Without a word from whoever runs this: where there is a `CI` the library keeps quiet by itself.
    environment = {key: value for key, value in os.environ.items() if key not in (*WORDS, "CI", "GITHUB_ACTIONS")}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = (
        "import sys, pathlib; from instar.train.sessions import open_session; open_session(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "secret.onnx")], env=environment, check=True)
    assert list(home.rglob("*")) == []
