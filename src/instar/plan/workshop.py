"""Step processes, as a walk sees them: begins attempts in processes of their own, hears how they go, and ends them.

A process is started for a walk when the first attempt wants one (`zygote.py`); closing the workshop leaves no process.
"""

from __future__ import annotations

import ast
import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from instar.core.errors import StepFailed
from instar.plan.attempts import Work
from instar.plan.place import END, KEEP, Channel, Place, Report, Setup

LAST_SECONDS = 10.0  # for outputs that are being kept when the walk is interrupted


class Workshop:
    """The step processes of one walk.

    Args:
        place: How such a process opens the store and the project.
        texts: The project's files as they were imported.
        cold: Start each process anew instead of forking it.
    """

    def __init__(self, place: Place, texts: Mapping[str, str], cold: bool = False) -> None:
        self._setup = Setup(place, dict(texts), installed_imports(texts), cold)
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.running: set[str] = set()  # executions
        self.keeping: set[str] = set()  # those whose function has returned, and whose output is being kept

    def begin(self, work: Work) -> None:
        """Begin an attempt."""
        if self._channel is None:
            self._start()
        assert self._channel is not None
        self._channel.send(work)
        self.running.add(work.execution.id)

    def keep(self, execution: str) -> None:
        """Let an attempt whose function has returned keep its output."""
        self.keeping.add(execution)
        self._say(execution, KEEP)

    def end(self, execution: str) -> None:
        """End an attempt; it reports to be gone."""
        self._say(execution, END)

    def hear(self, timeout_seconds: float | None) -> Report | None:
        """The next thing that an attempt says; None when the time is over first.

        Raises:
            StepFailed: The process that they were forked from is gone, and all of them with it.
        """
        assert self._channel is not None
        if not select.select([self._channel.line], [], [], timeout_seconds)[0]:
            return None
        try:
            report: Report = self._channel.receive()
        except EOFError:
            self.running.clear()
            self.keeping.clear()
            raise StepFailed(
                "the process that runs its steps ended",
                subject="the pipeline",
                next_step="See the system's log: it may have run out of memory. The same command continues.",
            ) from None
        if report.word in ("done", "raced", "failed", "gone"):
            self.running.discard(report.execution)
            self.keeping.discard(report.execution)
        return report

    def finish_keeping(self) -> list[Report]:
        """End every attempt but those whose output is being kept, and hear how these end."""
        for execution in self.running - self.keeping:
            self.end(execution)
        heard: list[Report] = []
        deadline = time.monotonic() + LAST_SECONDS
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(StepFailed):
                report = self.hear(deadline - time.monotonic())
                if report is not None:
                    heard.append(report)
        return heard

    def close(self) -> None:
        """End what still runs."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.wait()
        self._channel = self._process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "instar.plan.zygote", str(theirs.fileno())]
        # A session of its own: Ctrl-C is for this process, which ends the others in good order.
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._channel = Channel(ours)
        self._channel.send(self._setup)

    def _say(self, execution: str, word: str) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError):  # it is gone, which is heard next
            self._channel.send((execution, word))


def installed_imports(texts: Mapping[str, str]) -> tuple[str, ...]:
    """Modules that project files import at their top and that are not of the project, by their syntax alone."""
    found: dict[str, None] = {}
    own = {path.rpartition("/")[2].removesuffix(".py") for path in texts}
    own |= {path.split("/")[-2] for path in texts if "/" in path}
    for text in texts.values():
        with contextlib.suppress(SyntaxError):
            for statement in ast.parse(text).body:
                if isinstance(statement, ast.Import):
                    found.update(dict.fromkeys(alias.name for alias in statement.names))
                elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                    found[statement.module] = None
    return tuple(name for name in found if name.partition(".")[0] not in own)
