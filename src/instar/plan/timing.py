"""The clock of a walk: how long its steps took before, which of them are still to come, and so how long it will take."""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.store import Store
from instar.plan.known import Known, runs
from instar.plan.pipeline import Pipeline
from instar.plan.progress import durations, durations_of_parts, time_left


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
        self._began: dict[str, float] = {}

    def started(self, step: str, now: float) -> None:
        """A step, or the first partition of it, begins."""
        self._began.setdefault(step, now)
        if self._ahead is None:
            self._look()

    def parts(self, step: str, number: int) -> None:
        """A step will run so many partitions."""
        with self._store.database.read() as tx:
            one = durations_of_parts(tx, self._project, [step]).get(step)
            joined = durations(tx, self._project, [step]).get(step, 0.0)
        if one is None:
            self._expected.pop(step, None)
        else:
            self._expected[step] = one * number / self._jobs + joined

    def settled(self, step: str) -> None:
        """A step has its result."""
        if self._ahead is not None:
            self._ahead.pop(step, None)

    def left(self, now: float) -> float | None:
        """Seconds that the walk will still take; None when that is not known."""
        if not self._ahead:
            return None
        needs = {step: [one for one in waits if one in self._ahead] for step, waits in self._ahead.items()}
        running = {step: now - began for step, began in self._began.items() if step in needs}
        return time_left(needs, self._expected, running, self._jobs)

    def _look(self) -> None:
        """What will run: what has no known result, and all that reads it; an equal output may save some of that."""
        ahead: dict[str, list[str]] = {}
        for name in self._order:
            step = self._pipeline.steps[name]
            waits = [item.name for item in step.inputs if item.name in ahead]
            if runs(step) and (waits or name in self._force or not self._known.is_current(name)):
                ahead[name] = waits
        missing = [name for name in ahead if name not in self._expected]
        with self._store.database.read() as tx:
            self._expected |= durations(tx, self._project, missing)
        self._ahead = ahead
