"""How often callers may call, over all processes of one server: a page of memory that they share, at each call with a rate.

A caller has one number there, the moment until which its calls are used up (the generic cell rate algorithm, ITU-T I.371): a call
moves it on by one over the rate, and may come while it is less than a burst ahead. So it does not matter which process answers.

    rates = Rates(rates_file(store_folder))
    rates.take(key_of(token), 100.0, time.time())     # -> 0.0: it may call; else seconds until it may
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
from hashlib import blake2b
from pathlib import Path

from instar.serve.traffic.routes import serve_folder

BURST_SECONDS = 1.0  # of calls that a caller may save up
SLOTS = 16_384
PROBES = 16  # slots in which a caller may have its place; the one used longest ago makes room
# To have the page alone: others hold it for microseconds, and one that was stopped meanwhile must stop nobody.
TRIES = 64

_entry = struct.Struct("<Qd")  # a caller's key, 0 for none, and its moment, seconds since 1970
_SIZE = SLOTS * _entry.size

_log = logging.getLogger("instar.serve")


class Rates:
    """The page. Where it cannot be shared it is this process's own, which is said once.

    Args:
        file: That all processes of the server map.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._page: mmap.mmap | None = None
        self._fd = -1

    def take(self, key: int, rate: float, now: float) -> float:
        """Count a call of a caller with a rate (calls a second); returns 0.0, or the seconds after which it may call."""
        page = self._page or self._open()
        alone = self._fd >= 0 and self._hold()
        try:
            at, until = self._place(page, key)
            step = 1.0 / rate
            ahead = max(BURST_SECONDS, step)
            if until > now + ahead + step:  # the clock went back
                until = now
            until = max(until, now) + step
            if until > now + ahead + 1e-9:
                return until - now - ahead
            _entry.pack_into(page, at, key, until)
            return 0.0
        finally:
            if alone:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1)

    def close(self) -> None:
        """Let go of the page."""
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _place(self, page: mmap.mmap, key: int) -> tuple[int, float]:
        """Where a caller's number is, and the number; a new one has none yet."""
        oldest, where = float("inf"), 0
        for probe in range(PROBES):
            at = (key + probe) % SLOTS * _entry.size
            found, until = _entry.unpack_from(page, at)
            if found == key:
                return at, until
            if not found:
                return at, 0.0
            if until < oldest:
                oldest, where = until, at
        return where, 0.0

    def _open(self) -> mmap.mmap:
        try:
            self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(self._fd, 0, _SIZE)  # a hole that a full disk cannot fill would end the process
            self._page = mmap.mmap(self._fd, _SIZE)
        except OSError as problem:
            _log.error("rates of callers hold in each process alone: %s", problem)
            self._page = mmap.mmap(-1, _SIZE)
        return self._page

    def _hold(self) -> bool:
        for _ in range(TRIES):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                return True
            except BlockingIOError:
                continue
        return False


def key_of(token: str) -> int:
    """The number by which a caller has its place."""
    return int.from_bytes(blake2b(token.encode(), digest_size=8).digest(), "little") or 1


def rates_file(store_folder: Path) -> Path:
    """The file of the page that a store's server shares."""
    return serve_folder(store_folder) / "rates"
