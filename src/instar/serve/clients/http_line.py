"""Connections to a server for calls of many rows, when `instar predict` asks it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from instar.core import credentials
from instar.core.errors import BadInput, Unavailable
from instar.serve.clients.batches import Endpoint, Reply, again_seconds
from instar.serve.clients.refusal import refused

TIMEOUT_SECONDS = 120.0


class HttpLine:
    """One connection to one endpoint, for one thread at a time.

    Args:
        url: Of the server, `http://host:port`, or `https://`.
        token: By which the caller is known; default `INSTAR_TOKEN`, or the file that `INSTAR_TOKEN_FILE` names.
    """

    def __init__(self, url: str, endpoint: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise BadInput("that is no address of a server", found=repr(url), asked="http://host:port")
        self._url, self._endpoint = url, endpoint
        self._path = f"{parts.path.rstrip('/')}/v2/models/{quote(endpoint, safe='')}"
        secret = token or credentials.of_environment()
        self._proof = {"Authorization": f"Bearer {secret}"} if secret else {}
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)

    def endpoint(self) -> Endpoint:
        """What the endpoint takes.

        Raises:
            Unauthenticated, NotAllowed, NotFound: It may not be asked, or is not there.
            Unavailable: The server cannot be reached.
        """
        reply = self._ask("GET", self._path, None, {})
        if reply.status != 200:
            raise refused(self._endpoint, reply.status, reply.body)
        return Endpoint.of(reply.body)

    def send(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """One call. It is never repeated by itself: when the connection breaks, nobody can say whether it was answered."""
        return self._ask("POST", f"{self._path}/infer", body, headers)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        try:
            self._connection.request(method, path, body, {**self._proof, **headers})
            reply = self._connection.getresponse()
            again = again_seconds(reply.getheader("Retry-After"))
            return Reply(reply.status, reply.getheader("Instar-Call", ""), reply.read(), again)
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            raise Unavailable(
                "the server cannot be reached", subject=self._url, found=str(problem) or type(problem).__name__,
                next_step="Start it: `instar up`.",
            ) from problem  # fmt: skip
