"""Unmodified clients of other makers ask an endpoint: Triton's, KServe's, and what MLflow's users send to its scoring server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest

from instar.serve.root.process import ServerTree
from tests.conftest import need
from tests.serve import fakes, tensor_fakes
from tests.serve.conftest import acknowledged, start

ROOT = Path(__file__).parents[2]
CALLERS = ROOT / ".venv-callers" / "bin" / "python"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    """Endpoints `delay` (columns) and `words` (tensors), both ports."""
    folder = tmp_path_factory.mktemp("callers") / ".instar"
    fakes.route(folder, [fakes.version(folder, 1, bias=0.1)])
    number = fakes.route(folder, [tensor_fakes.version(folder, 1)], endpoint="words", signature=tensor_fakes.SIGNATURE)
    with start(folder, loader="tests.clients.loading:load", grpc_port=0) as running:
        acknowledged(folder, number)
        yield running


def call(script: str, server: ServerTree) -> Any:
    """What a script says that runs in the callers' environment."""
    python = need(str(CALLERS) if CALLERS.exists() else None, ".venv-callers", "that `./run test --full` makes")
    address = f"127.0.0.1:{server.port}" if script == "triton.py" else server.url
    command = [python, str(ROOT / "tests/clients/callers" / script), address, f"127.0.0.1:{server.state.grpc_port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tritonclient_asks_over_http_and_grpc(server: ServerTree) -> None:
    found = call("triton.py", server)
    both = {"score": [6.0, 15.0], "label": ["ONE", "ZWEI"]}
    for protocol in ("http", "grpc"):
        got = found[protocol]
        assert [got[name] for name in ("live", "ready", "model ready", "version ready")] == [True] * 4
        assert got["infer"] == got["version"] == both
        assert got["wanted"] == {"label": ["ONE", "ZWEI"]}
        assert "there is no such endpoint" in got["refused"]
        assert "'words' is missing" in got["missing"]
        assert sorted(got["index"], key=lambda one: one["name"]) == [
            {"name": name, "version": "1", "state": "READY"} for name in ("delay", "words")
        ]
        assert got["timed"] == both
        assert "time was over" in got["late"]
        assert "no sequences" in got["sequence"]
        assert "no priorities" in got["priority"]
        assert "not as classes" in got["classes"]
        assert "no shared memory" in got["shared"]
        assert "instar promote" in got["load"]
        assert "instar promote" in got["unload"]
    assert found["http"]["packed"] == {"gzip": [True, True], "deflate": [True, True]}
    assert found["grpc"]["packed"] == both
    assert found["http"]["json"] == {"score": [6.0, 15.0]}
    assert found["http"]["async"] == [both] * 8
    inputs = [(one["name"], one["datatype"], one["shape"]) for one in found["http"]["metadata"]["inputs"]]
    assert [list(one) for one in inputs] == found["grpc"]["metadata"]
    assert inputs[0] == ("x", "FP32", [-1, 3])


def test_kserves_clients_ask_over_http_and_grpc(server: ServerTree) -> None:
    found = call("kserve_client.py", server)
    assert [found[name] for name in ("live", "ready", "model ready", "grpc ready")] == [True, True, True, [True, True]]
    assert found["json"] == found["binary"] == found["grpc"] == {"score": [6.0], "label": ["ONE"]}


def test_what_mlflows_users_send_is_answered(server: ServerTree) -> None:
    """The bodies that MLflow's documentation shows, made by pandas as its users make them."""
    frame = pd.DataFrame({"distance": [1500.0], "hour": [8], "carrier": ["UA"], "wind": [2.5], "holiday": [False]})
    url = f"{server.url}/endpoints/delay/invocations"
    bodies: list[dict[str, Any]] = [
        {"dataframe_split": json.loads(frame.to_json(orient="split"))},
        {"dataframe_records": json.loads(frame.to_json(orient="records"))},
        {"instances": frame.to_dict(orient="records")},
        {"inputs": frame.to_dict(orient="list")},
    ]
    for body in bodies:
        assert httpx2.post(url, json=body).json() == {"predictions": [{"score": 0.25, "decision": 0}]}
    sent = httpx2.post(url, content=frame.to_csv(index=False), headers={"content-type": "text/csv"})
    assert sent.json() == {"predictions": [{"score": 0.25, "decision": 0}]}
    tensors = {"inputs": {"x": [[1.0, 2.0, 3.0]], "words": ["one"]}}
    answer = httpx2.post(f"{server.url}/endpoints/words/invocations", json=tensors).json()
    assert answer == {"predictions": {"score": [[6.0]], "label": ["ONE"]}}
