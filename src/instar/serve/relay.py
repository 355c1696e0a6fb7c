"""Relay of everything but inference from a gateway to the control process, streaming both ways over a Unix socket.

While the control process is away, relayed routes answer 503 and inference goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.core.errors import Unavailable
from instar.serve import replies

if TYPE_CHECKING:
    import httpx2

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
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
ANSWER_SECONDS = 600.0  # long work streams its progress; a silence longer than this is a fault


class Relay:
    """The way to the control process."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client: httpx2.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request."""
        import httpx2

        if self._client is None:
            transport = httpx2.AsyncHTTPTransport(uds=str(self._socket), limits=httpx2.Limits(max_connections=64))
            self._client = httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(ANSWER_SECONDS, connect=2.0))
        target = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP and name != b"expect"]
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        # A URL made of raw parts: the path reaches the control process as it was sent.
        url = httpx2.URL(scheme="http", host="control", raw_path=target)
        request = self._client.build_request(
            scope["method"], url, headers=headers, content=_body(receive) if has_body else None
        )
        started = False
        try:
            response = await self._client.send(request, stream=True)
            try:
                kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in HOP_BY_HOP]
                await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
                started = True
                async for part in response.aiter_raw():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                await response.aclose()
        except httpx2.HTTPError as problem:
            if started:
                raise  # the answer is half sent: the caller must see the connection break
            await answer_error(send, _away(problem))

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.aclose()


async def answer_error(send: Send, problem: Exception, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with an error's status and facts."""
    body = replies.encode_error(problem)
    await answer(send, replies.status_of(problem), body, headers)


async def answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with a JSON body."""
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 503:
        fields.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": fields + (headers or [])})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


def _away(problem: Exception) -> Unavailable:
    return Unavailable(
        "the control process does not answer",
        found=type(problem).__name__,
        next_step="Predictions go on; try this again in a second.",
    )
