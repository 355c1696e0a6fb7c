"""The root's ear: a Unix socket on which gateways and workers of a running server speak to it (`needs.py`).

The root watches over everything, so it waits for nobody: it reads what is there, and whoever does not read what it is
told is hung up, comes again, and is told everything anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from instar.serve.processes.needs import LINE_LIMIT_BYTES, FromRoot, ToRoot, encode, to_root

RECEIVE_BYTES = 262_144
BACKLOG = 128

_log = logging.getLogger("instar.serve")


class RootSocket:
    """The socket and the lines on it.

    Args:
        path: In the run folder, where only the owner may enter.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        os.chmod(path, 0o600)
        self._listening.listen(BACKLOG)
        self._listening.setblocking(False)
        self._lines: dict[int, _Line] = {}

    def filenos(self) -> list[int]:
        """What to wait for."""
        return [self._listening.fileno(), *self._lines]

    def hear(self, readable: set[int]) -> Iterator[tuple[int, ToRoot | None]]:
        """What was said on which line; None when its end is new: it wants to be told everything, or it has gone."""
        if self._listening.fileno() in readable:
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted, _ = self._listening.accept()
                    accepted.setblocking(False)
                    self._lines[accepted.fileno()] = _Line(accepted)
                    yield accepted.fileno(), None
        for fd in readable & set(self._lines):
            line = self._lines.get(fd)
            if line is None:
                continue  # hung up meanwhile
            try:
                for message in line.read():
                    yield fd, message
            except (OSError, EOFError):
                self._hang_up(fd)
                yield fd, None
            except msgspec.DecodeError as problem:
                _log.error("what was told to the root is not its language: %s", problem)
                self._hang_up(fd)
                yield fd, None

    def has(self, fd: int) -> bool:
        """Is that line still there?"""
        return fd in self._lines

    def tell(self, message: FromRoot, fd: int | None = None) -> None:
        """Tell one line, or all."""
        data = encode(message)
        for one in [fd] if fd is not None else list(self._lines):
            line = self._lines.get(one)
            if line is not None and not line.write(data):
                self._hang_up(one)

    def close(self) -> None:
        """Hang up on all."""
        for fd in list(self._lines):
            self._hang_up(fd)
        self._listening.close()
        self._path.unlink(missing_ok=True)

    def _hang_up(self, fd: int) -> None:
        line = self._lines.pop(fd, None)
        if line is not None:
            line.socket.close()


class _Line:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""

    def read(self) -> Iterator[ToRoot]:
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data or len(self._rest) > LINE_LIMIT_BYTES:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield to_root.decode(line)

    def write(self, data: bytes) -> bool:
        try:
            return self.socket.send(data) == len(data)
        except OSError:
            return False
