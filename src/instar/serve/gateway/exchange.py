"""One request for a prediction on a connection: its body as it comes, and its answer until its turn to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from instar.serve.gateway.arrivals import PART_BYTES, Arrivals
from instar.serve.gateway.flight import Fields
from instar.serve.protocol import v2_json
from instar.serve.protocol.places import Place

LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CLOSE = (b"connection", b"close")


class Connection(Protocol):
    """The connection that an exchange is on."""

    def ends_with(self, exchange: Exchange) -> bool:
        """Is its answer the last of the connection?"""

    def flush(self) -> None:
        """Send what is due."""


class Exchange:
    """A request and its answer.

    Args:
        keep: The connection stays after the answer, as far as the client goes.
        after: A request that is answered by uvicorn, and before this one.

    Attributes:
        whole: Nothing more is read for it.
        invited: Its sender waits to hear that it may send the body (`Expect: 100-continue`).
        length: Of its body, as the head says; 0 where it says none. `size` is what has come.
        held: Bytes that its body holds while it comes.
        data: The answer, as it leaves.
        left: Told when the answer has left, for who waits for that.
    """

    __slots__ = (
        "_arrivals", "after", "connection", "data", "headers", "held", "invited", "keep", "left", "length", "parts", "place",
        "size", "whole",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, arrivals: Arrivals, place: Place, headers: list[tuple[bytes, bytes]], keep: bool,
        after: Any = None,
    ) -> None:  # fmt: skip
        self.connection = connection
        self._arrivals = arrivals
        self.place = place
        self.headers = headers
        self.keep = keep
        self.after = after
        self.whole = self.invited = False
        self.length = self.size = self.held = 0
        self.parts: list[bytes] = []
        self.data: bytes | None = None
        self.left: asyncio.Future[bool] | None = None

    def add(self, part: bytes) -> bool:
        """Keep a part of the body; False where there is no room for it."""
        self.size += len(part)
        if self.size > v2_json.BODY_LIMIT_BYTES:
            self.drop()
            return True
        if self.held or self.size != self.length:  # one that comes at once waits for nothing
            more = len(part) + PART_BYTES
            if not self._arrivals.hold(self.held, more):
                self.drop()
                return False
            self.held += more
        self.parts.append(part)
        return True

    def take_body(self) -> bytes | None:
        """The body; None where it is larger than may be."""
        parts = self.parts
        body = None if self.size > v2_json.BODY_LIMIT_BYTES else parts[0] if len(parts) == 1 else b"".join(parts)
        self.drop()
        return body

    def drop(self) -> None:
        """Hold nothing of the body any more."""
        self.parts = []
        if self.held:
            self._arrivals.release(self.held)
            self.held = 0

    def due(self) -> bool:
        """May the answer leave, when those of the exchanges before it have left?"""
        return self.data is not None and self.first()

    def first(self) -> bool:
        """Is nothing that uvicorn answers before it?"""
        return self.after is None or self.after.response_complete

    def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """The answer is there; it leaves when those before it have left."""
        if not self.keep or self.connection.ends_with(self):
            self.keep = False
            fields.append(_CLOSE)
        said = b"".join([b"%b: %b\r\n" % field for field in fields])
        self.data = b"%b%bcontent-length: %d\r\n\r\n%b" % (LINES[status], said, len(body), body)
        self.connection.flush()


class After:
    """An application's answer to a request that came behind a prediction's: it waits until that was answered.

    Args:
        left: Told true when it was, and false when the connection ended before.
    """

    def __init__(self, left: asyncio.Future[bool], application: Callable[..., Any]) -> None:
        self._left, self._application = left, application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if await self._left:
            await self._application(scope, receive, send)
