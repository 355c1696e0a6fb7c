"""Processes below the root while a server runs: started, looked after, started again when they end, and their cost counted."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from instar.serve.processes.leftovers import end_leftovers
from instar.serve.processes.zygote import die_with_parent

BACKOFF_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)  # between restarts of a process that dies young
YOUNG_SECONDS = 5.0
POLL_SECONDS = 0.005
KILLED_BY = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGABRT: "an abort",
    signal.SIGBUS: "a bus error",
    signal.SIGILL: "an illegal instruction",
    signal.SIGFPE: "an arithmetic fault",
    signal.SIGKILL: "killed, as the system does when memory runs out",
}

_log = logging.getLogger("instar.serve")


@dataclass
class Process:
    """One process that is our child, whoever started it.

    Attributes:
        code: Its exit status, negative for a signal; None while it runs.
        cpu_seconds: What it used in all, with what it left behind, known once it has ended.
        mark: Of a worker or a model's process: what it leaves behind is ended with it (`leftovers`). Empty: that stays.
    """

    pid: int
    started: float = field(default_factory=time.monotonic)
    code: int | None = None
    cpu_seconds: float = 0.0
    mark: str = ""

    @classmethod
    def start(
        cls,
        command: list[str],
        fds: tuple[int, ...] = (),
        environment: Mapping[str, str] | None = None,
        mark: str = "",
    ) -> Process:
        """Start a command that ends with the thread that calls this; variables are our own if none are given."""
        process = subprocess.Popen(
            command, pass_fds=fds, stdin=subprocess.DEVNULL, env=None if environment is None else dict(environment),
            preexec_fn=die_with_parent, start_new_session=True,
        )  # fmt: skip
        process.returncode = 0  # it is waited for by its number, not by this object
        return cls(process.pid, mark=mark)

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.code is None:
            left = 0.0
            try:
                if self.mark and _has_ended(self.pid):
                    left = end_leftovers(
                        self.pid, self.mark
                    )  # before it is waited for: until then its number is its own
                pid, status, used = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # not ours any more: it is gone, and how is not known
                self.code = 1
                return self.code
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = used.ru_utime + used.ru_stime + left
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, deadline: float) -> bool:
        """Wait for its end, and end it by force after the deadline; False if that was needed."""
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if self.poll() is not None:
            return True
        self.signal(signal.SIGKILL)
        while self.poll() is None:
            time.sleep(POLL_SECONDS)
        return False


def _has_ended(pid: int) -> bool:
    """Has a child ended, which is not waited for by this?"""
    if sys.platform != "linux":
        return False
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@dataclass
class Child:
    """One process of the tree that must be there: it is replaced when it ends.

    Attributes:
        ended: Called with each process that has ended.
    """

    name: str
    command: list[str]
    fds: tuple[int, ...] = ()
    ended: Callable[[str, Process], object] | None = None
    process: Process | None = None
    deaths: int = 0
    next_start: float = 0.0
    last_code: int | None = None
    ends: int = 0

    def tend(self) -> None:
        """Start it when it does not run and its pause is over."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self.deaths = self.deaths + 1 if now - self.process.started < YOUNG_SECONDS else 1
            self.next_start = now + pause_after(self.deaths)
            if self.ended is not None:
                self.ended(self.name, self.process)
            self.process, self.last_code, self.ends = None, code, self.ends + 1
            _log.warning("%s ended with %s; starting it again", self.name, reason_of(code))
        if now >= self.next_start:
            self.process = Process.start(self.command, self.fds)

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.process is not None:
            self.process.signal(number)

    def wait(self, deadline: float) -> None:
        """Wait for its end, and end it by force after the deadline."""
        if self.process is not None and not self.process.wait(deadline):
            _log.warning("%s did not end in time; killed", self.name)


def pause_after(deaths: int) -> float:
    """Seconds until the next start of what died young so often."""
    return BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS)) - 1]


def reason_of(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"status {code}"
    number = signal.Signals(-code)
    return f"signal {-code} ({KILLED_BY.get(number, number.name)})"


def bury_strangers(known: set[int]) -> None:
    """Wait for ended processes that became ours when their parent ended, so that none stays as a zombie."""
    if sys.platform != "linux":
        return
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        os.waitpid(found.si_pid, 0)
