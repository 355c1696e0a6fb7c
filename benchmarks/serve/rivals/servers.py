"""The servers of the comparison, each in an environment of its own with its best settings, started while it is measured.

Environments are made under `.venv-rivals/` when they are missing, from `requirements/NAME.txt`. MLflow lives in `.venv-clients`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / ".venv-rivals"
CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
SYSTEM_PYTHON = "/usr/bin/python3"
START_SECONDS = 120.0


@dataclass(frozen=True)
class Asked:
    """How a server is asked: the path, its health and the body for a number of rows."""

    path: str
    ready: str
    body: Callable[[list[float], int], bytes]


@dataclass(frozen=True)
class Rival:
    """One server.

    Attributes:
        environment: Folder under `.venv-rivals`; None for `.venv-clients`.
        portable: It answers with the ONNX model; else with the pickled one.
        command: From interpreter, the model's folder and port to the command line and further environment variables.
    """

    name: str
    environment: str | None
    portable: bool
    asked: Asked
    command: Callable[[Path, Path, int], tuple[list[str], dict[str, str]]]


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    pid: int
    started_seconds: float


def tensor(row: list[float], rows: int, datatype: str = "FP32", name: str = "input") -> bytes:
    """A body of the Open Inference Protocol with one tensor."""
    one = {"name": name, "shape": [rows, len(row)], "datatype": datatype, "data": row * rows}
    return json.dumps({"inputs": [one]}).encode()


def _table(row: list[float], rows: int) -> bytes:
    return json.dumps({"inputs": [row] * rows}).encode()


def _batch(row: list[float], rows: int) -> bytes:
    return json.dumps({"rows": [row] * rows}).encode()


def _doubles(row: list[float], rows: int) -> bytes:
    return tensor(row, rows, "FP64")


def _script(script: str) -> Callable[[Path, Path, int], tuple[list[str], dict[str, str]]]:
    return lambda python, folder, port: ([str(python), str(HERE / script), str(folder), str(port)], {})


def _mlserver(python: Path, folder: Path, port: int, model: dict[str, object]) -> tuple[list[str], dict[str, str]]:
    place = folder / f"mlserver-{port}"
    place.mkdir()
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0,
        "debug": False, "metrics_endpoint": None,
    }  # fmt: skip
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(json.dumps({"name": "model", **model}))
    return [str(python.with_name("mlserver")), "start", str(place)], {"PYTHONPATH": str(HERE)}


def _mlserver_onnx(python: Path, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    model = {"implementation": "mlserver_onnx.Answers", "parameters": {"uri": str(folder / "model.onnx")}}
    return _mlserver(python, folder, port, model)


def _mlserver_sklearn(python: Path, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    (folder / "model.joblib").write_bytes((folder / "model.pickle").read_bytes())
    model = {
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(folder / "model.joblib")},
        "max_batch_size": 64,
        "max_batch_time": 0.002,
    }
    return _mlserver(python, folder, port, model)


def _bento(python: Path, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    command = [
        str(python),
        "-m",
        "bentoml",
        "serve",
        "bento_service:Answers",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    return command, {"RIVAL_FOLDER": str(folder), "PYTHONPATH": str(HERE), "BENTOML_DO_NOT_TRACK": "true"}


def _mlflow(python: Path, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    place = folder / "mlflow"
    if not place.exists():
        save = "import mlflow.sklearn, pickle, sys; mlflow.sklearn.save_model(pickle.load(open(sys.argv[1], 'rb')), sys.argv[2])"
        subprocess.run(
            [str(python), "-c", save, str(folder / "model.pickle"), str(place)], check=True, capture_output=True
        )
    command = [
        str(python), "-m", "mlflow", "models", "serve", "-m", str(place), "--env-manager", "local", "--port", str(port),
        "--workers", "2",
    ]  # fmt: skip
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return command, {"PATH": path, "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_DISABLE_TELEMETRY": "true"}


_V2 = Asked("/v2/models/model/infer", "/v2/models/model/ready", tensor)

RIVALS = (
    Rival("MLServer, ONNX", "mlserver", True, _V2, _mlserver_onnx),
    Rival("KServe, ONNX, 2 workers", "kserve", True, _V2, _script("run_kserve.py")),
    Rival("Triton, ONNX", "triton", True, _V2, _script("run_triton.py")),
    Rival("LitServe, ONNX, 2 workers", "litserve", True, Asked("/predict", "/health", tensor), _script("run_litserve.py")),
    Rival("BentoML, ONNX, batching", "bentoml", True, Asked("/predict", "/readyz", _batch), _bento),
    Rival("Ray Serve, ONNX", "ray", True, Asked("/", "/-/healthz", tensor), _script("run_ray.py")),
    Rival(
        "MLServer, scikit-learn, batching", "mlserver", False,
        Asked("/v2/models/model/infer", "/v2/models/model/ready", _doubles), _mlserver_sklearn,
    ),
    Rival("MLflow, scikit-learn, 2 workers", None, False, Asked("/invocations", "/ping", _table), _mlflow),
)  # fmt: skip


def interpreter(rival: Rival) -> Path:
    """The interpreter of a rival's environment, which is made when it is missing."""
    if rival.environment is None:
        if not CLIENTS.exists():
            raise SystemExit("MLflow is measured from .venv-clients: `./run test --full` makes it")
        return CLIENTS
    return environment(rival.environment)


def environment(name: str) -> Path:
    """The interpreter of `.venv-rivals/NAME`, made when it is missing."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"making .venv-rivals/{name} (once) ...", file=sys.stderr, flush=True)
        # Triton's own process loads the system's libpython, so its packages must come from the system's Python.
        base = SYSTEM_PYTHON if name == "triton" and Path(SYSTEM_PYTHON).exists() else sys.executable
        uv, quiet = str(ROOT / ".venv" / "bin" / "uv"), {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", base, str(folder)], check=True, env=quiet)
        wanted = ["-r", str(HERE / "requirements" / f"{name}.txt"), "numpy", "scikit-learn"]
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *wanted], check=True, env=quiet)
        (folder / "made").touch()
    return python


@contextmanager
def running(rival: Rival, folder: Path) -> Iterator[Running]:
    """A rival that answers, ended with all its processes."""
    python = interpreter(rival)
    if not rival.portable:
        subprocess.run([str(python), str(HERE / "model.py"), str(folder)], check=True, capture_output=True)
    port = free_port()
    command, variables = rival.command(python, folder, port)
    # One thread a process for numerical libraries, as for all: on single rows they only wait for each other.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    started = time.perf_counter()
    log = folder / f"{rival.name.split(',')[0].lower().replace(' ', '-')}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**clean, "OMP_NUM_THREADS": "1", **variables}, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}{rival.asked.ready}", process, log)
        yield Running(f"http://127.0.0.1:{port}", process.pid, time.perf_counter() - started)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a rival and all that it started: they share its session."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2) as reply:
            if reply.status == 200:
                return
        time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise SystemExit(f"{url} does not answer:\n{last}")


def free_port() -> int:
    """A port with two free ones behind it, as far as can be told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65_000)
