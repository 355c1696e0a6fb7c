"""Trials: the parameter values that a model step is fitted with while the best are looked for.

trials({"learning_rate": [0.05, 0.1], "depth": [4, 6]})     # 4 trials, in the order written
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from instar.core.errors import PipelineError

# A grid of more fits than this is a mistake more often than a wish.
MOST_TRIALS = 500


def trials(search: Mapping[str, Sequence[Any]] | None) -> list[dict[str, Any]]:
    """Every combination of the searched values, the last parameter changing fastest; one empty trial without a search.

    Args:
        search: For each parameter of the step the values to try.

    Raises:
        PipelineError: A parameter has no values, or there would be more than `MOST_TRIALS` trials.
    """
    grid = {name: _values(name, values) for name, values in (search or {}).items()}
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MOST_TRIALS:
        raise PipelineError(
            "the search has too many trials", subject=", ".join(grid), found=count, asked=f"at most {MOST_TRIALS}",
            next_step="Search fewer values of fewer parameters at a time.",
        )  # fmt: skip
    return [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]


def _values(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise PipelineError(
            "a search needs a list of values for each parameter", subject=f"search of {name}", found=repr(values),
            asked=f"for example {name}=[0.1, 0.2]",
        )  # fmt: skip
    return list(dict.fromkeys(values)) if _hashable(values) else list(values)


def _hashable(values: Sequence[Any]) -> bool:
    try:
        hash(tuple(values))
    except TypeError:
        return False
    return True
