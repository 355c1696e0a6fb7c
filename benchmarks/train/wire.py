"""A client of MLflow's protocol that costs little itself: one kept-alive connection, small writes sent at once, quick decoding.

Python's own `json` would add as much to the time of a long history as the faster server takes.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import msgspec

ROOT = "/api/2.0/mlflow/"


class Wire:
    """One connection to a server."""

    def __init__(self, url: str, timeout_seconds: float = 300.0) -> None:
        place = urlsplit(url)
        assert place.hostname is not None
        self._head = f"Host: {place.netloc}\r\nContent-Type: application/json\r\n"
        self._socket = socket.create_connection((place.hostname, place.port or 80), timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def post(self, path: str, body: Any) -> Any:
        """Call an operation; returns the decoded answer."""
        return msgspec.json.decode(self.send("POST", ROOT + path, encoded(body)) or b"{}")

    def get(self, path: str, **query: Any) -> Any:
        """Call an operation that reads."""
        return msgspec.json.decode(self.send("GET", ROOT + path + "?" + urlencode(query)))

    def send(self, method: str, target: str, body: bytes = b"", kind: str = "") -> bytes:
        """One request; returns the answer's body.

        Raises:
            RuntimeError: The answer is a refusal.
        """
        head = f"{method} {target} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode()
        self._socket.sendall(head + body if len(body) < 65536 else head)
        if len(body) >= 65536:
            self._socket.sendall(body)
        return self._answer(target)

    def _answer(self, target: str) -> bytes:
        while (end := self._left.find(b"\r\n\r\n")) < 0:
            self._more()
        head, self._left = self._left[:end].lower(), self._left[end + 4 :]
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            body = self._chunks()
        else:
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            body = self._exactly(length)
        if status >= 400:
            raise RuntimeError(f"{target[:100]}: {status} {body[:300]!r}")
        return body

    def _chunks(self) -> bytes:
        parts = []
        while True:
            while (end := self._left.find(b"\r\n")) < 0:
                self._more()
            size, self._left = int(self._left[:end].split(b";")[0], 16), self._left[end + 2 :]
            part = self._exactly(size + 2)[:-2]
            if not size:
                return b"".join(parts)
            parts.append(part)

    def _exactly(self, size: int) -> bytes:
        parts, have = [self._left], len(self._left)
        while have < size:
            part = self._socket.recv(1 << 20)
            if not part:
                raise RuntimeError("the server hung up")
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self._left = data[size:]
        return data[:size]

    def _more(self) -> None:
        part = self._socket.recv(1 << 18)
        if not part:
            raise RuntimeError("the server hung up")
        self._left += part

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def encoded(body: Any) -> bytes:
    """A body as it is sent; bytes are sent as they are."""
    return body if isinstance(body, bytes) else msgspec.json.encode(body)
