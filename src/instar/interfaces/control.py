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

import uvicorn

from instar.app import App, open_app
from instar.core.identity import SYSTEM, Permission
from instar.core.settings import read_settings
from instar.interfaces.api.application import Application
from instar.interfaces.api.bodies import clear_uploads
from instar.interfaces.api.routes import Reply, Request, Route
from instar.operate import controllers

log = logging.getLogger("instar.control")

STAGES = ("plan", "data", "train", "release", "serve", "operate", "notes", "spool")


def all_routes() -> list[Route]:
    """The one table of routes and their permissions: every stage's, the console's, and the description of the API."""
    from instar.interfaces.console import pages
    from instar.interfaces.mlflow import routes as mlflow

    found: list[Route] = []
    for stage in STAGES:
        found += importlib.import_module(f"instar.interfaces.api.{stage}").routes
    return [*found, *mlflow.all_routes(), *pages.routes, Route("GET", "/api/openapi.json", Permission.READ, _describe)]


def build(app: App, routes: Iterable[Route] | None = None) -> Application:
    """The control process's web application over an opened store."""
    return Application(app, all_routes() if routes is None else routes)


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
        clear_uploads(app.store.folder)
        with _controllers(app) if read_settings().controllers else nullcontext():
            uvicorn.run(build(app), uds=str(options.socket), log_level="warning", lifespan="on")


if __name__ == "__main__":
    main()
