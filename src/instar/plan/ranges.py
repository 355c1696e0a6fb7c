"""Ranges of parameters, declared where a model step is planned and searched by `instar tune`; a walk of the pipeline uses none.

>>> between(0.01, 0.3, log=True)
Range(low=0.01, high=0.3, log=True, step=None)
"""

from __future__ import annotations

from dataclasses import dataclass

from instar.core.errors import PipelineError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones where both ends are whole.

    Attributes:
        log: Searched evenly in its logarithm, as learning rates are.
        step: Distance between neighbours; None: any number of the range.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Are its values whole numbers?"""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)

    def holds(self, value: object) -> bool:
        """Is `value` in the range?"""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high


def between(low: float, high: float, *, log: bool = False, step: float | None = None) -> Range:
    """Declare the range of a parameter: `@model("delay", search={"rate": between(0.01, 0.3, log=True)})`.

    Raises:
        PipelineError: The range is empty, or logarithmic and not above zero, or has a step that is not above zero.
    """
    found = f"{low} to {high}"
    if isinstance(low, bool) or isinstance(high, bool) or not low < high:
        raise PipelineError("a range runs from a lower to a higher number", subject="range", found=found)
    if log and (low <= 0 or step is not None):
        raise PipelineError(
            "a logarithmic range lies above zero and has no step", subject="range", found=found,
            next_step="Leave out log=True, or begin above zero without a step.",
        )  # fmt: skip
    if step is not None and step <= 0:
        raise PipelineError("the step of a range is above zero", subject="range", found=step)
    return Range(low, high, log, step)
