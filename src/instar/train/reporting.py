"""Intermediate values of a fit, reported by the user's function while it trains, so that a poor trial can be given up early.

    def delay_net(delay_features: pl.DataFrame, rate: float = 0.1):
        for epoch in range(50):
            ...
            instar.report(loss, epoch)

Outside of a trial `report` does nothing, so the function stays callable in a unit test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Called with value and step; raises Pruned when the trial is to be given up.
Listener = Callable[[float, int], None]

_listener: ContextVar[Listener | None] = ContextVar("instar_report", default=None)


class Pruned(BaseException):
    """The trial is given up. No `Exception`, so that a fit which catches those does not go on."""


def report(value: float, step: int) -> None:
    """Say how the fit stands: `value` as the study's objective counts it, after `step` rounds of whatever kind.

    Logged with the run as the metric `reported`. In a study it may end the trial.
    """
    listener = _listener.get()
    if listener is not None:
        listener(float(value), int(step))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` hear the reports made in the body of the `with`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
