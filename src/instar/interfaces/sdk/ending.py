"""The ends of runs that nobody ends: the interpreter ends, an exception leaves the script, or somebody presses Ctrl-C.

At the end of the interpreter each open run is ended, failed when an exception or `sys.exit` with a status ended the script.
A process that is asked to go by a signal ends its runs as killed first (`signals.py`). One that dies at once cannot say
anything: its run is shown as abandoned when its spool is delivered, or when nothing is heard of it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import types
import weakref
from typing import Any, NoReturn, Protocol

from instar.interfaces.sdk import signals

KILLED, FAILED, FINISHED = "killed", "failed", "finished"


class Open(Protocol):
    """A run that has not ended."""

    def _end(self, state: str, error: str | None, within: float | None = None) -> None: ...


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_last: tuple[str, str] | None = None  # state and error with which the script ends
_watching = 0  # the process that watches; a forked child is another


def watch(run: Open) -> None:
    """See to it that the run ends with the interpreter."""
    global _watching
    _open.add(run)
    if _watching != os.getpid():
        if _watching == 0:
            atexit.register(_at_exit)
            _chain_hooks()
        _watching = os.getpid()
    signals.listen(_stopped)


def forget(run: Open) -> None:
    """It has ended."""
    _open.discard(run)
    if not _open:
        signals.cease()


def state_of(error: BaseException) -> tuple[str, str | None]:
    """State and error of a run that an exception leaves.

    An exit after a signal that asked for it is no failure and no success, whatever its status: the run is killed.

    >>> state_of(SystemExit(0)), state_of(KeyboardInterrupt()), state_of(ValueError("no rows"))
    (('finished', None), ('killed', 'KeyboardInterrupt'), ('failed', 'ValueError: no rows'))
    """
    if isinstance(error, SystemExit):
        asked = signals.taken()
        if asked:
            return KILLED, asked
        if error.code in (None, 0):
            return FINISHED, None
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (KILLED if isinstance(error, KeyboardInterrupt) else FAILED), text


def _chain_hooks() -> None:
    """Learn how the script ends; what was there before is called as before."""
    hook, leave = sys.excepthook, sys.exit

    def excepthook(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        _note(error)
        hook(kind, error, trace)

    def exit(status: Any = None, /) -> NoReturn:
        _note(SystemExit(status))
        leave(status)

    sys.excepthook = excepthook
    sys.exit = exit


def _note(error: BaseException) -> None:
    global _last
    state, text = state_of(error)
    _last = (state, text or "")


def _stopped(name: str, deadline: float) -> None:
    """A signal ends the process: its runs are killed, and what they logged is delivered until then, or stays in the spool."""
    for run in list(_open):
        with contextlib.suppress(Exception):  # whatever it is, the process goes
            run._end(KILLED, name, max(0.0, deadline - time.monotonic()))


def _at_exit() -> None:
    state, error = _last or (FINISHED, "")
    for run in list(_open):
        run._end(state, error or None)
