"""What each version used in a worker process, measured around scoring, for the bill."""

from __future__ import annotations

import time

from instar.serve.processes.needs import Used
from instar.serve.worker.models import Models

Key = tuple[str, int, str]  # endpoint, version, bundle


class _Sums:
    __slots__ = ("busy_ns", "calls", "cpu_ns", "rows")

    def __init__(self) -> None:
        self.calls = self.rows = self.cpu_ns = self.busy_ns = 0


class Meter:
    """Counts for one process. What runs between two marks is the first one's."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._sums: dict[Key, _Sums] = {}
        self._last: dict[str, Key] = {}
        self._now: Key | None = None
        self._cpu = self._wall = 0

    def mark(self, key: Key) -> None:
        """From here on that version is asked."""
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        self._close(cpu, wall)
        self._now, self._cpu, self._wall = key, cpu, wall

    def stop(self) -> None:
        """From here on no version is asked."""
        if self._now is not None:
            self._close(time.thread_time_ns(), time.perf_counter_ns())
            self._now = None

    def count(self, key: Key, calls: int, rows: int) -> None:
        """A version answered calls."""
        sums = self._of(key)
        sums.calls += calls
        sums.rows += rows
        self._last[key[2]] = key

    def take(self) -> tuple[Used, ...]:
        """What was counted since it was last taken."""
        models = self._models
        models.account()
        for bundle in {*models.loads, *models.byte_seconds}:
            if bundle in self._last:
                self._of(self._last[bundle])
        used = []
        for (endpoint, version, bundle), sums in self._sums.items():
            mine = self._last.get(bundle) == (endpoint, version, bundle)
            held, loads = (models.byte_seconds.pop(bundle, 0.0), models.loads.pop(bundle, 0)) if mine else (0.0, 0)
            used.append(Used(endpoint, version, bundle, sums.calls, sums.rows, sums.cpu_ns, sums.busy_ns, held, loads))
        self._sums.clear()
        return tuple(used)

    def _of(self, key: Key) -> _Sums:
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = _Sums()
        return sums

    def _close(self, cpu: int, wall: int) -> None:
        if self._now is not None:
            sums = self._of(self._now)
            sums.cpu_ns += cpu - self._cpu
            sums.busy_ns += wall - self._wall
