"""A line in which the threads of one process wait to write to one SQLite file, first come, first served.

SQLite answers a second writer with "busy", and a thread that then sleeps and tries again may be late again and again. A
thread that stands in line is woken when its turn comes. Other processes are still met by SQLite's own lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instar.core.errors import StoreBusy, StoreError


class WriteLine:
    """One line; whoever has the turn is its only writer."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._writer: int | None = None  # the thread that has the turn

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Wait for the turn, and hold it for the block.

        Raises:
            StoreBusy: It did not come within so many seconds.
            StoreError: This thread has the turn already.
        """
        self._take(seconds)
        try:
            yield
        finally:
            self._pass_on()

    def _take(self, seconds: float) -> None:
        me = threading.get_ident()
        with self._mutex:
            if self._writer is None:
                self._writer = me
                return
            if self._writer == me:
                raise StoreError("a write began within a write of the same thread", subject="store")
            place = (me, threading.Lock())
            place[1].acquire()
            self._waiting.append(place)
        if not place[1].acquire(timeout=seconds):
            with self._mutex:
                if place in self._waiting:
                    self._waiting.remove(place)
                    raise busy(seconds)
                # Else the turn came just now.

    def _pass_on(self) -> None:
        with self._mutex:
            if not self._waiting:
                self._writer = None
                return
            self._writer, door = self._waiting.popleft()  # the turn never falls free, so nobody can push in
            door.release()


def busy(seconds: float) -> StoreBusy:
    """The error of a writer that has waited for so long in vain."""
    return StoreBusy(
        f"others have been writing for more than {seconds:.0f} s",
        subject="store",
        next_step="Wait for the other command to end, or end it, and try again; nothing was written.",
    )


def line_of(path: Path) -> WriteLine:
    """The line of a file: one in the process, however often the file is opened."""
    with _mutex:
        return _lines.setdefault(str(path.absolute()), WriteLine())


_mutex = threading.Lock()
_lines: dict[str, WriteLine] = {}


def _forget() -> None:
    # A fork copies locks as they stand, but not the threads that would release them.
    global _mutex
    _mutex = threading.Lock()
    _lines.clear()


os.register_at_fork(after_in_child=_forget)
