"""The thread that reads resource use while a run lasts, and records it with the run's metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from instar.train.resources import Gauge

log = logging.getLogger("instar.run")

EVERY_SECONDS = 10.0


class Sampler:
    """Reads every so many seconds, and once more at the end, so that a short run has a reading too.

    Args:
        record: Takes the values and the number of the reading.
        gauge: Makes what is read; in the thread, since it is slow to begin.
    """

    def __init__(
        self,
        record: Callable[[dict[str, float], int], None],
        *,
        every_seconds: float = EVERY_SECONDS,
        gauge: Callable[[], Gauge] = Gauge,
    ) -> None:
        self._record, self._every, self._gauge = record, every_seconds, gauge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="instar-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read a last time and end; waits a second at most."""
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            gauge = self._gauge()
            step, ending = 0, False
            while not ending:
                ending = self._stop.wait(self._every)
                self._record(gauge.read(), step)
                step += 1
        except Exception:  # nothing that is only observed may end a training
            log.warning("resource use is not recorded any more", exc_info=True)
