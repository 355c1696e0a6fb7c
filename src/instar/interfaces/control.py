"""The control process: serves the API and the console over a Unix socket, to which gateways relay all but inference.

It also runs the project's controllers, unless `INSTAR_CONTROLLERS=off`: a replay moves event time, and turns by itself.

    python -m instar.interfaces.control --folder .instar --socket .instar/serve/control.sock --project .

A server is as quick to start as this process, so what the first answer does not need is imported after it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instar.app import App
    from instar.interfaces.api.application import Application
    from instar.interfaces.api.routes import Route
    from instar.serve.gateway.control_line import Connect, Line

log = logging.getLogger("instar.control")

SWITCH_SECONDS = 0.0005
LINE_SECONDS = 86_400  # gateways keep their lines to us open; we are not the ones who hang up
MISTAKE = 78  # exit status (EX_CONFIG): what a restart would not mend


def build(app: App, routes: Iterable[Route] | None = None) -> Application:
    """The control process's web application over an opened store."""
    from instar.core.settings import read_settings
    from instar.interfaces import all_routes
    from instar.interfaces.api.application import Application
    from instar.serve.gateway.relay import Relay

    if routes is not None:
        return Application(app, routes)
    return Application(
        app, all_routes.first_routes(), soon=all_routes.soon_routes, later=all_routes.later_routes,
        elsewhere=Relay(_to_gateway(app.store.folder)), upload_limit_bytes=read_settings().upload_limit_bytes,
    )  # fmt: skip


def _to_gateway(store_folder: Path) -> Connect:
    """Lines to a gateway, by the port of the server that runs on this store."""
    from instar.serve.root.process import running

    async def connect(make: Callable[[], Line]) -> tuple[Any, Line]:
        server = running(store_folder)
        if server is None:
            raise OSError("no server runs on this store")
        return await asyncio.get_running_loop().create_connection(make, server.host, server.port)

    return connect


def main() -> None:
    """Serve until the process is told to stop."""
    gc.disable()  # imports make many objects that stay: looking through them again and again is a tenth of the start
    parser = argparse.ArgumentParser(description="Instar's control process")
    parser.add_argument("--folder", type=Path, required=True, help="the store's folder")
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket to listen on")
    parser.add_argument("--project", type=Path, default=None, help="the project's folder; default none")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # each step of a new store's schema is no news
    from instar.app import open_app
    from instar.core.errors import InstarError

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
    import uvicorn

    from instar.core.settings import read_settings
    from instar.interfaces.api.bodies import clear_uploads
    from instar.interfaces.background import Background
    from instar.interfaces.keeping import Keeping
    from instar.serve.access import granting
    from instar.serve.gateway.door import TakingServer
    from instar.serve.gateway.one_write import OneWriteProtocol
    from instar.serve.publishing import snapshot
    from instar.serve.traffic.routes import door_socket

    # A thread that decodes a large body must not keep the loop waiting for the interpreter: 5 ms each is Python's own limit.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What was decided while nothing ran takes effect before the first answer, and a contract that cannot be read stops us.
    snapshot.publish(app.store, whole=True)
    settings = read_settings()
    if not settings.trusting:  # the owner's own programs on this machine find a token there
        granting.make_local_token(app.store.folder)
    granting.publish(app.store)
    application = build(app)
    keeping = Keeping(app.store, application.doorkeeper, settings)
    log.info("serving project %s", app.project_name)
    clear_uploads(app.store.folder)
    socket.unlink(missing_ok=True)
    config = uvicorn.Config(
        application, uds=str(socket), http=OneWriteProtocol, loop="uvloop", ws="none", lifespan="on", log_level="warning",
        access_log=False, proxy_headers=False, server_header=False, date_header=False,
        timeout_keep_alive=LINE_SECONDS,
    )  # fmt: skip
    background = Background(app)

    async def after_the_start() -> None:
        try:
            await application.load_soon()
        except Exception:  # every call that needs them tries again, and says so as well
            log.exception("the routes of tracking cannot be loaded")
        from instar.train import part_uploads

        await asyncio.to_thread(part_uploads.sweep, app.store)
        gc.freeze()  # what was loaded stays; it is not looked through again
        gc.enable()
        keeping.begin()
        if settings.controllers:
            background.begin()

    try:
        TakingServer(config, door_socket(app.store.folder), after_the_start).run()
    finally:
        background.end()
        keeping.end()


if __name__ == "__main__":
    main()
