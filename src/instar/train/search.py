"""What a study asks of a search method, as a port: where to try next, whether to give a trial up, and what was learned.

Every process that takes part in a study has a search of its own on the same shared state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

DONE, PRUNED, FAILED, RUNNING = "done", "pruned", "failed", "running"

SAMPLERS = ("tpe", "random", "quasi-random", "grid", "nsga2")
PRUNERS = ("none", "median", "halving", "hyperband")


@dataclass(frozen=True)
class Objective:
    """A metric of a trial and whether less of it is better."""

    metric: str
    minimise: bool = True


@dataclass(frozen=True)
class Proposal:
    """A point to try: its number within the study counts from 0."""

    number: int
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A trial as the search knows it.

    Attributes:
        state: `"done"`, `"pruned"`, `"failed"` or `"running"`.
        values: One for each objective; empty unless done.
        run: Id of its run; None before it has one.
        process: Who runs it, as it called itself.
    """

    number: int
    parameters: dict[str, Any]
    state: str
    values: tuple[float, ...] = ()
    run: str | None = None
    process: str = ""
    reported: Mapping[int, float] = field(default_factory=dict)


class Search(Protocol):
    """A search method on the shared state of one study."""

    def ask(self, process: str) -> Proposal | None:
        """The next point to try; None when every point of the space was tried."""

    def began(self, number: int, run: str) -> None:
        """The trial has a run."""

    def report(self, number: int, step: int, value: float) -> bool:
        """How a trial stands after `step`; returns whether to give it up."""

    def tell(self, number: int, state: str, values: Sequence[float] = ()) -> None:
        """How a trial ended."""

    def suggest(self, parameters: Mapping[str, Any], *, again: bool = False) -> None:
        """A point to try before others; one that was suggested or tried already is not tried again, unless `again`."""

    def tried(self) -> list[Tried]:
        """All trials, in order of their numbers."""

    def best(self) -> list[int]:
        """Numbers of the best trial, or with several objectives of those that no other is better than in all."""

    def importances(self) -> dict[str, float]:
        """Share of each parameter in the spread of the first objective; empty with too few trials to say."""
