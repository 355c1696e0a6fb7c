"""One kept-alive HTTP connection to a program on this machine: a request is one write, at the moment of a call.

Head and body in two writes, without TCP_NODELAY, is what makes many callers wait 40 ms for an answer: the second write waits
for the acknowledgement of the first, which the other side delays. Programs do that with answers, and some cannot be told
otherwise (plumber's server among them); so where the system has it (Linux) we ask that answers are acknowledged at once.

    with Line("127.0.0.1", 8080, seconds=10) as line:
        line.ask("GET", "/v2/health/ready").status      # -> 200
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import time
from dataclasses import dataclass
from typing import Any, cast

MOST_BYTES = 256 * 1024 * 1024  # of an answer

_ACKNOWLEDGE: int | None = getattr(socket, "TCP_QUICKACK", None)


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        kept: The other side keeps the connection.
    """

    status: int
    type: str
    body: bytes
    kept: bool

    def json(self) -> Any:
        """What its body says.

        Raises:
            ValueError: It is no JSON.
        """
        return json.loads(self.body)


class Line:
    """A connection, made when it is first needed and again after the other side closed it.

    Args:
        seconds: For each question, from its first byte to the answer's last.
        in_two: Send head and body in two segments, as clients do that know no better.
        at_once: Acknowledge answers at once.
    """

    def __init__(self, host: str, port: int, seconds: float, *, in_two: bool = False, at_once: bool = True) -> None:
        self._place = host, port
        self._seconds = seconds
        self._in_two = in_two
        self._at_once = at_once and _ACKNOWLEDGE is not None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open(self) -> bool:
        """Is there a connection?"""
        return self._socket is not None

    def ask(self, method: str, path: str, body: bytes | None = None) -> Said:
        """Ask once; the connection is closed when it fails.

        Raises:
            OSError: No connection, or it broke, or time was over (`TimeoutError`).
            http.client.HTTPException: What came is no HTTP.
        """
        until = time.monotonic() + self._seconds
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._place, self._seconds)
                # Also where a question goes out in two segments: then it is the other side alone that may wait.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(self._seconds)
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: {self._place[0]}:{self._place[1]}\r\nAccept: application/json\r\n"
            )
            if body is not None:
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            start = f"{head}\r\n".encode()
            if self._in_two and body:
                self._socket.sendall(start)
                self._socket.sendall(body)
            else:
                self._socket.sendall(start + (body or b""))
            if self._at_once and _ACKNOWLEDGE is not None:  # it holds for a while only
                self._socket.setsockopt(socket.IPPROTO_TCP, _ACKNOWLEDGE, 1)
            return self._hear(self._socket, method, until)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def stale(self) -> bool:
        """Has the other side hung up meanwhile, or said what nobody asked?"""
        if self._socket is None:
            return False
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _hear(self, connection: socket.socket, method: str, until: float) -> Said:
        timed = cast(socket.socket, _Timed(connection, until))  # all that is used of it is a file to read from
        with http.client.HTTPResponse(timed, method=method) as response:
            response.begin()
            parts: list[bytes] = []
            size = 0
            while part := response.read1(1024 * 1024):
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise http.client.HTTPException(f"an answer of more than {MOST_BYTES} bytes")
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            kept = not response.will_close
            said = Said(response.status, response.getheader("content-type", ""), b"".join(parts), kept)
        if not kept:
            self.close()
        return said


class _Timed(io.RawIOBase):
    """What a socket says, until a moment: also an answer of which a byte comes now and then ends in time."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until

    def makefile(self, mode: str) -> io.BufferedReader:
        """The file that an HTTP response reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
