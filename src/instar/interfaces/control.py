"""The control process: serves the API and the console over a Unix socket, to which gateways relay all but inference.

It also runs the project's controllers, unless `INSTAR_CONTROLLERS=off`: a replay moves event time, and turns by itself.

    python -m instar.interfaces.control --folder .instar --socket .instar/serve/control.sock --project .
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from instar.app import App, open_app
from instar.core.errors import InstarError
from instar.core.identity import SYSTEM, Permission
from instar.core.settings import read_settings
from instar.interfaces.api.application import Application
from instar.interfaces.api.bodies import clear_uploads
from instar.interfaces.api.routes import Reply, Request, Route
from instar.operate import controllers
from instar.release import delivery
from instar.serve import snapshot
from instar.serve.control_line import Connect, Line
from instar.serve.door import TakingServer
from instar.serve.process import running
from instar.serve.relay import Relay
from instar.serve.routes import door_socket

log = logging.getLogger("instar.control")

# Every stage's routes. Clients log runs through the first ones from the first second on; the others bring in the libraries
# for tables, and are loaded when somebody asks for one of them.
EARLY_STAGES = ("train", "tracking", "experiments", "spool")
LATER_STAGES = ("plan", "data", "release", "serve", "operate", "notes")

SWITCH_SECONDS = 0.0005
LINE_SECONDS = 86_400  # gateways keep their lines to us open; we are not the ones who hang up
MISTAKE = 78  # exit status (EX_CONFIG): what a restart would not mend


def early_routes() -> list[Route]:
    """The routes that are there from the start: tracking, and what a server says of itself."""
    from instar.interfaces.mlflow import routes as mlflow

    return [*_of_stages(EARLY_STAGES), *mlflow.all_routes()]


def later_routes() -> list[Route]:
    """All others: the console, the later stages, and the description of the API."""
    from instar.interfaces.console import pages

    return [
        *_of_stages(LATER_STAGES),
        *pages.routes,
        Route("GET", "/api/openapi.json", Permission.READ, _describe),
    ]


def all_routes() -> list[Route]:
    """The one table of routes and their permissions."""
    return [*early_routes(), *later_routes()]


def _of_stages(stages: Iterable[str]) -> list[Route]:
    return [route for stage in stages for route in importlib.import_module(f"instar.interfaces.api.{stage}").routes]


def build(app: App, routes: Iterable[Route] | None = None) -> Application:
    """The control process's web application over an opened store."""
    if routes is not None:
        return Application(app, routes)
    limit = read_settings().upload_limit_bytes
    gateways = Relay(_to_gateway(app.store.folder))
    return Application(app, early_routes(), later=later_routes, elsewhere=gateways, upload_limit_bytes=limit)


def _to_gateway(store_folder: Path) -> Connect:
    """Lines to a gateway, by the port of the server that runs on this store."""

    async def connect(make: Callable[[], Line]) -> tuple[Any, Line]:
        server = running(store_folder)
        if server is None:
            raise OSError("no server runs on this store")
        return await asyncio.get_running_loop().create_connection(make, server.host, server.port)

    return connect


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
    """Run the project's controllers and the delivery of webhooks beside the server."""
    stop = threading.Event()
    # Decisions that nobody makes by hand are the system's own, and the record says so.
    store = replace(app.store, actor=SYSTEM)
    threads = [
        threading.Thread(target=_control, args=(replace(app, store=store), stop), name="controllers", daemon=True),
        threading.Thread(target=delivery.run, args=(store, stop), name="webhooks", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)


def _control(app: App, stop: threading.Event) -> None:
    """Wait until there is something to control, then control it."""
    if not controllers.wait_for_work(app.store, app.project_name, app.project_if_any, stop):
        return
    if app.root is None:
        controllers.run_without_project(app.store, app.project_name, stop)
    else:
        from instar.interfaces.scheduled import Launcher

        launcher = Launcher(app)
        try:
            controllers.run(app.loop(), stop, launch=launcher)
        finally:
            launcher.close()


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(description="Instar's control process")
    parser.add_argument("--folder", type=Path, required=True, help="the store's folder")
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket to listen on")
    parser.add_argument("--project", type=Path, default=None, help="the project's folder; default none")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # each step of a new store's schema is no news
    try:
        with open_app(
            options.project or options.folder.parent,
            store_folder=options.folder,
            need_project=options.project is not None,
        ) as app:
            _serve(app, options.socket)
    except InstarError as error:
        # The root's standard error is ours: whoever started the server reads why.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(MISTAKE)


def _serve(app: App, socket: Path) -> None:
    # A thread that decodes a large body must not keep the loop waiting for the interpreter: 5 ms each is Python's own limit.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What was decided while nothing ran takes effect before the first answer, and a contract that cannot be read stops us.
    snapshot.publish(app.store)
    application = build(app)
    log.info("serving project %s", app.project_name)
    clear_uploads(app.store.folder)
    socket.unlink(missing_ok=True)
    config = uvicorn.Config(
        application, uds=str(socket), http="httptools", loop="uvloop", ws="none", lifespan="on", log_level="warning",
        access_log=False, proxy_headers=False, server_header=False, date_header=False,
        timeout_keep_alive=LINE_SECONDS,
    )  # fmt: skip
    with _controllers(app) if read_settings().controllers else nullcontext():
        TakingServer(config, door_socket(app.store.folder)).run()


if __name__ == "__main__":
    main()
