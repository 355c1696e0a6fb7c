"""The short list of a study: its cheapest trials by the problem's cost, and which of them cannot be told from the cheapest.

A search looks for the best value of its objective; what counts is what mistakes cost. So trials are listed by cost, each
with the interval of its difference to the cheapest on the same rows: one whose interval holds zero is as good, and may be
the faster or simpler one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instar.evaluate.compare import Interval, PairedSums

LENGTH = 5


@dataclass(frozen=True)
class Listed:
    """One trial of the short list.

    Attributes:
        run: Id of its run.
        cost: Mean cost a row, in the problem's unit.
        more: How much more it costs than the cheapest, with its interval for one look; of the cheapest: zero.
        as_good: Nothing tells it from the cheapest.
    """

    run: str
    cost: float
    more: Interval
    as_good: bool


def shortlist(costs: Sequence[tuple[str, np.ndarray[Any, Any]]], length: int = LENGTH) -> list[Listed]:
    """The `length` cheapest trials, the cheapest first.

    Args:
        costs: Run and the cost of each row, the same rows for all; shape (n,) each.
    """
    ranked = sorted(costs, key=lambda one: float(one[1].mean()))[:length]
    found = []
    for run, column in ranked:
        more = PairedSums.of(column, ranked[0][1]).margin()
        found.append(Listed(run, float(column.mean()), more, more.low <= 0.0))
    return found
