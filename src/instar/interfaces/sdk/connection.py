"""The connection of a client to one server: how it is asked, how it refuses, and where it is found, whenever a program asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import msgspec

from instar.core.errors import BadInput, Unavailable
from instar.core.settings import read_settings
from instar.interfaces.sdk.proof import authorization
from instar.interfaces.wire import error_of

if TYPE_CHECKING:
    import httpx2

TIMEOUT_SECONDS = 60.0
A_PAGE = 1000  # of a listing that is read whole


class Connection:
    """What all parts of a client stand on; a context manager.

    Attributes:
        url: Of the server.
    """

    def __init__(self, url: str, *, project: str | None = None, transport: httpx2.BaseTransport | None = None) -> None:
        import httpx2

        if not url.startswith(("http://", "https://")):
            raise BadInput("that is no address of a server", found=repr(url), asked="http://host:port")
        self.url = url.rstrip("/")
        self._project = project
        self._http = httpx2.Client(
            base_url=self.url, transport=transport, timeout=TIMEOUT_SECONDS, headers=authorization(self.url)
        )
        self._signatures: dict[str, list[dict[str, Any]]] = {}

    @property
    def project(self) -> str:
        """The project whose records are listed; the server's own unless another was named."""
        if self._project is None:
            self._project = str(self._json("GET", "/api/projects")["own"])
        return self._project

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask any route of the API; `GET /api/openapi.json` lists them.

        Raises:
            InstarError: What the server refuses, as the class that it raised.
        """
        return self._json(method, path, body)

    def _json(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        return self._send(method, path, body, query)[0]

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        sent = {"accept": "application/json", **(headers or {})}
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if content is not None:
            sent.setdefault("content-type", "application/json")
        with self._reached():
            reply = self._http.request(method, path, params=asked, headers=sent, content=content)
        if reply.status_code >= 400:
            raise error_of(reply.status_code, reply.content)
        try:
            return msgspec.json.decode(reply.content), reply.headers
        except msgspec.DecodeError as error:
            raise Unavailable("that server does not speak as Instar does", subject=self.url) from error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What the network says, in our words."""
        import httpx2

        try:
            yield
        except httpx2.HTTPError as error:
            raise Unavailable(
                "the server cannot be reached",
                subject=self.url,
                found=str(error) or type(error).__name__,
                next_step="Start it: `instar up`.",
            ) from error

    def _path(self, what: str) -> str:
        return f"/api/projects/{quote(self.project)}/{what}"

    def _listing(self, what: str, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = self._json("GET", self._path(what), query=query)
        return list(found[what]) if isinstance(found, dict) else list(found)

    def _pages(self, place: str, what: str, query: Mapping[str, Any], limit: int | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = None
        while True:
            size = A_PAGE if limit is None else min(A_PAGE, limit - len(found))
            page = self._json("GET", self._path(place), query={**query, "limit": size, "token": token})
            found += page[what]
            token = page["next"]
            if token is None or (limit is not None and len(found) >= limit):
                return found

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def address_here(start: Path | None = None) -> str:
    """`INSTAR_URL`, or the server that runs on the store of the project in which `start` (default: this folder) lies,
    or of that folder itself.

    Raises:
        Unavailable: Neither is there.
    """
    from instar.plan.project import find_root_if_any
    from instar.serve.root.process import running

    settings = read_settings()
    if settings.url:
        return settings.url
    start = start or Path.cwd()
    server = running(settings.store_folder(find_root_if_any(start) or start))
    if server is None:
        raise Unavailable(
            "no server runs on the store here", next_step="Start it: `instar up`; or name one: INSTAR_URL."
        )
    return server.url
