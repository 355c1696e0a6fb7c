"""What a server does beside answering, from its first answer on: the project's controllers, webhooks, and its own accounts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from instar.app import App
from instar.core.identity import SYSTEM

log = logging.getLogger("instar.control")

END_SECONDS = 30.0
ACCOUNT_SECONDS = 60.0
PAUSE_SECONDS = 10.0  # after a mistake of ours, before it is begun again


class Background:
    """Threads, which begin when the server answers: what they load would hold up its start."""

    def __init__(self, app: App) -> None:
        # Decisions that nobody makes by hand are the system's own, and the record says so.
        self._app = replace(app, store=replace(app.store, actor=SYSTEM))
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=_again, args=(name, work, self._app, self._stop), name=name, daemon=True)
            for name, work in _WORKS.items()
        ]

    def begin(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Have them end what they do, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=END_SECONDS)


def _again(
    name: str,
    work: Callable[[App, threading.Event], None],
    app: App,
    stop: threading.Event,
    pause_seconds: float = PAUSE_SECONDS,
) -> None:
    """Do the work until it ends; a mistake in it is logged, and does not end it for as long as the server lives."""
    while True:
        try:
            work(app, stop)
            return
        except Exception:
            log.exception("%s broke off; they begin again in %.0f s", name, pause_seconds)
        if stop.wait(pause_seconds):
            return


def _deliver(app: App, stop: threading.Event) -> None:
    from instar.release import delivery

    delivery.run(app.store, stop)


def _account(app: App, stop: threading.Event) -> None:
    """Take what the server used into the store, every minute."""
    from instar.serve.root import costs

    while not stop.wait(ACCOUNT_SECONDS):
        costs.take_in(app.store)


def _build(app: App, stop: threading.Event) -> None:
    """Build the environments of versions that are routed."""
    from instar.serve.publishing.building import Builder

    Builder(app.store).run(stop)


def _control(app: App, stop: threading.Event) -> None:
    """Wait until there is something to control, then control it."""
    from instar.operate import controllers

    if not controllers.wait_for_work(app.store, app.project_name, app.project_if_any, stop):
        return
    if app.root is None:
        controllers.run_without_project(app.store, app.project_name, stop)
        return
    from instar.interfaces.scheduled import Launcher

    launcher = Launcher(app)
    try:
        controllers.run(app.loop(), stop, launch=launcher)
    finally:
        launcher.close()


_WORKS: dict[str, Callable[[App, threading.Event], None]] = {
    "controllers": _control, "webhooks": _deliver, "accounts": _account, "environments": _build,
}  # fmt: skip
