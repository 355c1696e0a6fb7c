"""How a connection ends: refused, too slow, half closed by its client, or with the server; whenever one does.

Answers that are owed leave first. A client that is still sending hears our last word only if what it sends is read, too: so
after a refusal it is read for a while more, and dropped.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import msgspec

from instar.serve.gateway.arrivals import Arrivals
from instar.serve.gateway.exchange import LINES, Exchange
from instar.serve.gateway.one_write import OneWriteProtocol

STALL_SECONDS = 60.0  # for which a client may send nothing of an upload, or take nothing of its answers
ENDING_SECONDS = 0.15  # for which a connection without a request is kept when the server ends
LINGER_SECONDS = 2.0  # after a refusal, for which what the client still sends is read and dropped, so that it hears why


class PartingProtocol(OneWriteProtocol):
    """uvicorn's protocol with what a connection must know to end well.

    Attributes:
        ending: The connection ends with its last answer: the server is about to end, or the client has said all.
        head_seconds: For a request's head, from its first byte.
        body_seconds: For its body, from then, and a second more for as much as `Arrivals.pace`.
    """

    head_seconds = 10.0
    body_seconds = 10.0
    _arrivals: Arrivals

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._exchanges: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._since: float | None = None  # when the request that is being read began
        self._rested = self._heard = self.loop.time()
        self._paused = False  # nothing is read until some requests are answered
        self._in_head = False
        self._between = True  # the parser is at the end of a message, or before the first
        self._stalled: float | None = None  # since when the client takes no answers
        self._last: bytes | None = None  # a refusal that leaves after the answers before it
        self._lingers: float | None = None  # since when all is said, and what comes is dropped
        self._said_all = False  # by the client, who waits for answers
        self.ending = False

    @property
    def _busy(self) -> bool:
        """Is uvicorn answering a request?"""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _deaf(self) -> bool:
        """Nothing more is taken from this client."""
        if self._exchanges:
            last = self._exchanges[-1]
            if last.whole and not last.keep:
                return True
        cycle = self.cycle
        if cycle is not None and not (cycle.response_complete or cycle.keep_alive or cycle.more_body):
            return True  # the connection ends with that answer: what comes behind it was never asked (RFC 9112, 9.6)
        return self._lingers is not None or self._last is not None or self.transport.is_closing()

    def ends_with(self, exchange: Exchange) -> bool:
        """Is this the last answer of the connection?"""
        if not self.ending or not self._exchanges or self._exchanges[-1] is not exchange:
            return False
        return not self._busy or exchange.after is self.cycle

    def _stop_reading(self) -> None:
        """What is being read is given up, or whole."""
        if self._reading is not None:
            self._reading.drop()
        self._reading, self._since = None, None

    def _refuse(self, status: int, why: str) -> None:
        """Say no to a request that is not even read, after the answers to those before it; then hang up."""
        if self._deaf:
            return
        body = msgspec.json.encode({"error": why, "kind": "MalformedRequest"})
        head = LINES[status] + b"content-type: application/json\r\nconnection: close\r\n"
        data = head + b"content-length: %d\r\n\r\n" % len(body) + body
        self._stop_reading()
        if self._exchanges and not self._exchanges[-1].whole:
            self._exchanges.pop()  # the one that is refused
        if self._exchanges or (self._busy and not self.cycle.more_body):
            self._last = data
        else:
            self._refuse_now(data)

    def _refuse_now(self, data: bytes) -> None:
        if not self._busy:
            self.transport.write_whole(data)  # type: ignore[attr-defined]
        self._hang_up()

    def _hang_up(self) -> None:
        """End the connection."""
        self._stop_reading()
        if self._between and not self._in_head:
            self.transport.close()
        else:
            self._lingers = self.loop.time()
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    def shutdown(self) -> None:
        """The server ends: after the last answer the connection does, too."""
        self.ending = True
        if self._lingers is not None:
            self.transport.abort()
            return
        if self.cycle is not None and not (self._exchanges and self._exchanges[-1].after is self.cycle):
            self.cycle.keep_alive = False
        # A request may be on its way: its sender should hear that the connection ends, and not see it break.
        self.loop.call_later(ENDING_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._busy and not self._exchanges and self._reading is None and not self.transport.is_closing():
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will send nothing more: it may still wait for answers."""
        if self._said_all:
            return True  # told again, as reading was taken up
        if self._reading is not None:  # and what it was sending stays half
            self._stop_reading()
            self._exchanges.pop()
        if self._lingers is not None or not self._exchanges:
            return False  # who waits for uvicorn's answer alone and ends has left, as far as one can see
        self.ending = self._said_all = True
        if self._busy and self._exchanges[-1].after is not self.cycle:
            self.cycle.keep_alive = False
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
        if self._lingers is not None:
            if now - self._lingers > LINGER_SECONDS:
                self.transport.abort()
        elif self._stalled is not None:
            if now - self._stalled > STALL_SECONDS:
                self.transport.abort()
        elif self._reading is not None and self._since is not None:
            if now - self._since > self.body_seconds + self._reading.size / self._arrivals.pace:
                self._refuse(408, "the request's body took too long to come")
        elif self._since is not None and not self._busy:
            if now - self._since > self.head_seconds:
                self._refuse(408, "the request's head took too long to come")
        elif self._busy:  # large uploads are relayed, as long as something comes
            if not self._between and not self.flow.read_paused and now - self._heard > STALL_SECONDS:
                self.transport.abort()
        elif not self._exchanges and now - self._rested > self.timeout_keep_alive:
            self.transport.close()
