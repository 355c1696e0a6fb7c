"""schemathesis over the data plane: what the description of the endpoints promises holds, whatever it sends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from instar.serve.root.process import ServerTree
from tests.clients.test_callers import ROOT
from tests.clients.test_callers import server as server
from tests.conftest import need

TOOL = ROOT / ".venv-callers" / "bin" / "schemathesis"
# The rules that are asked of every answer. A refusal of what the description allows is no fault: it cannot say all (that numbers
# of rows agree, say); nor is an answer to what it does not describe.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.parametrize("endpoint", ["delay", "words"])
def test_the_description_of_an_endpoint_is_true(server: ServerTree, tmp_path: Path, endpoint: str) -> None:
    tool = need(str(TOOL) if TOOL.exists() else None, ".venv-callers", "that `./run test --full` makes")
    command = [
        tool, "run", f"{server.url}/v2/models/{endpoint}/openapi.json", "--checks", CHECKS, "--max-examples", "60",
        "--seed", "7", "--phases", "examples,coverage,fuzzing", "--workers", "1", "--no-color", "--request-timeout", "20",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
