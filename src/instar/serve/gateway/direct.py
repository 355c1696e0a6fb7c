"""Calls straight from the connection: requests for predictions make no ASGI cycle, no task and no future, whenever one comes.

uvicorn's protocol reads them, and everything else that comes over the connection stays with it. Answers leave in the order of
their requests, also where a client sends the next before it has the answer to the last (pipelining, RFC 9112, section 9.3.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from instar.serve.gateway import heads
from instar.serve.gateway.arrivals import Arrivals
from instar.serve.gateway.exchange import After, Exchange
from instar.serve.gateway.flight import Fields, Respond
from instar.serve.gateway.parting import PartingProtocol
from instar.serve.protocol import v2_json
from instar.serve.protocol.places import Place, place_of

PIPELINED = 32  # requests of one connection that wait for answers; no more are read meanwhile
DRAIN_BODY_BYTES = (
    128 * 1024 * 1024
)  # of a body that is too large anyway, read so that its sender gets to hear the answer
HEAD_LIMIT_BYTES = 64 * 1024  # of a request's headers together
TARGET_LIMIT_BYTES = 8 * 1024
HEAD_FIELDS = 200  # headers of one request

Headers = list[tuple[bytes, bytes]]
Take = Callable[[Place, Headers, bytes | None, int, Callable[[int, Fields, bytes], object]], object]


class Calls(Protocol):
    """Who takes calls: a gateway.

    Attributes:
        arrivals: Room for bodies that are still coming.
    """

    arrivals: Arrivals
    take: Take

    def early(self, place: Place, headers: Headers) -> tuple[int, Fields, bytes] | None:
        """What is answered whatever the body will be, if that is known."""

    def crowded(self, place: Place, headers: Headers, respond: Respond) -> None:
        """Turn away a call for whose body there is no room."""


class DirectProtocol(PartingProtocol):
    """uvicorn's protocol, which knows requests for predictions when it sees them.

    The application must take `Calls`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._calls: Calls = self.config.app  # type: ignore[assignment]
        self._take, self._arrivals = self._calls.take, self._calls.arrivals
        self._head_bytes = self._raw_bytes = 0
        self._head: bytes | None = None  # the head that is being parsed, as it came
        self._following: set[asyncio.Future[bool]] = set()  # by whom uvicorn's answers wait for ours

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
        if self.expect_100_continue and self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        if place is not None:
            if head is not None:
                version = self.parser.get_http_version()
                heads.remember(head, place, self.headers, version, self.parser.should_keep_alive())
            self._begin(place)
        else:
            self._leave_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        """A part of a request's body."""
        exchange = self._reading
        if exchange is None:
            if self.cycle is not None and not self._deaf:
                super().on_body(body)
            return
        fresh = not exchange.held
        if not exchange.add(body):
            self._no_more(exchange)
            self._calls.crowded(exchange.place, exchange.headers, exchange.answer)
        elif fresh and exchange.held and self._answered_early(exchange):
            return
        elif exchange.size > DRAIN_BODY_BYTES:
            exchange.keep = False
            self._hand_over(exchange, None)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._between = True
        exchange = self._reading
        if exchange is not None:
            self._hand_over(exchange, exchange.take_body())
            return
        self._since = None
        if self.cycle is not None and not self._deaf:
            super().on_message_complete()

    # What becomes of it.

    def _begin(self, place: Place) -> None:
        exchange = Exchange(
            self, self._arrivals, place, self.headers, self.parser.should_keep_alive(), self.cycle if self._busy else None
        )  # fmt: skip
        for name, value in self.headers:
            if name == b"content-length":
                exchange.length = int(value)
        self._exchanges.append(exchange)
        self._reading = exchange
        exchange.invited = self.expect_100_continue
        if exchange.length > (v2_json.BODY_LIMIT_BYTES if exchange.invited else DRAIN_BODY_BYTES):
            exchange.keep = False  # what it was not asked for it may not send, and so much is not even read
            self._hand_over(exchange, None)
        elif exchange.invited and not self._answered_early(exchange):
            self._invite(exchange)

    def _invite(self, exchange: Exchange) -> None:
        """Tell who asked that it may send its body, when all before it is answered and nothing of it has come yet."""
        if exchange.invited and self._exchanges[0] is exchange and exchange.first():
            exchange.invited = False
            if not exchange.size:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answered_early(self, exchange: Exchange) -> bool:
        """Who may not call need not send the rest of its body first."""
        said = self._calls.early(exchange.place, exchange.headers)
        if said is None:
            return False
        self._no_more(exchange)
        exchange.answer(*said)
        return True

    def _no_more(self, exchange: Exchange) -> None:
        """Read no more of a body: the connection ends with the answer to it."""
        self._stop_reading()
        exchange.whole, exchange.keep = True, False

    def _hand_over(self, exchange: Exchange, body: bytes | None) -> None:
        exchange.drop()
        self._reading, self._since = None, None
        self._have_taken(exchange, body)

    def _have_taken(self, exchange: Exchange, body: bytes | None) -> None:
        exchange.whole = True
        self._take(exchange.place, exchange.headers, body, exchange.length or exchange.size, exchange.answer)
        if len(self._exchanges) > PIPELINED:
            self._paused = True
            self.flow.pause_reading()

    def _leave_to_uvicorn(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        application = self.app
        if self._exchanges:
            last = self._exchanges[-1]
            left = last.left = last.left or self.loop.create_future()
            self._following.add(left)
            self.app = After(left, application)
        try:
            super().on_headers_complete()
        finally:
            self.app = application
        if self.ending:
            self.cycle.keep_alive = False

    def flush(self) -> None:
        """Send what is due, in order."""
        exchanges = self._exchanges
        if self.transport.is_closing():
            self._forget()
            return
        while exchanges and exchanges[0].due():
            exchange = exchanges.popleft()
            assert exchange.data is not None
            self.transport.write_whole(exchange.data)  # type: ignore[attr-defined]
            if not exchange.keep:
                self._forget()
                self._hang_up()
                return
            if exchange.left is not None:
                exchange.left.set_result(True)
                self._following.discard(exchange.left)
        if not exchanges and self._last is not None:
            if not self._busy:
                self._refuse_now(self._last)
            return
        if not exchanges:
            self._rested = self.loop.time()
            if self.ending and self._reading is None and not self._busy:
                self.transport.close()
        elif exchanges[0] is self._reading:
            self._invite(exchanges[0])
        if self._paused and len(exchanges) <= PIPELINED // 2:
            self._paused = False
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._deaf:
            return
        self._head, cycle = None, self.cycle
        if self._between and (cycle is None or cycle.response_complete):
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
        exchange = Exchange(self, self._arrivals, head.place, head.headers, True)
        self._exchanges.append(exchange)
        self._have_taken(exchange, body)

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._in_head = True  # whatever the parser thought: the client may still be sending
        self._refuse(400, "that is no HTTP request, or one of two readings")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; calls that fly go on, since they are on the record."""
        self._forget()
        super().connection_lost(exc)
        for left in self._following:
            left.set_result(False)
        self._following.clear()

    def on_response_complete(self) -> None:
        """uvicorn has answered."""
        self._rested = self.loop.time()
        super().on_response_complete()
        if self._paused:
            self.flow.pause_reading()
        if self._exchanges or self._last is not None:
            self.flush()

    def _forget(self) -> None:
        """What is left of exchanges gets no answer on this connection."""
        self._stop_reading()
        for exchange in self._exchanges:
            exchange.drop()
        self._exchanges.clear()
