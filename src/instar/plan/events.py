"""What is told while the pipeline runs, and what is said of each step at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from instar.plan.executions import Execution


@dataclass(frozen=True)
class Event:
    """Something to show while the pipeline runs.

    Attributes:
        state: `"waiting"` (another process runs the pipeline), `"resuming"` (the walk before did not reach its end),
            `"started"`, `"done"`, `"cached"`, `"landed"`, `"failed"`, `"retrying"`, `"skipped"` (what it needs failed) or
            `"output"` (a line that the step's function printed; told from another thread).
        step: The step.
        number, total: The step's place in the walk, from 1.
        seconds: How long it took.
        detail: A line for people.
        partition: The partition, when it is about one.
        left: Seconds that the walk will still take, going by earlier executions; None when they are not known.
        execution: The execution that it is about.
    """

    state: str
    step: str = ""
    number: int = 0
    total: int = 0
    seconds: float = 0.0
    detail: str = ""
    partition: str | None = None
    left: float | None = None
    execution: str | None = None


Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Walked:
    """What a walk did with one step.

    Attributes:
        state: `"done"` (it ran), `"cached"` (a known result is current), `"landed"` (a source), and in the record of a
            walk that failed also `"failed"` and `"skipped"`.
        partitions: Those that ran, of a step that runs by partitions.
    """

    step: str
    kind: str
    state: str
    execution: str | None
    ref: str | None
    digest: str
    seconds: float = 0.0
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Walk:
    """One walk of the pipeline that reached its end."""

    id: str
    contract: str
    steps: tuple[Walked, ...] = ()
    executions: tuple[Execution, ...] = field(default=(), repr=False)

    def ran(self) -> list[str]:
        """Names of the steps that were run, in order."""
        return [one.step for one in self.steps if one.state == "done"]

    def step(self, name: str) -> Walked:
        """What was done with the step of that name."""
        return next(one for one in self.steps if one.step == name)
