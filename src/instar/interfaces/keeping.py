"""Beside the answers of a server: who may call is said again and again, and what gateways saw of callers comes on the record.

Gateways take silence for a sign that nobody is left to tell them of a revocation. Where machines share a database, tokens are
read from it twice a second, since another machine may have revoked one. Else the thread sleeps until there is something to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from typing import Any

from instar.core.settings import Settings
from instar.core.store import Store
from instar.core.watching import FolderWatch
from instar.interfaces.api.doorkeeper import Doorkeeper
from instar.serve.access import granting, visits

GATHER_SECONDS = 1.0  # for which what is seen is gathered before it is written
SHARED_SECONDS = 0.5  # between two readings of a database that other machines write
SAY_SECONDS = 20.0  # between two words about tokens, which gateways expect
REST_SECONDS = 300.0  # while there are no tokens
AGAIN_SECONDS = 60.0  # between two complaints while a database is away

log = logging.getLogger("instar.control")


class Keeping:
    """The thread that does so, in the control process."""

    def __init__(self, store: Store, doorkeeper: Doorkeeper, settings: Settings) -> None:
        self._store, self._doorkeeper = store, doorkeeper
        stale = settings.identity_max_stale_seconds
        self._say_seconds = min(SAY_SECONDS, stale / 3) if stale is not None else SAY_SECONDS
        self._shared = store.database.dialect != "sqlite"
        self._over = threading.Event()
        self._told = 0.0  # when it was last said that nothing can be said; 0 while all is well
        self._heard, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)

    def begin(self) -> None:
        """Start."""
        self._doorkeeper.visits.tell = self._wake
        self._thread.start()

    def end(self) -> None:
        """Put what was seen on the record, and end."""
        self._over.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=10.0)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is told already
            os.write(self._tell, b"w")

    def _run(self) -> None:
        folder = visits.visits_folder(self._store.folder)
        folder.mkdir(parents=True, exist_ok=True)
        watch = FolderWatch(folder)
        said = time.monotonic()
        while not self._over.is_set():
            due = time.monotonic() - said >= self._say_seconds
            if due:
                said = time.monotonic()
            self._turn(due)
            self._over.wait(GATHER_SECONDS if not self._shared else SHARED_SECONDS)
            self._sleep(watch)
        self._turn(False)
        watch.close()

    def _turn(self, say: bool) -> None:
        seen = self._doorkeeper.visits
        used, refused = seen.take(self._doorkeeper.keyring.passes())
        try:
            visits.take_in(self._store)
            visits.record(self._store, used, refused)
            used, refused = {}, {}
            if say or self._shared:
                granting.publish(self._store, say=say)
                self._doorkeeper.keyring.look()
        except (
            Exception
        ) as problem:  # a database that is away: what was seen waits, and gateways go on as they are told to
            seen.put_back(used, refused)
            self._complain(problem)
        else:
            if self._told:
                log.warning("what callers did, and may do, is said again")
            self._told = 0.0

    def _complain(self, problem: Exception) -> None:
        """Loudly, but not at each turn: a database may be away for a night."""
        now = time.monotonic()
        if not self._told or now - self._told >= AGAIN_SECONDS:
            self._told = now
            log.warning("what callers did, or may do, is not said for now: %s: %s", type(problem).__name__, problem)

    def _sleep(self, watch: FolderWatch) -> None:
        sources: list[Any] = [self._heard, *([watch] if watch.tells else [])]
        if self._shared or not watch.tells:
            seconds = 0.0
        else:
            seconds = self._say_seconds if self._doorkeeper.keyring.passes() else REST_SECONDS
        readable, _, _ = select.select(sources, [], [], seconds)
        if self._heard in readable:
            os.read(self._heard, 4096)
        if watch in readable:
            watch.clear()
