"""Relay of everything but inference from a gateway to the control process, streaming both ways over a Unix socket.

While the control process is away, relayed routes answer 503 and inference goes on. RFC 9110, section 7: the message is handed
on as it came, but for the headers that speak about one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from instar.serve.gateway.control_line import MOST_LINES, Connect, Line, LineLost, Lines, away
from instar.serve.protocol import replies

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# RFC 9110, section 7.6.1: these speak about one connection only.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
ANSWER_SECONDS = 600.0  # long work streams its progress; a silence longer than this is a fault
WATCH_SECONDS = 0.05  # an answer that takes longer is given up when its caller hangs up
SAFE = frozenset({"GET", "HEAD"})  # may be sent again when a line that rested turns out to be dead


class Gone(Exception):
    """The caller hung up: nobody is left to answer."""


class Relay:
    """The way to the control process, or from it to a gateway.

    Args:
        connect: Opens one more connection.
        most: Requests at once; others wait for their turn.
    """

    def __init__(self, connect: Connect, most: int = MOST_LINES) -> None:
        self._lines = Lines(connect, most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request."""
        exchange = _Exchange(scope, receive, send)
        try:
            while True:
                line = await self._lines.get()
                rested = not line.fresh
                try:
                    await exchange.run(line)
                    return
                except LineLost:
                    if not (rested and exchange.untouched and scope["method"] in SAFE):
                        raise
                finally:
                    self._lines.put(line)
        except Gone:
            return
        except LineLost as problem:
            if exchange.started:
                raise  # the answer is half sent: the caller must see the connection break
            await self._refuse(scope, send, away(str(problem)))
        except Exception as problem:
            if exchange.started:
                raise
            await self._refuse(scope, send, problem)

    async def _refuse(self, scope: Scope, send: Send, problem: Exception) -> None:
        if "/mlflow" in scope["path"]:  # clients of that protocol look for other words
            facts = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": str(problem)}
            await answer(send, replies.status_of(problem), msgspec.json.encode(facts))
        else:
            await answer_error(send, problem)

    async def close(self) -> None:
        """Hang up."""
        self._lines.close()


class _Exchange:
    """One request and its answer.

    Attributes:
        started: The answer's head has been sent to the caller.
        untouched: Nothing of a body was taken from the caller: the request could be sent again.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.started, self.untouched = False, True
        self._has_body = self._chunked = self._expects = False
        self._watcher: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        for name, value in scope["headers"]:
            if name == b"content-length":
                self._has_body = value != b"0"
            elif name == b"transfer-encoding":
                self._has_body = self._chunked = True
            elif name == b"expect":
                self._expects = True
        self._expects = self._expects and self._has_body
        self._unsent = self._has_body

    async def run(self, line: Line) -> None:
        """Send the request and hand on the answer.

        Raises:
            LineLost: The control process hung up before the end of its answer.
            Gone: The caller did.
        """
        loop = asyncio.get_running_loop()
        first, more = b"", self._unsent
        if self._has_body and not self._expects:
            first, more = await self._part()
            self._unsent = more
        line.begin(self._scope["method"], self._head() + self._framed(first, more))
        pump: asyncio.Task[None] | None = None
        try:
            while self._expects and not line.go_on and not line.status:
                await line.wait()
            if more and not line.status:
                pump = loop.create_task(self._pump(line, loop))
            else:
                self._be_patient(line, loop)
            while not line.status:
                await line.wait()
            await self._hand_on(line)
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
            if pump is not None:
                pump.cancel()
            if self._unsent:
                line.abort()  # answered early: what is left of the body will never be sent
            line.finish()

    async def _hand_on(self, line: Line) -> None:
        left_out = HOP_BY_HOP | {b"content-length"} if line.status in (204, 304) else HOP_BY_HOP  # as uvicorn wants it
        fields = [(name, value) for name, value in line.headers if name not in left_out]
        if self._expects and not line.go_on:
            fields.append((b"connection", b"close"))  # the caller was never asked for its body, and may not send it
        await self._send({"type": "http.response.start", "status": line.status, "headers": fields})
        self.started = True
        while True:
            ended, part = line.ended, line.take()
            await self._send({"type": "http.response.body", "body": part, "more_body": not ended})
            if ended:
                return
            if not line.ended and not line.parts:
                await line.wait()

    async def _part(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        self.untouched = False
        return message.get("body", b""), message.get("more_body", False)

    async def _pump(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        """Send what is left of the body, as quickly as it is taken."""
        try:
            while self._unsent:
                part, more = await self._part()
                line.write(self._framed(part, more))
                self._unsent = more
                await line.drain()
        except Exception as problem:  # the caller left, as a rule; half a body must not look like a whole one
            line.abort(problem)
            return
        self._be_patient(line, loop)

    def _be_patient(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        """The request is sent: from a while on, look whether the caller still waits; in the end, give up."""
        self._timers.append(loop.call_later(WATCH_SECONDS, self._watch, line, loop))

    def _watch(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            line.abort(Gone())

        def silent() -> None:
            if not line.status:
                line.abort(LineLost(f"no answer in {ANSWER_SECONDS:g} s"))

        self._watcher = loop.create_task(watch())
        self._timers.append(loop.call_later(ANSWER_SECONDS, silent))

    def _framed(self, part: bytes, more: bool) -> bytes:
        """A part of the body as it is sent: chunks (RFC 9112, section 7.1) where its length is not known."""
        if not self._chunked:
            return part
        chunk = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def _head(self) -> bytes:
        scope = self._scope
        target: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        lines = [b"%b %b HTTP/1.1" % (scope["method"].encode(), target)]
        secure = scope.get("scheme") == "https"  # it came by our own TLS, whatever the caller says
        if secure:
            lines.append(b"x-forwarded-proto: https")
        for name, value in scope["headers"]:
            if name in HOP_BY_HOP or (name == b"expect" and not self._expects):
                continue
            if secure and name == b"x-forwarded-proto":
                continue
            if name == b"content-length" and self._chunked:
                continue
            lines.append(name + b": " + value)
        if self._chunked:
            lines.append(b"transfer-encoding: chunked")
        return b"\r\n".join(lines) + b"\r\n\r\n"


async def answer_error(send: Send, problem: Exception, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with an error's status and facts."""
    body = replies.encode_error(problem)
    await answer(send, replies.status_of(problem), body, [*replies.headers_of(problem), *(headers or ())])


async def answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with a JSON body."""
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 503 and not any(name == b"retry-after" for name, _ in headers or ()):
        fields.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": fields + (headers or [])})
    await send({"type": "http.response.body", "body": body})
