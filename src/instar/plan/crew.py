"""Who makes the attempts of a walk: this process, one at a time, or processes of their own that are heard and ended.

An attempt ends in an outcome, however it ends: what was kept, the error, or that an input changed before it was read.
Timeouts are kept here; whether to try again is the walk's to say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from instar.core.errors import InstarError, PipelineError, StepFailed
from instar.plan.attempts import Work, attempt, named
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.output import Follower, captured
from instar.plan.pipeline import Step
from instar.plan.place import Bench, Place, Report
from instar.plan.terms import spoken
from instar.plan.workshop import Workshop


class Unit(NamedTuple):
    """What is attempted: a step, or one partition of it."""

    step: str
    partition: str | None = None


@dataclass(frozen=True)
class Manner:
    """How a walk goes about its work.

    Attributes:
        jobs: Most attempts at once; from 2 on each has a process of its own.
        keep_going: After a failure, go on with all that does not depend on it.
        place: How a process of its own finds store and project; None: all runs here.
        logs: Keep what steps print with their executions; otherwise leave it alone, for a debugger.
        whole_process: This process is there for the walk alone, so that all it prints may be kept.
        follow: Pass on what steps print, while they do.
        cold: Start the processes of steps anew instead of forking them.
    """

    jobs: int = 1
    keep_going: bool = False
    place: Place | None = None
    logs: bool = True
    whole_process: bool = False
    follow: bool = False
    cold: bool = False


@dataclass
class Running:
    """An attempt that runs: since when, and until when at most (monotonic seconds)."""

    unit: Unit
    work: Work
    began: float
    deadline: float | None = None
    timed_out: bool = False

    @property
    def execution(self) -> Execution:
        return self.work.execution


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: `stored`, or `error`, or neither: an input changed before it was read."""

    running: Running
    stored: Stored | None = None
    error: BaseException | None = None
    log: str | None = None


class Crew:
    """Makes attempts.

    Args:
        bench: Store, project, pipeline and kinds of this process.
        confirm: Raises when outputs must not be kept any more.
        tell: Told each line that an execution prints, when the manner is to follow.
    """

    def __init__(
        self, bench: Bench, manner: Manner, confirm: Callable[[], None], tell: Callable[[str, str], None]
    ) -> None:
        self._bench, self._manner, self._confirm = bench, manner, confirm
        self._follower = Follower(bench.store, tell if manner.follow else None)
        place = manner.place
        self._workshop = None if place is None else Workshop(place, bench.pipeline.sources, manner.cold)
        self.running: dict[str, Running] = {}  # in processes of their own, by execution

    def prove(self, step: Step) -> None:
        """Raises PipelineError when the step needs a process of its own, and nobody said how to make one."""
        if self._workshop is None and not self._runs_here(step):
            raise PipelineError(
                "it needs a process of its own, which this caller does not give it",
                subject=f"step {step.name}",
                found=f"{self._manner.jobs} jobs, timeout {step.terms.timeout}",
                next_step="Hand a `place` to the runner, or take the timeout away.",
            )

    def begin(self, unit: Unit, work: Work) -> Outcome | None:
        """Make an attempt here, to its end, or begin it in a process of its own."""
        running = Running(unit, work, self._bench.store.clock.monotonic())
        if self._workshop is None or self._runs_here(work.step):
            return self._here(running)
        return self._send(self._workshop, running)

    def hear(self, seconds: float) -> list[Outcome]:
        """Wait until an attempt says something or runs out of time, at most so many seconds; those that ended."""
        assert self._workshop is not None
        now = self._bench.store.clock.monotonic()
        deadlines = [one.deadline for one in self.running.values() if one.deadline is not None and not one.timed_out]
        try:
            report = self._workshop.hear(max(0.0, min([now + seconds, *deadlines]) - now))
        except StepFailed as error:
            ended, self.running = list(self.running.values()), {}
            return [self._outcome(one, error=error) for one in ended]
        found = [] if report is None else self._heard(self._workshop, report)
        now = self._bench.store.clock.monotonic()
        for id_, one in self.running.items():
            if one.deadline is not None and one.deadline <= now and not one.timed_out:
                one.timed_out = True
                self._workshop.end(id_)
        return found

    def break_off(self, error: BaseException) -> list[Outcome]:
        """End all that runs, but keep whole what is being kept just now."""
        if self._workshop is None or not self.running:
            return []
        reports = self._workshop.finish_keeping()
        done = {one.execution: one.value for one in reports if one.word == "done"}
        ended, self.running = self.running, {}
        return [
            self._outcome(one, stored=done[id_]) if id_ in done else self._outcome(one, error=error)
            for id_, one in ended.items()
        ]

    def close(self) -> None:
        """Leave no process and no thread."""
        if self._workshop is not None:
            self._workshop.close()
        self._follower.close()

    def _runs_here(self, step: Step) -> bool:
        return self._manner.jobs == 1 and step.terms.timeout is None

    def _here(self, running: Running) -> Outcome:
        bench, work = self._bench, running.work
        catch: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self._manner.logs:
            catch = captured(self._follower.begin(work.execution.id), self._manner.whole_process)
        try:
            with catch:
                stored = attempt(bench.project, bench.pipeline, bench.kinds, work, self._confirm)
        except BaseException as error:
            return self._outcome(running, error=error)
        return self._outcome(running, stored=stored)

    def _send(self, workshop: Workshop, running: Running) -> Outcome | None:
        work = running.work
        log = self._follower.begin(work.execution.id) if self._manner.logs else None
        try:
            workshop.begin(replace(work, step=replace(work.step, function=None), log=log))
        except InstarError as error:
            return self._outcome(running, error=error)
        self.running[work.execution.id] = running
        return None

    def _heard(self, workshop: Workshop, report: Report) -> list[Outcome]:
        running = self.running.get(report.execution)
        if running is None:
            return []
        if report.word == "began":  # what its process took to begin is not the step's time
            timeout = running.work.step.terms.timeout
            if timeout is not None:
                running.deadline = self._bench.store.clock.monotonic() + timeout.total_seconds()
            return []
        if report.word == "ran":
            if not running.timed_out:
                self._confirm()
                running.deadline = None  # what is kept is kept whole
                workshop.keep(report.execution)
            return []
        del self.running[report.execution]
        if report.word == "failed":
            return [self._outcome(running, error=report.value)]
        if report.word == "gone":
            return [self._outcome(running, error=_gone(running, report.value))]
        return [self._outcome(running, stored=report.value)]

    def _outcome(
        self, running: Running, *, stored: Stored | None = None, error: BaseException | None = None
    ) -> Outcome:
        return Outcome(running, stored, error, self._follower.end(running.execution.id))


def _gone(running: Running, status: int) -> StepFailed:
    """Why an attempt's process ended without a word."""
    step = running.work.step
    subject = named(step, running.unit.partition)
    if running.timed_out:
        assert step.terms.timeout is not None
        return StepFailed(
            "it took longer than its timeout, and was ended",
            subject=subject,
            asked=f"at most {spoken(step.terms.timeout.total_seconds())}",
            next_step=f"Make it faster, or allow it more: timeout in [step.{step.name}] of instar.toml, or --timeout.",
        )
    return StepFailed(
        "its process ended before the function returned",
        subject=subject,
        found=f"signal {-status}" if status < 0 else f"exit status {status}",
        next_step=f"See what it printed: instar logs {step.name}. Signal 9 is often a lack of memory.",
    )
