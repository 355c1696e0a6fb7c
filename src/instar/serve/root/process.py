"""Starting and finding a server from a program: `instar up`, the demo and tests use it.

    with ServerTree.start(store.folder) as server:
        httpx2.get(server.url + "/v2/health/ready")

The server is a process of its own (`supervisor.py`) with its gateways, workers and control process below it; it ends when
the program that started it ends, in good order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from instar.core.errors import Unavailable
from instar.serve.traffic import routes

if TYPE_CHECKING:
    import http.client


ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who listens everywhere is reached here


class Running(msgspec.Struct, frozen=True):
    """What a root says of itself in `serve/server.json`."""

    pid: int
    host: str
    port: int
    grpc_port: int | None = None

    @property
    def url(self) -> str:
        host = ANY.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"


def running(store_folder: Path) -> Running | None:
    """The server that runs on a store; None when there is none."""
    folder = routes.serve_folder(store_folder)
    with contextlib.suppress(FileNotFoundError), (folder / "server.lock").open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                return msgspec.json.decode((folder / "server.json").read_bytes(), type=Running)
    return None


class ServerTree:
    """A server as a child of this program, which ends with it."""

    def __init__(self, process: subprocess.Popen[bytes], state: Running, log: Path) -> None:
        self._process = process
        self.state = state
        self.log = log

    @property
    def url(self) -> str:
        return self.state.url

    @property
    def port(self) -> int:
        return self.state.port

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        project: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        gateways: int = 1,
        grpc_port: int | None = None,
        durable: bool = True,
        control: bool = True,
        loader: str | None = None,
        timeout: float = 60.0,
        environment: dict[str, str] | None = None,
    ) -> ServerTree:
        """Start a server on a store and wait until it answers.

        Args:
            port: 0 takes any that is free.
            grpc_port: The second port, for gRPC; 0 takes any, None opens none.
            loader: `module:function` by which workers load bundles.
            timeout: Seconds until the gateway must answer.

        Raises:
            Unavailable: It did not come up; its log's last lines are in the message.
        """
        log = routes.serve_folder(folder) / "server.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "instar.serve.root.supervisor",
            "--folder",
            str(folder),
            "--host",
            host,
            "--port",
            str(port),
            "--watch-stdin",
        ]
        command += ["--gateways", str(gateways), "--record", "durable" if durable else "prompt"]
        command += ["--grpc-port", str(grpc_port)] if grpc_port is not None else []
        command += ["--project", str(project)] if project is not None else []
        command += ["--load", loader] if loader is not None else []
        command += [] if control else ["--no-control"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=None if environment is None else {**os.environ, **environment},
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and process.poll() is None:
            state = running(folder)
            if state is not None and state.pid == process.pid and ready(state, folder, control=control):
                return cls(process, state, log)
            time.sleep(0.02)
        if process.poll() is None:
            process.terminate()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise Unavailable(f"the server did not come up:\n{last}", subject=str(folder), next_step=f"See {log}.")

    def stop(self, timeout: float = 60.0) -> None:
        """Drain and end; idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        pipe = self._process.stdin
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if pipe is not None:
            pipe.close()

    def __enter__(self) -> ServerTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def ready(state: Running, store_folder: Path, *, control: bool, endpoints: bool = True) -> bool:
    """Does the server answer the API, if it has a control process, and, with `endpoints`, calls of every published endpoint?

    A gateway lives before it has read its routes, and the control process comes up after it: whoever asks in between
    would be told that nothing is there.
    """
    if control and not routes.control_socket(store_folder).exists():
        return False  # it is not there yet: no need to ask, and to take processor time from it
    import http.client  # what it brings in would hold up the start of the others

    connection = http.client.HTTPConnection(state.host, state.port, timeout=2.0)
    try:
        # The control process publishes routes before it answers, so it is asked first.
        if not _succeeds(connection, "/health" if control else "/v2/health/live"):
            return False
        if not endpoints or not routes.read_snapshot(store_folder).number:
            return True
        return _succeeds(connection, "/v2/health/ready")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _succeeds(connection: http.client.HTTPConnection, path: str) -> bool:
    connection.request("GET", path)
    reply = connection.getresponse()
    reply.read()
    return reply.status == 200
