"""The API as an ASGI application: each request finds its route, is judged at the door, and runs a plain function in a thread.

    uvicorn.run(Application(app, all_routes()), uds="control.sock")

The event loop only moves bytes; a handler may wait for the database or the disk, so it never runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote

from instar.app import App
from instar.core.errors import InstarError, MalformedRequest, NotFound, Unauthenticated
from instar.core.identity import Permission
from instar.core.settings import read_settings
from instar.interfaces.acting import acting
from instar.interfaces.api import bodies, sending
from instar.interfaces.api.bodies import Gone, Receive
from instar.interfaces.api.doorkeeper import Doorkeeper
from instar.interfaces.api.routes import PLAIN, Reply, Request, Route, Voice
from instar.interfaces.api.sending import Prepared, Send
from instar.interfaces.api.table import Table
from instar.interfaces.api.threads import Threads
from instar.serve.protocol.replies import headers_of

log = logging.getLogger("instar.control")

UPLOAD_LIMIT_BYTES = 64 * 1024**3
THREADS = 32  # handlers at once; more requests wait for their turn

GATEWAYS, INVOCATIONS = ("/v2", "/metrics"), "/invocations"  # paths that gateways answer
SIGN_IN = "/console/sign-in"

Loading = Callable[[], Iterable[Route]]


class Application:
    """Answers the requests of one process.

    Args:
        soon: Makes more routes; called once, in a thread, right after the start, or when a path is not among the first ones.
        later: Makes the rest, in the same way, but only when a path is among none of these.
        elsewhere: Answers what is not ours: predictions, on a connection that was handed to us for other calls.
        upload_limit_bytes: Of a body that is streamed to a file.
        doorkeeper: Judges who may; made from the settings by default.
    """

    def __init__(
        self,
        app: App,
        routes: Iterable[Route],
        *,
        soon: Loading | None = None,
        later: Loading | None = None,
        elsewhere: Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]] | None = None,
        upload_limit_bytes: int = UPLOAD_LIMIT_BYTES,
        threads: int = THREADS,
        doorkeeper: Doorkeeper | None = None,
    ) -> None:
        self._app = app
        self.doorkeeper = doorkeeper or Doorkeeper(app.store, read_settings())
        self._table = Table(routes)
        self._soon, self._later = soon, later
        self._elsewhere = elsewhere
        self._loading = asyncio.Lock()
        self._upload_limit_bytes = upload_limit_bytes
        self._threads = Threads(threads)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path: str = scope["path"]
        if self._elsewhere is not None and (path.startswith(GATEWAYS) or path.endswith(INVOCATIONS)):
            await self._elsewhere(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        with contextlib.suppress(Gone):
            prepared = await self._answer(scope, raw_path, headers, receive)
            await sending.send(prepared, send, self._threads)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            if (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
                continue
            self._threads.close()
            await send({"type": "lifespan.shutdown.complete"})
            return

    async def _answer(
        self, scope: MutableMapping[str, Any], raw_path: str, headers: Mapping[str, str], receive: Receive
    ) -> Prepared:
        method: str = scope["method"]
        route: Route | None = None
        try:
            self.doorkeeper.refuse_strangers(method, headers)
            methods, values = await self._find(raw_path)
            route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
            if route is None:
                return self._unknown(raw_path, method, methods, headers)
            caller = self.doorkeeper.admit(route, scope, headers)
            lists = _query(scope["query_string"])
            request = Request(
                self._app, caller.within(None), self._table.parameters(route, values),
                {key: found[-1] for key, found in lists.items()},
                headers=headers, query_lists=lists, method=method, caller=caller,
            )  # fmt: skip
            self.doorkeeper.judge(route, request)
            actor = caller.within(route.project(request))
            request = replace(request, app=acting(self._app, actor), actor=actor)
            if not route.upload:
                public = route.permission is Permission.PUBLIC
                limit = bodies.STRANGERS_LIMIT_BYTES if public else bodies.BODY_LIMIT_BYTES
                request = replace(request, body=await bodies.in_memory(headers, receive, limit))
                return await self._threads.run(_handle, route, request)
            limit, folder = self._upload_limit_bytes, self._app.store.folder
            async with bodies.in_file(headers, receive, folder, limit, self._threads) as upload:
                request = replace(request, upload=upload)
                return await self._threads.run(_handle, route, request)
        except Unauthenticated as error:
            if route is not None and route.page and "text/html" in headers.get("accept", ""):
                way = {"location": f"{SIGN_IN}?to={quote(raw_path, safe='')}", "cache-control": "no-store"}
                return sending.prepare(Reply(b"", 303, "text/plain", way), method, headers)
            return _refuse(route.voice if route is not None else PLAIN, error, method, headers)
        except InstarError as error:
            refusing = route.voice if route is not None else self._table.voice(raw_path)
            return _refuse(refusing, error, method, headers)

    async def load_soon(self) -> None:
        """Have the routes that are made soon."""
        async with self._loading:
            if self._soon is not None:
                self._table.add(await self._threads.run(self._soon))
                self._soon = None

    async def _load_later(self) -> None:
        async with self._loading:
            if self._later is not None:
                self._table.add(await self._threads.run(self._later))
                self._later = None

    async def _find(self, raw_path: str) -> tuple[Mapping[str, Route], tuple[str, ...]]:
        found = self._table.find(raw_path)
        if not found[0] and self._soon is not None:
            await self.load_soon()
            found = self._table.find(raw_path)
        if not found[0] and self._later is not None and self._table.voice(raw_path) is PLAIN:
            await self._load_later()
            found = self._table.find(raw_path)
        return found

    def _unknown(
        self, raw_path: str, method: str, methods: Mapping[str, Route], headers: Mapping[str, str]
    ) -> Prepared:
        """What is answered where no route fits: 405 where another method would, the way without a last slash, or 404."""
        subject = f"{method} {raw_path[:200]}"
        if methods:
            allowed = ", ".join(sorted(methods))
            voice = next(iter(methods.values())).voice
            reply = voice.refuse(NotFound("there is no such method here", subject=subject, asked=allowed))
            reply = replace(reply, status=405, headers={**reply.headers, "allow": allowed})
            return sending.prepare(reply, method, headers)
        shorter = raw_path.rstrip("/")
        if shorter and shorter != raw_path and self._table.find(shorter)[0] and not shorter.startswith("//"):
            return sending.prepare(Reply(b"", 307, "text/plain", {"location": shorter}), method, headers)
        error = NotFound("there is no such route", subject=subject, next_step="GET /api/openapi.json lists them.")
        return _refuse(self._table.voice(raw_path), error, method, headers)


def _handle(route: Route, request: Request) -> Prepared:
    """Run the handler, in a thread."""
    try:
        return sending.prepare(route.handler(request), request.method, request.headers)
    except InstarError as error:
        return _refuse(route.voice, error, request.method, request.headers)
    except OSError as error:
        if not bodies.is_full(error):
            return _fail(route, request, error)
        return _refuse(route.voice, bodies.full(error, "it cannot be kept"), request.method, request.headers)
    except Exception as error:
        return _fail(route, request, error)


def _fail(route: Route, request: Request, error: Exception) -> Prepared:
    """A mistake of ours: logged with where it happened, and said without."""
    log.error("%s %s failed", request.method, route.path, exc_info=error)
    ours = InstarError(f"the server failed: {type(error).__name__}", subject=f"{request.method} {route.path}")
    return _refuse(route.voice, ours, request.method, request.headers)


def _refuse(voice: Voice, error: InstarError, method: str, headers: Mapping[str, str]) -> Prepared:
    reply = voice.refuse(error)
    more = {name.decode(): value.decode() for name, value in headers_of(error)}
    if more:
        reply = replace(reply, headers={**reply.headers, **more})
    if reply.status == 500:
        log.error("%s: %s", type(error).__name__, error)
    return sending.prepare(reply, method, headers)


def _query(text: bytes) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for key, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True) if text else ():
        if "\0" in value:
            raise MalformedRequest("the query has a NUL", subject=key, found=repr(value[:100]))
        lists.setdefault(key, []).append(value)
    return lists
