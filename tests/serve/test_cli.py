"""`instar predict` against a running server, and `instar up` as a program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from instar.core.errors import BadInput, ContractError
from instar.interfaces.cli.predict import commands as asking
from instar.interfaces.cli.serve import commands
from instar.serve.root.process import ServerTree, running
from tests.serve.conftest import wait_for

ROW = ["distance=1000", "hour=8", "carrier=", "wind=", "holiday=true"]


def predict(server: ServerTree, *arguments: str) -> str:
    result = CliRunner().invoke(asking["predict"], ["--url", server.url, *arguments], catch_exceptions=False, obj=None)
    return result.output


def test_one_row(server: ServerTree) -> None:
    (answer,) = json.loads(predict(server, "--json", "delay", *ROW, "--at", "2013-03-01T08:00:00Z"))
    assert (answer["status"], answer["version"], answer["score"], answer["decision"]) == (200, 1, 0.2, 0)
    assert answer["prediction"].endswith("/0")
    assert "version 1  score 0.2000  decision 0" in predict(server, "delay", *ROW)


@pytest.mark.parametrize("form", ["list", "lines", "csv"])
def test_a_file_of_rows(server: ServerTree, tmp_path: Path, form: str) -> None:
    rows = [{"distance": 100.0 * n, "hour": n, "carrier": "UA", "wind": None, "holiday": False} for n in range(3)]
    text = {
        "list": json.dumps(rows),
        "lines": "\n".join(map(json.dumps, rows)),
        "csv": "distance,hour,carrier,wind,holiday\n"
        + "\n".join(f"{r['distance']},{r['hour']},UA,,False" for r in rows),
    }[form]
    file = tmp_path / "rows"
    file.write_text(text)
    answers = json.loads(predict(server, "--json", "delay", "--rows", str(file)))
    assert [round(answer["score"], 9) for answer in answers] == [0.1, 0.11, 0.12]


def test_a_refusal_ends_with_status_1(server: ServerTree) -> None:
    arguments = ["--url", server.url, "delay", "distance=far", *ROW[1:]]
    result = CliRunner().invoke(asking["predict"], arguments, obj=None)
    assert result.exit_code == 1
    assert "400" in result.output
    assert "distance" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["delay"],
        ["delay", "distance"],
        ["delay", "distanse=1"],
        ["delay", *ROW, "--at", "noon"],
        ["delay", *ROW, "--rows", "-"],
    ],
)
def test_wrong_usage_says_so(server: ServerTree, arguments: list[str]) -> None:
    with pytest.raises(BadInput):
        predict(server, *arguments)


def _up(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "instar.interfaces.cli.main", "up", "--port", "0"]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_a_server_whose_database_cannot_be_opened_says_so_and_gives_no_address(tmp_path: Path) -> None:
    (tmp_path / ".instar").mkdir()
    (tmp_path / ".instar" / "instar.db").write_bytes(b"this is no database" * 100)
    done = _up(tmp_path)
    assert done.returncode == 1
    assert "its database cannot be opened: file is not a database" in done.stderr
    assert "the server cannot start: its process control ended" in done.stderr
    assert "http://" not in done.stdout + done.stderr


def test_a_server_whose_database_server_is_away_says_so_without_the_password(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _up(tmp_path, INSTAR_DATABASE=f"postgresql://ada:secret@{address}/x")
    assert done.returncode == 1
    assert "its database cannot be reached" in done.stderr
    assert "secret" not in done.stderr
    assert "http://" not in done.stdout


def test_a_server_whose_control_process_ends_again_and_again_gives_up(tmp_path: Path) -> None:
    (tmp_path / ".instar" / "uploads" / "a folder where only files may lie").mkdir(parents=True)
    done = _up(tmp_path)
    assert done.returncode == 1
    assert "the server cannot start: its process control ended" in done.stderr
    assert "http://" not in done.stdout


CONTRACT = """
[project]
name = "small"
objective = "Test"
owner = "me"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
split = { by = "event_time", decide = "14d", judge = "14d" }
outcome = { due = "1d" }
"""


def test_up_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    (tmp_path / "pipeline.py").write_text("")
    command = [sys.executable, "-m", "instar.interfaces.cli.main", "up", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            found = wait_for(lambda: running(tmp_path / ".instar") or (process.poll() is not None and "ended"), 60)
            assert found != "ended", process.communicate()
            for path in ("/v2/health/ready", "/api/openapi.json"):  # the gateway's own, and the control process's
                wait_for(lambda path=path: httpx2.get(found.url + path, timeout=30).status_code == 200, 60)
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert found.url in out
    assert "drained" in out


def test_up_says_at_once_what_is_wrong_with_the_contract(tmp_path: Path) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT.replace("[project]", "[projekt]"))
    result = CliRunner().invoke(commands["up"], ["--port", "0"], obj=str(tmp_path))
    assert isinstance(result.exception, ContractError)
