"""Signals that ask a training to go, as Kubernetes, Slurm and supervisors send them: its runs end before it does.

Without this such a process dies in the middle, and nobody knows whether it was told to. A handler of the user's own is
called as before, and decides; where there was none, the process ends by the signal, as before, once its runs have ended.
SIGTERM, and SIGHUP of a terminal that closes, are heard in the main thread, as Ctrl-C is: a call into C
comes to its end first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import types
from collections.abc import Callable
from typing import Any

ASKED = (signal.SIGTERM, signal.SIGHUP)
WAIT_SECONDS = 5.0  # for the last records of all runs together; a supervisor kills 10 to 30 seconds after it asked

_before: dict[int, Any] = {}  # what each signal did before, while we listen
_stop: Callable[[str, float], None] | None = None
_taken = ""  # name of the signal that came


def listen(stop: Callable[[str, float], None]) -> None:
    """Have `stop` called before a signal ends the process; in the main thread only, elsewhere nothing changes.

    A signal that is ignored, or that something other than Python handles, is left alone.

    Args:
        stop: Given the signal's name, and the moment of the monotonic clock until which it may wait.
    """
    global _stop
    _stop = stop
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ASKED:
        now = signal.getsignal(number)
        if now is not _heard and now not in (None, signal.SIG_IGN):
            with contextlib.suppress(ValueError):  # not the main interpreter
                signal.signal(number, _heard)
                _before[number] = now


def cease() -> None:
    """Put back what was there before, unless somebody has put something else there meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, before in list(_before.items()):
        if signal.getsignal(number) is _heard:
            signal.signal(number, before)
        del _before[number]


def taken() -> str:
    """The name of the signal that asked this process to go; empty when none did."""
    return _taken


def _heard(number: int, frame: types.FrameType | None) -> None:
    global _taken
    before, name = _before.get(number, signal.SIG_DFL), signal.Signals(number).name
    _taken = name
    if callable(before):
        before(number, frame)
        return
    signal.signal(number, signal.SIG_DFL)  # who asks a second time does not want to wait
    if _stop is not None:
        _stop(name, time.monotonic() + WAIT_SECONDS)
    signal.raise_signal(number)
    os._exit(128 + number)  # the first process of a container does not die of a signal that it does not handle


def _before_fork() -> None:
    # A signal that reaches a child before Python is ready in it is lost, if Python handles it: `Process.terminate` right
    # after `start` would be waited for in vain. It waits until the child does again what it would without us.
    if _before:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)


def _in_parent() -> None:
    if (mask := _forking.__dict__.pop("mask", None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    global _taken
    _taken = ""
    cease()  # the runs are its parent's
    _in_parent()


_forking = threading.local()
os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
