"""A program that serves a model, as a child of the process that asks it: started, waited for, heard, ended.

It listens on loopback at a port that we choose, and learns it from `INSTAR_PORT` and `{port}`. It ends with us, also when we are
killed; what it prints goes to the server's log under its name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO

from instar.core.errors import Unavailable
from instar.serve.processes.children import reason_of
from instar.serve.processes.leftovers import MARK
from instar.serve.processes.zygote import die_with_parent
from instar.serve.worker.commands import listeners
from instar.serve.worker.commands.line import Line

HOST = "127.0.0.1"
LAST_LINES = 5  # of what it printed, kept for errors
LONGEST_LINE = 4000
POLL_SECONDS = (0.005, 0.1)  # between two looks whether it is ready: the first and the longest
END_SECONDS = 2.0


class Child:
    """A running program.

    Args:
        title: What its lines in the log begin with, and errors name.
        folder: In which it is started.
        name: Of its model.
    """

    def __init__(
        self, title: str, command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str]
    ) -> None:
        self.title = title
        self.port = _free_port()
        self._name = name
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        values = {"port": str(self.port), "model": name, "folder": str(folder)}
        full = [_filled(part, values) for part in command]
        try:
            self._process = subprocess.Popen(
                full, cwd=folder, env=_environment(environment, self.port, name), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=die_with_parent, process_group=0,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as problem:
            raise Unavailable(
                f"its command {full[0]} cannot be started", subject=title, found=str(problem),
                next_step="Install it here; if it lies in a user's folder, name that folder in INSTAR_FENCE_READ.",
            ) from problem  # fmt: skip
        assert self._process.stdout is not None
        self._swept = False
        self._pump = threading.Thread(target=self._log, args=(self._process.stdout,), daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        """Its process, which leads a group of its own."""
        return self._process.pid

    def ended(self) -> str:
        """How it ended, with its last words; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        self._end_rest()
        self._pump.join(0.5)
        return f"{reason_of(code)}{self.words()}"

    def ended_soon(self, seconds: float) -> str:
        """As `ended`, when it may be about to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.ended()

    def words(self) -> str:
        """Its last lines, for an error."""
        return f"; its last words: {' | '.join(self._last)}" if self._last else ""

    def wait_ready(self, seconds: float) -> None:
        """Wait until it says that it is ready; it is ended when it is not.

        Raises:
            Unavailable: It ended, or took too long.
        """
        until, pause = time.monotonic() + seconds, POLL_SECONDS[0]
        told = "it does not listen"
        while True:
            found = self.ended()
            if found:
                self.end()
                raise Unavailable("its command ended before it was ready", subject=self.title, found=found)
            told = self._asked(min(2.0, seconds)) if _listens(self.port) else told
            if not told:
                # Between our choice of the port and its use another program may have taken it, and would answer in our name.
                if listeners.held_by(self.port, self._process.pid) is not False:
                    return
                told = "another program listens at its port"
            if time.monotonic() > until:
                self.end()
                raise Unavailable(
                    f"its command was not ready within {seconds:g} s", subject=self.title, found=told + self.words(),
                    asked=f"200 of GET /v2/health/ready at port {self.port} of {HOST}",
                    next_step="Have it listen at INSTAR_PORT, or raise start_seconds in model.toml.",
                )  # fmt: skip
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])

    def end(self) -> None:
        """End it and all that it started."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self._end_rest()
        self._process.wait()
        self._pump.join(0.5)

    def _end_rest(self) -> None:
        """Kill what is left of its group, once: a shell may be gone and the server that it started still there.

        While one of a group lives, its number is nobody else's; so this comes right after its leader was waited for.
        """
        if not self._swept:
            self._swept = True
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _asked(self, seconds: float) -> str:
        """Why it is not ready yet; empty if it is. Who does not know the server's readiness may know the model's."""
        told = ""
        for path in ("/v2/health/ready", f"/v2/models/{self._name}/ready"):
            try:
                with Line(HOST, self.port, seconds) as line:
                    status = line.ask("GET", path).status
            except (OSError, HTTPException) as problem:
                return f"{path}: {problem or type(problem).__name__}"
            if status == 200:
                return ""
            told = f"status {status} of {path}"
        return told

    def _log(self, lines: IO[bytes]) -> None:
        with lines:
            for line in iter(lambda: lines.readline(LONGEST_LINE), b""):
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._last.append(text[:300])
                    with contextlib.suppress(OSError, ValueError):
                        print(f"{self.title}: {text}", file=sys.stderr, flush=True)


def _filled(part: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        part = part.replace(f"{{{name}}}", value)
    return part


def _environment(more: Mapping[str, str], port: int, name: str) -> dict[str, str]:
    """Of the server's variables those that are not its own: its settings hold secrets."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INSTAR_")}
    kept |= {MARK: os.environ[MARK]} if MARK in os.environ else {}  # with a group of its own it stays in our session
    return {
        **kept, "PYTHONDONTWRITEBYTECODE": "1", **more, "INSTAR_PORT": str(port), "INSTAR_MODEL": name,
        "TMPDIR": tempfile.gettempdir(),
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 0.5):
        return True
    return False
