"""Calls straight from the connection: requests for predictions make no ASGI cycle, no task and no future, whenever one comes.

uvicorn's protocol reads them, and everything else that comes over the connection stays with it. Answers leave in the order of
their requests, also where a client sends the next before it has the answer to the last (pipelining, RFC 9112, section 9.3.2).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from instar.serve.gateway import heads
from instar.serve.gateway.flight import Fields
from instar.serve.gateway.one_write import OneWriteProtocol
from instar.serve.protocol import v2_json
from instar.serve.protocol.places import Place, place_of

PIPELINED = 32  # requests of one connection that wait for answers; no more are read meanwhile
DRAIN_BODY_BYTES = (
    128 * 1024 * 1024
)  # of a body that is too large anyway, read so that its sender gets to hear the answer
HEAD_LIMIT_BYTES = 64 * 1024  # of a request's headers together
TARGET_LIMIT_BYTES = 8 * 1024
HEAD_FIELDS = 200  # headers of one request
BODY_PACE_BYTES = 16 * 1024  # a second more for so many bytes of a body
STALL_SECONDS = 60.0  # for which a client may send nothing of an upload, or take nothing of its answers
ENDING_SECONDS = 0.15  # for which a connection without a request is kept when the server ends
LINGER_SECONDS = 2.0  # after a refusal, for which what the client still sends is read and dropped, so that it hears why

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CLOSE = (b"connection", b"close")

Take = Callable[[Place, list[tuple[bytes, bytes]], bytes | None, int, Callable[[int, Fields, bytes], object]], object]


class Exchange:
    """One request for a prediction on a connection, and its answer."""

    __slots__ = ("connection", "data", "headers", "keep", "length", "parts", "place", "size", "whole")

    def __init__(
        self, connection: DirectProtocol, place: Place, headers: list[tuple[bytes, bytes]], keep: bool
    ) -> None:
        self.connection = connection
        self.place = place
        self.headers = headers
        self.keep = keep
        self.whole = False
        self.length = self.size = 0
        self.parts: list[bytes] = []
        self.data: bytes | None = None

    def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """The answer is there; it leaves when those before it have left."""
        if not self.keep or self.connection.ends_with(self):
            self.keep = False
            fields.append(_CLOSE)
        said = b"".join([b"%b: %b\r\n" % field for field in fields])
        self.data = b"%b%bcontent-length: %d\r\n\r\n%b" % (_LINES[status], said, len(body), body)
        self.connection.flush()


class DirectProtocol(OneWriteProtocol):
    """uvicorn's protocol, which knows requests for predictions when it sees them.

    The application must have `take`, as `Gateway.take`.

    Attributes:
        ending: The server is about to end: answers say that the connection does, too.
        head_seconds: For a request's head, from its first byte.
        body_seconds: For its body, from then, and a second for each `BODY_PACE_BYTES` more.
    """

    head_seconds = 10.0
    body_seconds = 10.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._take: Take = self.config.app.take  # type: ignore[union-attr]
        self._exchanges: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._head_bytes = 0
        self._since: float | None = None  # when the request that is being read began
        self._rested = self.loop.time()
        self._paused = False
        self._in_head = False
        self._raw_bytes = 0
        self._between = True  # the parser is at the end of a message, or before the first
        self._head: bytes | None = None  # the head that is being parsed, as it came
        self._heard = self._rested
        self._stalled: float | None = None  # since when the client takes no answers
        self._last: bytes | None = None  # a refusal that leaves after the answers before it
        self._lingers: float | None = None  # since when all is said, and what comes is dropped
        self.ending = False

    # What the parser says.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._reading = None
        self._between = False
        self._in_head = True
        self._head_bytes = 0
        self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self.url += url
        if len(self.url) > TARGET_LIMIT_BYTES:
            self._refuse(414, "the request's target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_LIMIT_BYTES or len(self.headers) >= HEAD_FIELDS:
            self._refuse(431, "the request's headers are too large, or too many")
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's head is there: take it ourselves, or leave it to uvicorn."""
        self._in_head = False
        if self._deaf:
            return
        place = place_of(self.url) if self.parser.get_method() == b"POST" else None
        head, self._head = self._head, None
        if place is not None and (self.cycle is None or self.cycle.response_complete):
            if head is not None:
                version = self.parser.get_http_version()
                heads.remember(head, place, self.headers, version, self.parser.should_keep_alive())
            self._begin(place)
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        application = self.app
        if self._exchanges:
            self.app = _After(self._exchanges[-1], application)
        try:
            super().on_headers_complete()
        finally:
            self.app = application
        if self.ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of a request's body."""
        exchange = self._reading
        if exchange is None:
            if self.cycle is not None and not self._deaf:
                super().on_body(body)
            return
        exchange.size += len(body)
        if exchange.size <= v2_json.BODY_LIMIT_BYTES:
            exchange.parts.append(body)
            return
        exchange.parts.clear()
        if exchange.size > DRAIN_BODY_BYTES:
            exchange.keep = False
            self._hand_over(exchange, None)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._between = True
        exchange = self._reading
        if exchange is None:
            self._since = None
            if self.cycle is not None and not self._deaf:
                super().on_message_complete()
            return
        parts = exchange.parts
        body = None if exchange.size > v2_json.BODY_LIMIT_BYTES else parts[0] if len(parts) == 1 else b"".join(parts)
        self._hand_over(exchange, body)

    # What becomes of it.

    def _begin(self, place: Place) -> None:
        exchange = Exchange(self, place, self.headers, self.parser.should_keep_alive())
        for name, value in self.headers:
            if name == b"content-length":
                exchange.length = int(value)
        self._exchanges.append(exchange)
        self._reading = exchange
        if exchange.length > (v2_json.BODY_LIMIT_BYTES if self.expect_100_continue else DRAIN_BODY_BYTES):
            exchange.keep = False  # what it was not asked for it may not send, and so much is not even read
            self._hand_over(exchange, None)
        elif self.expect_100_continue and len(self._exchanges) == 1:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hand_over(self, exchange: Exchange, body: bytes | None) -> None:
        self._reading, self._since = None, None
        exchange.parts = []
        exchange.whole = True
        self._take(exchange.place, exchange.headers, body, exchange.length or exchange.size, exchange.answer)
        if len(self._exchanges) > PIPELINED and not self._paused:
            self._paused = True
            self.flow.pause_reading()

    def ends_with(self, exchange: Exchange) -> bool:
        """Is this the last answer of the connection?"""
        return self.ending and bool(self._exchanges) and self._exchanges[-1] is exchange

    def flush(self) -> None:
        """Send what is due, in order."""
        exchanges = self._exchanges
        if self.transport.is_closing():
            exchanges.clear()
            return
        while exchanges and exchanges[0].data is not None:
            exchange = exchanges.popleft()
            assert exchange.data is not None
            self.transport.write_whole(exchange.data)  # type: ignore[attr-defined]
            if not exchange.keep:
                exchanges.clear()
                self._hang_up()
                return
        if not exchanges and self._last is not None:
            self._refuse_now(self._last)
            return
        if not exchanges:
            self._rested = self.loop.time()
            if self.ending and self._reading is None:
                self.transport.close()
        if self._paused and len(exchanges) <= PIPELINED // 2:
            self._paused = False
            self.flow.resume_reading()

    def _refuse(self, status: int, why: str) -> None:
        """Say no to a request that is not even read, after the answers to those before it; then hang up."""
        if self._deaf:
            return
        body = msgspec.json.encode({"error": why, "kind": "MalformedRequest"})
        head = _LINES[status] + b"content-type: application/json\r\nconnection: close\r\n"
        data = head + b"content-length: %d\r\n\r\n" % len(body) + body
        self._reading, self._since = None, None
        if self._exchanges and not self._exchanges[-1].whole:
            self._exchanges.pop()  # the one that is refused
        if self._exchanges:
            self._last = data
        else:
            self._refuse_now(data)

    def _refuse_now(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write_whole(data)  # type: ignore[attr-defined]
        self._hang_up()

    def _hang_up(self) -> None:
        """End the connection. A client that is still sending hears our last answer only if what it sends is read, too."""
        self._reading, self._since = None, None
        if self._between and not self._in_head:
            self.transport.close()
        else:
            self._lingers = self.loop.time()
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    @property
    def _deaf(self) -> bool:
        """Nothing more is taken from this client."""
        if self._exchanges:
            last = self._exchanges[-1]
            if last.whole and not last.keep:
                return True
        return self._lingers is not None or self._last is not None or self.transport.is_closing()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._in_head = True  # whatever the parser thought: the client may still be sending
        self._refuse(400, "that is no HTTP request, or one of two readings")

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._deaf:
            return
        self._head = None
        if self._between and (self.cycle is None or self.cycle.response_complete):
            end = data.find(b"\r\n\r\n", 0, heads.KNOWN_BYTES) + 4
            head = heads.known(data[:end])
            if head is not None and len(data) == end + head.length:
                self._again(head, data[end:])
                return
            if head is None and end > 3:
                self._head = data[:end]
        self._heard = self.loop.time()
        fresh = self._in_head
        super().data_received(data)
        if fresh and self._in_head:
            # A header that does not end is not told of by the parser.
            self._raw_bytes += len(data)
            if self._raw_bytes > HEAD_LIMIT_BYTES:
                self._refuse(431, "the request's headers are too large, or too many")
        else:
            self._raw_bytes = 0

    def _again(self, head: heads.Head, body: bytes) -> None:
        """A whole request came whose head is known: the parser need not see it."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        exchange = Exchange(self, head.place, head.headers, True)
        self._exchanges.append(exchange)
        self._hand_over(exchange, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; calls that fly go on, since they are on the record."""
        self._exchanges.clear()
        self._reading = None
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """uvicorn has answered."""
        self._rested = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """The server ends: after the last answer the connection does, too."""
        self.ending = True
        if self._lingers is not None:
            self.transport.abort()
            return
        if self.cycle is not None:
            self.cycle.keep_alive = False
        # A request may be on its way: its sender should hear that the connection ends, and not see it break.
        self.loop.call_later(ENDING_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self._exchanges and self._reading is None and not self.transport.is_closing():
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will send nothing more: it may still wait for answers."""
        if not self._exchanges or self._lingers is not None:
            return False
        self.ending = True
        return True

    def pause_writing(self) -> None:
        """The client does not take its answers: nothing more is read from it."""
        super().pause_writing()
        self._stalled = self.loop.time()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._stalled = None
        if not self._paused:
            self.flow.resume_reading()

    def sweep(self, now: float) -> None:
        """Hang up on a client that takes too long to say what it wants, or says nothing for too long. Called now and then."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if self._lingers is not None:
            if now - self._lingers > LINGER_SECONDS:
                self.transport.abort()
        elif self._stalled is not None:
            if now - self._stalled > STALL_SECONDS:
                self.transport.abort()
        elif self._reading is not None and self._since is not None:
            if now - self._since > self.body_seconds + self._reading.size / BODY_PACE_BYTES:
                self._refuse(408, "the request's body took too long to come")
        elif self._since is not None and not busy:
            if now - self._since > self.head_seconds:
                self._refuse(408, "the request's head took too long to come")
        elif busy:  # uvicorn's: large uploads are relayed, as long as something comes
            if not self._between and not self.flow.read_paused and now - self._heard > STALL_SECONDS:
                self.transport.abort()
        elif not self._exchanges and now - self._rested > self.timeout_keep_alive:
            self.transport.close()


class _After:
    """An application's answer to a request that came behind a prediction's: it waits for that to be answered."""

    def __init__(self, exchange: Exchange, application: Any) -> None:
        self._exchange, self._application = exchange, application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = self._exchange.connection
        while self._exchange in connection._exchanges:
            await asyncio.sleep(0.001)
        await self._application(scope, receive, send)
