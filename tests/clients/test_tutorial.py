"""The tutorial for people who come with MLflow code is run as it is written: a server beside a shell and Python programs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interfaces.as_written import blocks

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "02-bring-your-mlflow-code.md"
READY = f"""\
"{sys.executable}" - <<'END'
import time, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen("http://127.0.0.1:5000/health").read()
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("the server did not become ready in a minute")
END
"""
SERVER = f"""\
instar up --port 5000 > up.log 2>&1 &
echo $! > up.pid
trap 'kill "$(cat up.pid)"; wait' EXIT
{READY}"""


@pytest.mark.timeout(240)
def test_mlflow_code_comes_over_as_the_tutorial_says(tmp_path: Path) -> None:
    script = "set -eu\n"
    for kind, text in blocks(TUTORIAL.read_text("utf-8")):
        if kind == "python":
            script += f"\"{sys.executable}\" - <<'END'\n{text}END\n"
        else:
            script += SERVER if text.strip() == "instar up" else text
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("INSTAR_", "MLFLOW_"))
    } | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", script.replace("5000", port)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "depth 4" in done.stdout
    assert "depth 2" in (tmp_path / "runs.json").read_text()
