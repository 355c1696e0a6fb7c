"""The clock of a walk: how long its steps took before, which of them are still to come, and so how long it will take."""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.store import Store
from instar.plan.known import Known, runs
from instar.plan.pipeline import Pipeline
from instar.plan.progress import duration_of_parts, time_left

REFRESH_SECONDS = 0.5  # so that a walk of a thousand quick steps does not reckon a thousand times


class Timing:
    """How long a walk will still take; looked up when the first step begins to run, so that a walk of known results pays
    nothing.

    Args:
        force: Steps that run although their result is known.
    """

    def __init__(
        self,
        store: Store,
        project: str,
        pipeline: Pipeline,
        order: Sequence[str],
        known: Known,
        force: frozenset[str],
        jobs: int,
    ) -> None:
        self._store, self._project, self._pipeline, self._jobs = store, project, pipeline, jobs
        self._order, self._known, self._force = order, known, force
        self._ahead: dict[str, list[str]] | None = None  # steps that will run, and which of these each waits for
        self._expected: dict[str, float] = {}
        self._unknown: set[str] = set()  # steps ahead of which it is not known how long they take
        self._began: dict[str, float] = {}
        self._last: tuple[float, float] | None = None  # when it was computed, and what came out

    def started(self, step: str, now: float) -> None:
        """A step, or the first partition of it, begins."""
        self._began.setdefault(step, now)
        if self._ahead is None:
            self._look()

    def parts(self, step: str, number: int) -> None:
        """A step will run so many partitions."""
        with self._store.database.read() as tx:
            one = duration_of_parts(tx, self._project, step)
        self._unknown.discard(step)
        self._expected.pop(step, None)
        if one is None:
            self._unknown.add(step)
        else:
            self._expected[step] = one * number / self._jobs

    def settled(self, step: str) -> None:
        """A step has its result."""
        self._unknown.discard(step)
        if self._ahead is not None:
            self._ahead.pop(step, None)

    def left(self, now: float) -> float | None:
        """Seconds that the walk will still take; None when that is not known."""
        if not self._ahead or self._unknown:
            return None
        if self._last is None or now - self._last[0] > REFRESH_SECONDS:
            needs = {step: [one for one in waits if one in self._ahead] for step, waits in self._ahead.items()}
            running = {step: now - began for step, began in self._began.items() if step in needs}
            self._last = now, time_left(needs, self._expected, running, self._jobs)
        computed, seconds = self._last
        return max(0.0, seconds - (now - computed))

    def _look(self) -> None:
        """What will run: what has no known result, and all that reads it; an equal output may save some of that."""
        ahead: dict[str, list[str]] = {}
        for name in self._order:
            step = self._pipeline.steps[name]
            waits = [item.name for item in step.inputs if item.name in ahead]
            if runs(step) and (waits or name in self._force or not self._known.is_current(name)):
                ahead[name] = waits
                before = self._known.good(name)
                if name in self._expected:  # said by its parts
                    continue
                if before is None or before.ended is None or step.by:
                    self._unknown.add(name)
                else:
                    self._expected[name] = (before.ended - before.started).total_seconds()
        self._ahead = ahead
