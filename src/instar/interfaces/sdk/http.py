"""Delivery over HTTP: the frames of a run's spool in one request a batch, and blobs as streams, from a background thread.

The standard library's client is used: a training script should not have to import more for it.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import msgspec

from instar.core.errors import BadInput, Unavailable
from instar.interfaces.sdk.proof import authorization
from instar.interfaces.wire import error_of
from instar.train.delivery import Batch

TIMEOUT_SECONDS = 30.0
BLOCK_BYTES = 1024 * 1024
MEDIA_TYPE = "application/msgpack"


class HttpSink:
    """A server as the goal of a delivery; one connection, which is made anew after any trouble.

    Args:
        store_folder: The store whose owner this program may speak for; see `proof.authorization`.

    Raises:
        BadInput: `url` is no address.
    """

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, store_folder: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput("that is no address of a server", found=repr(url), asked="http://host:port")
        self.url = url.rstrip("/")
        self._proof = authorization(self.url, store_folder)
        self._prefix = parts.path.rstrip("/")
        self._own = ""
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_seconds, blocksize=BLOCK_BYTES)

    def apply(self, batch: Batch) -> int:
        body = msgspec.msgpack.encode(
            {
                "writer": batch.writer, "first": batch.first, "frames": batch.frames, "place": batch.place,
                "gone": batch.gone, "last": batch.last,
            }
        )  # fmt: skip
        reply = self._send("POST", self._path(batch.project, batch.run, "spool"), body, {"content-type": MEDIA_TYPE})
        return int(reply["applied"])

    def put(self, project: str, run: str, digest: str, file: Path) -> None:
        with file.open("rb") as content:
            headers = {"content-type": "application/octet-stream", "content-length": str(file.stat().st_size)}
            self._send("PUT", self._path(project, run, f"blobs/{quote(digest, safe='')}"), content, headers)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _path(self, project: str, run: str, rest: str) -> str:
        """Where things of a run are; of a run without a project, in the server's own."""
        if not project:
            self._own = self._own or str(self._send("GET", "/api/projects", b"", {})["own"])
        return f"/api/projects/{quote(project or self._own, safe='')}/runs/{quote(run, safe='')}/{rest}"

    def _send(self, method: str, path: str, body: bytes | IO[bytes], headers: Mapping[str, str]) -> Any:
        try:
            if self._connection.sock is None:
                self._connection.connect()
                plugged: Any = self._connection.sock
                plugged.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.request(
                method, self._prefix + path, body, {"accept": "application/json", **self._proof, **headers}
            )
            reply = self._connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(
                "the server cannot be reached", subject=self.url, found=str(error) or type(error).__name__
            ) from error
        if reply.status >= 500:  # a gateway whose control process is away says so by its status
            self._connection.close()
            raise Unavailable("the server has trouble", subject=self.url, found=f"{reply.status} {content[:200]!r}")
        if reply.status >= 400:
            raise error_of(reply.status, content)
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise Unavailable("that server does not speak as Instar does", subject=self.url) from error
