"""The thread that delivers a living run's spool in the background: never in the way of the training, however long nobody answers.

It tries every second, waits longer after each failure (with jitter, so that a fleet does not return at once), and stops when
all is delivered after the run's end. What it could not deliver stays in the spool.
"""

from __future__ import annotations

# At the end of the interpreter this cannot be imported any more, and what a store needs imports it.
import concurrent.futures.thread  # noqa: F401
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from instar.core.errors import InstarError, StoreBusy, Unavailable
from instar.interfaces.sdk import place as places
from instar.interfaces.sdk.place import Place
from instar.train import spool
from instar.train.delivery import Delivery, Sink, Waiting

log = logging.getLogger("instar.run")

EVERY_SECONDS = 1.0
GREET_SECONDS = 60.0  # a run that logs nothing for long is told from one whose machine is gone
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
_chance = random.Random()  # of its own: the training's numbers must be the same with and without us


class Sender:
    """Delivers the spool in `folder` until its run has ended and all of it is delivered.

    Args:
        waiting: What is in memory only (see `delivery.Delivery`).
        find: The way to where records go; called again after each failure.
    """

    def __init__(
        self,
        folder: Path,
        place: Place,
        *,
        waiting: Callable[[], Waiting] = dict,
        find: Callable[[Place], Sink | None] = places.sink,
    ) -> None:
        self.trouble: Exception | None = None
        self._folder, self._place, self._waiting, self._find = folder, place, waiting, find
        self._greeted = time.monotonic()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._done = threading.Event()
        self._over = threading.Event()  # nothing more is tried
        self._thread = threading.Thread(target=self._run, name="instar-sender", daemon=True)
        self._thread.start()

    def end(self, wait_seconds: float) -> bool:
        """The run has ended: deliver the rest now. Waits at most so long; returns whether all is delivered."""
        self._ended.set()
        self._wake.set()
        self._over.wait(wait_seconds)
        return self._done.is_set()

    def _run(self) -> None:
        delivery: Delivery | None = None
        sink: Sink | None = None
        failures = 0
        while not self._done.is_set():
            self._wake.clear()
            ended = self._ended.is_set()
            try:
                if delivery is None:
                    sink = self._find(self._place)
                    if sink is None:  # nowhere to deliver to: the spool is where it stays
                        break
                    delivery = self._delivery(sink)
                self._turn(delivery, ended)
                failures, self.trouble = 0, None
            except Exception as error:  # whatever it is, the training goes on
                self._say(error)
                _close(sink)
                delivery, sink, failures = None, None, failures + 1
            if not self._done.is_set():
                self._wake.wait(EVERY_SECONDS if not failures else pause_seconds(failures, ended))
        _close(sink)
        self._over.set()

    def _delivery(self, sink: Sink) -> Delivery:
        return Delivery(self._folder, sink, place=self._place.told, waiting=self._waiting)

    def _turn(self, delivery: Delivery, ended: bool) -> None:
        with spool.delivering(self._folder) as mine:
            if not mine:
                return
            delivery.turn(greet=self._is_time_to_greet())
            if ended and delivery.settled():
                spool.mark_delivered(self._folder)
                self._done.set()
                with contextlib.suppress(OSError):
                    spool.sweep(self._folder.parent)

    def _is_time_to_greet(self) -> bool:
        now = time.monotonic()
        if now - self._greeted < GREET_SECONDS:
            return False
        self._greeted = now
        return True

    def _say(self, error: Exception) -> None:
        if type(error) is not type(self.trouble):
            # That nobody answers is what a spool is for; everything else somebody should hear of.
            level = logging.INFO if isinstance(error, Unavailable | StoreBusy) else logging.WARNING
            known = isinstance(error, InstarError)
            log.log(level, "run %s stays in its spool for now: %s", self._folder.name, error, exc_info=not known)
        self.trouble = error


def _close(sink: Sink | None) -> None:
    if sink is not None:
        with contextlib.suppress(Exception):
            sink.close()


def pause_seconds(failures: int, ended: bool) -> float:
    """How long to wait after so many failures in a row; short at the end of a run, when somebody waits."""
    longest = FIRST_PAUSE_SECONDS if ended else LONGEST_PAUSE_SECONDS
    return min(longest, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)) * _chance.uniform(0.5, 1.0)
