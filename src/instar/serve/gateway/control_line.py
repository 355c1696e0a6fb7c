"""Connections from a gateway to the control process, kept alive and used again; each carries one request at a time.

HTTP/1.1 (RFC 9112) over a Unix socket, the answer parsed by httptools and handed on in parts, with back-pressure both ways.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httptools

from instar.core.errors import Unavailable

MOST_LINES = 64
CONNECT_SECONDS = 2.0
QUEUE_SECONDS = 60.0  # a request waits so long for a line when all are taken
BUFFER_BYTES = 256 * 1024  # of an answer that the caller does not take; then nothing more is read


class LineLost(Exception):
    """The control process hung up, or said what is no HTTP, before its answer was complete."""


class Line(asyncio.Protocol):
    """One connection.

    Attributes:
        status: Of the answer; 0 until its head has come.
        headers: Of the answer, names in lower case.
        parts: Of its body, not yet taken.
        ended: The whole answer has come.
        go_on: The other side asked for the body (100 Continue).
        fresh: No request was ever sent on it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        self._paused = self._busy = self._reusable = False
        self.fresh = True
        self._forget("GET")

    def _forget(self, method: str) -> None:
        # A parser for each answer: one to HEAD leaves it waiting for a body that never comes.
        self._parser = httptools.HttpResponseParser(self)
        self._method = method
        self.parts: list[bytes] = []
        self._buffered = 0
        self._coming: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.ended = self.go_on = False

    # What the relay does with it.

    def begin(self, method: str, head: bytes) -> None:
        """Send the head of a request, and all of its body that is at hand."""
        if not self.fresh:
            self._forget(method)
        self._method = method
        self.fresh, self._busy = False, True
        self._transport.write(head)

    def write(self, data: bytes) -> None:
        """Send more of the body."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until what was written is taken; returns at once when the line is lost, since the answer's reader hears of it."""
        if self._writable is not None:
            await self._writable

    async def wait(self) -> None:
        """Wait for news: the head, a part, the end.

        Raises:
            LineLost: There will be none.
        """
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """What has come of the answer's body since the last look."""
        parts, self.parts, self._buffered = self.parts, [], 0
        if self._paused and not self.ended:
            self._paused = False
            self._transport.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._lost is None and not self._busy and not self._transport.is_closing()

    def finish(self) -> None:
        """The exchange is over: keep the line if both sides said all they had to."""
        if self.ended and self._reusable and self._lost is None:
            self._busy = False
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
        else:
            self.abort()

    def abort(self, reason: BaseException | None = None) -> None:
        """Hang up at once; who waits gets `reason`."""
        self._fail(reason or LineLost("hung up"))
        self._transport.abort()

    # What the connection does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy:  # nothing was asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as problem:
            if not self.ended:
                self.abort(LineLost(f"no HTTP: {problem}"))
                return
            self._reusable = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        lengths = (b"content-length", b"transfer-encoding")
        if self.status and not self.ended and exc is None and not any(name in lengths for name, _ in self.headers):
            self.ended, self._reusable = True, False  # an answer without a length ends with its connection
            self._lost = LineLost("hung up")
            self._wake()
        self._fail(LineLost(str(exc) if exc else "hung up"))

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._coming.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status, headers, self._coming = self._parser.get_status_code(), self._coming, []
        if status < 200:
            self.go_on = self.go_on or status == 100
            return
        self.status, self.headers = status, headers
        self._reusable = self._parser.should_keep_alive()
        if self._method == "HEAD":
            self.ended, self._reusable = True, not any(n == b"connection" and v == b"close" for n, v in headers)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.ended = self.ended or self.status > 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, reason: BaseException) -> None:
        if self._lost is None:
            self._lost = reason
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._lost)
        self.resume_writing()


Connect = Callable[[Callable[[], Line]], Awaitable[tuple[Any, Line]]]


def unix(path: Path) -> Connect:
    """Lines to a Unix socket."""

    async def connect(make: Callable[[], Line]) -> tuple[Any, Line]:
        return await asyncio.get_running_loop().create_unix_connection(make, str(path))

    return connect


class Lines:
    """All lines of one process to another.

    Args:
        connect: Opens one.
        most: Open at once; more requests wait for their turn, first come, first served.
    """

    def __init__(self, connect: Connect, most: int = MOST_LINES) -> None:
        self._connecting = connect
        self._most = most
        self._open = 0
        self._idle: list[Line] = []
        self._waiting: deque[asyncio.Future[Line | None]] = deque()

    async def get(self) -> Line:
        """A line to send one request on; give it back with `put`.

        Raises:
            Unavailable: The control process is not there, or all lines were taken for too long.
        """
        while True:
            while self._idle:
                line = self._idle.pop()  # the one used last: the others may rest
                if line.usable():
                    return line
                self._open -= 1
            if self._open < self._most:
                return await self._connect()
            turn: asyncio.Future[Line | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                async with asyncio.timeout(QUEUE_SECONDS):
                    given = await turn
            except TimeoutError:
                raise Unavailable(
                    "too many requests are being worked on",
                    found=self._most,
                    next_step="Predictions go on; try this again later.",
                ) from None
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and (late := turn.result()) is not None:
                    self.put(late)
                raise
            if given is not None and given.usable():
                return given

    def put(self, line: Line) -> None:
        """Give a line back, after its request or instead of one."""
        turn = self._next()
        if line.usable():
            if turn is not None:
                turn.set_result(line)
            else:
                self._idle.append(line)
            return
        line.abort()
        self._open -= 1
        if turn is not None:
            turn.set_result(None)  # there is room for a new line

    def close(self) -> None:
        """Hang up all that rest."""
        for line in self._idle:
            line.abort()
        self._idle.clear()

    async def _connect(self) -> Line:
        self._open += 1
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, line = await self._connecting(lambda: Line(loop))
                return line
        except (OSError, TimeoutError) as problem:
            self._open -= 1
            if (turn := self._next()) is not None:
                turn.set_result(None)
            raise away(type(problem).__name__) from None
        except BaseException:
            self._open -= 1
            raise

    def _next(self) -> asyncio.Future[Line | None] | None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn
        return None


def away(found: str) -> Unavailable:
    """What is answered while the control process is not there."""
    return Unavailable(
        "the control process does not answer",
        found=found,
        next_step="Predictions go on; try this again in a second.",
    )
