"""The process that steps' processes are forked from while a walk runs: it has imported what they need, and run nothing.

A fork of a process whose Polars or OpenMP threads have started waits for ever for threads that are not there, so a server
or a notebook is never forked. This process is started afresh for a walk, imports the libraries of the project's files, and
forks one child for each attempt; the child imports the project's own files, opens the store, and runs one step.

    python -m instar.plan.zygote DESCRIPTOR             # of a socket to the walk's process; its end is our end

Where forking is not sound (not on Linux, or a library began its threads while it was imported) each child is started anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import random
import select
import selectors
import signal
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from instar.core.errors import InstarError, StepFailed
from instar.plan import output
from instar.plan.attempts import Work, attempt
from instar.plan.pipeline import Pipeline
from instar.plan.place import KEEP, Channel, Report, Setup

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_POOLS = ("polars-0", "rayon-worker-0")  # threads whose pool a fork would lose


def main() -> None:
    """Serve one walk, or one step of it when the setup and the work come together."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with contextlib.suppress(EOFError):  # the walk has ended
        setup: Setup = channel.receive()
        if "--one" in sys.argv:
            _work(channel, setup, channel.receive())
            return
        for module in (*setup.place.modules, *setup.modules):
            # What cannot be imported fails in the step that needs it, with its own words.
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        cold = setup.cold or sys.platform != "linux" or _has_pools()
        Zygote(channel, replace(setup, cold=cold)).serve()


class Zygote:
    """Begins and ends the processes of steps, and passes on what they say."""

    def __init__(self, channel: Channel, setup: Setup) -> None:
        self._channel, self._setup = channel, setup
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel.line, selectors.EVENT_READ)
        self._children: dict[str, _Child] = {}

    def serve(self) -> None:
        """Until the walk's process closes its end, or is gone; then no child is left."""
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data is None:
                        self._hear()
                    elif key.data in self._children:
                        self._pass_on(key.data, dead=key.fd == self._children[key.data].exit)
        finally:
            for execution in list(self._children):
                self._end(execution)

    def _hear(self) -> None:
        message = self._channel.receive()
        if isinstance(message, Work):
            self._begin(message)
            return
        execution, word = message
        if execution not in self._children:
            return
        if word == KEEP:
            with contextlib.suppress(OSError):  # it is gone, and that is said next
                self._children[execution].line.send(KEEP)
        else:
            self._kill(execution)

    def _begin(self, work: Work) -> None:
        ours, theirs = socket.socketpair()
        line = Channel(ours)
        if self._setup.cold:
            pid = _started(theirs, work.log)
            line.send(self._setup)
            line.send(work)
        else:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._forget_all()
                _alone(Channel(theirs), self._setup, work)
        theirs.close()
        # Its end shows by itself, too: what it started may hold its side of the line open for longer than it lives.
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        self._children[work.execution.id] = _Child(pid, line, handle)
        for watched in (ours, handle):
            if watched is not None:
                self._selector.register(watched, selectors.EVENT_READ, work.execution.id)

    def _forget_all(self) -> None:
        """In a child: let go of what belongs to the zygote, so that ends of others are seen as ends."""
        self._selector.close()
        self._channel.close()
        for child in self._children.values():
            child.line.close()
            if child.exit is not None:
                os.close(child.exit)

    def _pass_on(self, execution: str, dead: bool) -> None:
        """Pass on what a child says, and at last that it is gone."""
        line = self._children[execution].line
        try:
            while not dead or select.select([line.line], [], [], 0)[0]:
                self._tell(line.receive())
                if not dead:
                    return
        except EOFError:
            pass
        self._tell(Report(execution, "gone", self._end(execution)))

    def _tell(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: the next message is the end
            self._channel.send(report)

    def _kill(self, execution: str) -> None:
        """End a child and all that it started; what it says last is its end."""
        pid = self._children[execution].pid
        for end in (os.killpg, os.kill):  # it may not have made its own group yet
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(pid, signal.SIGKILL)

    def _end(self, execution: str) -> int:
        self._kill(execution)
        child = self._children.pop(execution)
        self._selector.unregister(child.line.line)
        child.line.close()
        if child.exit is not None:
            self._selector.unregister(child.exit)
            os.close(child.exit)
        return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


class _Child(NamedTuple):
    """A running attempt's process: its number, the line to it, and a descriptor that tells its end, where there are such."""

    pid: int
    line: Channel
    exit: int | None


def _started(line: socket.socket, log: Path | None) -> int:
    """A child that is not forked."""
    command = [sys.executable, "-m", "instar.plan.zygote", str(line.fileno()), "--one"]
    process = subprocess.Popen(command, pass_fds=[line.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)
    process.returncode = 0  # it is waited for by its number, not by this object
    return process.pid


def _alone(channel: Channel, setup: Setup, work: Work) -> None:
    """All that a forked child does; it never returns."""
    status = 1
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        # Two children of one process must not draw the same numbers.
        random.seed()
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()
        _work(channel, setup, work)
        status = 0
    except EOFError:  # the walk's process is gone
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _work(channel: Channel, setup: Setup, work: Work) -> None:
    """Make one attempt and say how it went."""
    id_ = work.execution.id

    def may_keep() -> None:
        channel.send(Report(id_, "ran"))
        channel.receive()

    try:
        catch = output.captured(work.log, True) if work.log else contextlib.nullcontext()
        with catch, setup.place.open(setup.texts, lambda pipeline: _fitted(pipeline, work)) as bench:
            channel.send(Report(id_, "began"))
            own = replace(work, step=bench.pipeline.steps[work.step.name])
            stored = attempt(bench.project, bench.pipeline, bench.kinds, own, may_keep)
        report = Report(id_, "done", stored) if stored else Report(id_, "raced")
    except EOFError:
        raise
    except InstarError as error:
        report = Report(id_, "failed", _plain(error))
    except BaseException as error:
        failed = StepFailed(f"{type(error).__name__}: {error}", subject=f"step {work.step.name}")
        report = Report(id_, "failed", failed)
    channel.send(report)


def _fitted(pipeline: Pipeline, work: Work) -> Pipeline:
    """The pipeline with the step as the walk has it: its parameters may be held, and its search left out."""
    found = pipeline.step(work.step.name)
    held = replace(work.step, function=found.function)
    return replace(pipeline, steps={**pipeline.steps, found.name: held})


def _plain(error: InstarError) -> InstarError:
    """The error with facts that can be handed on; its text stays the same."""
    found = None if error.found is None else str(error.found)
    asked = None if error.asked is None else str(error.asked)
    return type(error)(error.what, subject=error.subject, found=found, asked=asked, next_step=error.next_step)


def _has_pools() -> bool:
    """Have threads begun that a fork would lose?"""
    names = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            names.add((task / "comm").read_text().strip())
    return any(pool in names for pool in _POOLS)


if __name__ == "__main__":
    main()
