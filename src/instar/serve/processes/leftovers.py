"""What a worker process leaves behind when it is killed: found and ended by the root, as soon as the worker's end is seen.

A process belongs to a worker if it is in the worker's session, or carries the worker's mark among its variables. Both are
inherited: the first by all that it forks, also without a program of its own; the second by a program that began a session
of its own. Nobody else has either: a session keeps its leader's number from being given away, and the mark is a path.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from instar.serve.processes.measuring import TICK

MARK = "INSTAR_WORKER"  # the variable with the path of the worker's socket
_NO_SESSION = -1
MOST_LOOKS = 10  # what forks faster than it is found is not followed for ever


def end_leftovers(leader: int, mark: str = "") -> float:
    """Kill all that belongs to a worker that has ended and was not waited for yet; returns the processor seconds of these.

    Args:
        leader: Number of the worker's process, which leads a session.
        mark: The worker's.
    """
    used: dict[int, float] = {}
    for _ in range(MOST_LOOKS if sys.platform == "linux" else 0):
        found = {pid: seconds for pid, seconds in _belonging(leader, mark.encode()) if pid not in used}
        if not found:
            break
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        used |= found
    return sum(used.values())


def end_marked(mark: str) -> None:
    """Kill all that carries a mark, where the process that was given it has been waited for."""
    end_leftovers(_NO_SESSION, mark)


def _belonging(leader: int, mark: bytes) -> Iterator[tuple[int, float]]:
    """Processes, also those that have ended and were not waited for, with the processor seconds of each."""
    wanted = b"%s=%s" % (MARK.encode(), mark)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in (leader, os.getpid()):
            continue
        try:
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it is gone
            continue
        marked = False
        if mark:
            with contextlib.suppress(OSError):  # it has ended, is another user's, or hides them: its session we know
                marked = wanted in (process / "environ").read_bytes().split(b"\0")
        if marked or int(fields[3]) == leader:
            yield int(process.name), sum(map(int, fields[11:15])) / TICK
