"""What the measured runs look like: the same metrics and parameters in every store."""

from __future__ import annotations

import random
from dataclasses import dataclass

START_US = 1_700_000_000_000_000  # microseconds since 1970: when the first run began
KINDS = "abcd"


@dataclass(frozen=True)
class Shape:
    """How much a store holds.

    Attributes:
        history: Points of one metric of the run with a long history.
    """

    runs: int
    metrics: int = 10
    parameters: int = 10
    history: int = 0


@dataclass(frozen=True)
class Made:
    """One run to be kept."""

    number: int
    metrics: dict[str, float]
    parameters: dict[str, str]


def run(number: int, shape: Shape) -> Made:
    """The run of that number: always the same one."""
    drawn = random.Random(number)
    metrics = {f"m{n}": drawn.random() for n in range(shape.metrics)}
    return Made(number, metrics, {f"p{n}": drawn.choice(KINDS) for n in range(shape.parameters)})
