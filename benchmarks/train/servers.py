"""The servers that are measured: Instar as a person starts it, MLflow as it comes and at its best, and one that does nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
START_SECONDS = 600.0

INSTAR, DEFAULT, BEST, NOTHING = "instar", "mlflow", "mlflow at its best", "nothing"


@dataclass(frozen=True)
class Server:
    """One that runs.

    Attributes:
        started_seconds: From the command to its first answer.
        folder: Where it keeps everything.
    """

    name: str
    url: str
    pid: int
    started_seconds: float
    folder: Path


@contextmanager
def instar(folder: Path, database: str | None = None, name: str = INSTAR) -> Iterator[Server]:
    """`instar up` in an empty folder.

    Args:
        database: URL of a PostgreSQL database; SQLite without it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "instar.interfaces.cli.main", "up", "--port", str(port)]
    environment = {**os.environ, **({"INSTAR_DATABASE": database} if database else {})}
    environment.pop("INSTAR_STORE", None)
    with _running(command, folder, environment, name, port, "/version") as server:
        yield server


@contextmanager
def mlflow(folder: Path, *, best: bool = False) -> Iterator[Server]:
    """`mlflow server` on SQLite: its defaults, or one worker without its job runner, which is its fastest."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    database = f"sqlite:///{folder / 'mlflow.db'}"
    command = [str(CLIENTS), "-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", database]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_DISABLE_TELEMETRY": "true"}
    if best:
        command += ["--workers", "1"]
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with _running(command, folder, environment, BEST if best else DEFAULT, port, "/version") as server:
        yield server


@contextmanager
def nothing(folder: Path) -> Iterator[Server]:
    """The server that answers `{}`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "port"
    process = subprocess.Popen([sys.executable, str(HERE / "nothing.py"), str(place)])
    started = time.perf_counter()
    try:
        while not (place.exists() and place.read_text()):
            time.sleep(0.02)
        url = f"http://127.0.0.1:{place.read_text()}"
        _wait(url, "/", process)
        yield Server(NOTHING, url, process.pid, time.perf_counter() - started, folder)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _running(
    command: list[str], folder: Path, environment: dict[str, str], name: str, port: int, path: str
) -> Iterator[Server]:
    url = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait(url, path, process, log)
            yield Server(name, url, process.pid, time.perf_counter() - started, folder)
        finally:
            _end(process)


def _wait(url: str, path: str, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    deadline = time.perf_counter() + START_SECONDS
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url + path, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.01)
    last = log.read_text(errors="replace")[-2000:] if log is not None else ""
    raise SystemExit(f"{url} did not come up:\n{last}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it started: MLflow leaves workers behind when only its first process ends."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
