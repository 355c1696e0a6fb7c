"""The control process: serves the API and the console over a Unix socket, to which gateways relay all but inference.

It also runs the project's controllers, unless `INSTAR_CONTROLLERS=off`: a replay moves event time, and turns by itself.

    python -m instar.interfaces.control --folder .instar --socket .instar/serve/control.sock --project .
"""

from __future__ import annotations

import argparse
import importlib
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from instar.app import App, open_app
from instar.core import identity
from instar.core.errors import InstarError, MalformedRequest, NotAllowed, TooLarge
from instar.core.identity import SYSTEM, Permission
from instar.core.settings import read_settings
from instar.core.telemetry import counter
from instar.interfaces.api.routes import Reply, Request, Route
from instar.interfaces.api.status import body_of, status_of
from instar.operate import controllers

log = logging.getLogger("instar.control")

STAGES = ("plan", "data", "train", "release", "serve", "operate", "notes")
BODY_LIMIT = 64 * 1024 * 1024  # bytes; larger things are uploaded as streams
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})


def all_routes() -> list[Route]:
    """The one table of routes and their permissions: every stage's, the console's, and the description of the API."""
    from instar.interfaces.console import pages

    found: list[Route] = []
    for stage in STAGES:
        found += importlib.import_module(f"instar.interfaces.api.{stage}").routes
    return [*found, *pages.routes, Route("GET", "/api/openapi.json", Permission.READ, _describe)]


def build(app: App, routes: Iterable[Route] | None = None) -> Starlette:
    """The control process's web application over an opened store."""
    table = all_routes() if routes is None else list(routes)
    return Starlette(routes=[HttpRoute(route.path, _endpoint(app, route), methods=[route.method]) for route in table])


def _endpoint(app: App, route: Route):  # type: ignore[no-untyped-def]
    async def endpoint(http: HttpRequest) -> Response:
        try:
            _refuse_strangers(http)
            body = await _body(http)
            # One local user for now; a token will name others here, and nowhere else.
            actor = identity.local_user()
            identity.require(actor, route.permission)
            request = Request(app, actor, http.path_params, dict(http.query_params), body, dict(http.headers))
            reply = await run_in_threadpool(route.handler, request)
        except InstarError as error:
            reply = Reply(body_of(error), status_of(error))
            if reply.status == 500:
                log.exception("%s %s failed", http.method, http.url.path)
        counter("instar_api_requests_total", "Requests to the control API", ("method", "path", "status")).labels(
            route.method, route.path, str(reply.status)
        ).inc()
        return Response(reply.content(), reply.status, headers=dict(reply.headers), media_type=reply.media_type)

    return endpoint


def _refuse_strangers(http: HttpRequest) -> None:
    """A page of another site, open in the user's browser, must not be able to act as the user."""
    host = urlsplit("//" + http.headers.get("host", "")).hostname
    if host not in LOOPBACK:
        raise NotAllowed("the request names another host", found=host, asked="127.0.0.1 or localhost")
    origin = http.headers.get("origin")
    if origin is not None and urlsplit(origin).hostname not in LOOPBACK:
        raise NotAllowed("the request comes from a page of another site", found=origin)
    if http.method in ("POST", "PUT", "PATCH", "DELETE"):
        media = http.headers.get("content-type", "application/json").split(";")[0].strip()
        if media in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
            raise MalformedRequest("forms are not accepted", found=media, asked="application/json")


async def _body(http: HttpRequest) -> bytes:
    parts, size = [], 0
    async for part in http.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLarge("the body is too large", found=f"more than {BODY_LIMIT} bytes", asked=f"{BODY_LIMIT} bytes")
        parts.append(part)
    return b"".join(parts)


def _describe(request: Request) -> Reply:
    """An OpenAPI description made from the table of routes."""
    paths: dict[str, dict[str, object]] = {}
    for route in all_routes():
        summary = (route.handler.__doc__ or "").strip().split("\n")[0]
        paths.setdefault(route.path, {})[route.method.lower()] = {
            "summary": summary,
            "x-permission": route.permission.value,
            "responses": {"200": {"description": "done"}},
        }
    return Reply({"openapi": "3.1.0", "info": {"title": "Instar", "version": "1"}, "paths": paths})


@contextmanager
def _controllers(app: App) -> Iterator[None]:
    """Run the project's controllers beside the server."""
    stop = threading.Event()
    # Decisions that nobody makes by hand are the system's own, and the record says so.
    loop = replace(app.loop(), store=replace(app.store, actor=SYSTEM))
    thread = threading.Thread(target=controllers.run, args=(loop, stop), name="controllers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(description="Instar's control process")
    parser.add_argument("--folder", type=Path, required=True, help="the store's folder")
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket to listen on")
    parser.add_argument("--project", type=Path, default=None, help="the project's folder")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    with open_app(options.project or options.folder.parent, store_folder=options.folder) as app:
        options.socket.unlink(missing_ok=True)
        with _controllers(app) if read_settings().controllers else nullcontext():
            uvicorn.run(build(app), uds=str(options.socket), log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
