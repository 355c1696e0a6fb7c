"""Axes of a chart: from values to places on it, with levels at round numbers, when a page with a chart is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 430, 240  # units of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low, high: Values at its ends; in a logarithmic axis both are above zero.
        start, end: Their places.
        marks: Values with a level line and their texts.
    """

    low: float
    high: float
    start: float
    end: float
    marks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def axis(values: Sequence[float], start: float, end: float, *, log: bool = False, count: int = 5) -> Axis:
    """An axis over finite values, with a little room at both ends; of no or one value, too."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if log and known:
        low, high = (low / 1.1, high * 1.1) if high > low else (low / 2, high * 2)
        return Axis(low, high, start, end, _decades(low, high), log=True)
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    room = (high - low) * 0.05
    low, high = low - room, high + room
    return Axis(low, high, start, end, _levels(low, high, count))


def names_axis(names: Sequence[str], start: float, end: float) -> Axis:
    """An axis of names: the first one at 0, and so on."""
    return Axis(-0.5, len(names) - 0.5, start, end, tuple((float(at), name) for at, name in enumerate(names)))


def horizontal(values: Sequence[float], *, log: bool = False) -> Axis:
    """The lower axis of a chart of the usual size."""
    return axis(values, LEFT, WIDTH - RIGHT, log=log)


def vertical(values: Sequence[float], *, log: bool = False) -> Axis:
    """The left axis of a chart of the usual size."""
    return axis(values, HEIGHT - BOTTOM, TOP, log=log)


def frame(across: Axis, down: Axis, x_name: str, y_name: str) -> list[str]:
    """Level lines and names of both axes, as SVG."""
    parts = []
    for value, text in down.marks:
        y = down.at(value)
        parts.append(f'<line class="level" x1="{across.start:.1f}" x2="{across.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="mark" x="{across.start - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    for value, text in across.marks:
        x = across.at(value)
        parts.append(
            f'<text class="mark" x="{x:.1f}" y="{down.start + 15:.1f}" text-anchor="middle">{escape(text)}</text>'
        )
    middle = (across.start + across.end) / 2
    parts.append(f'<text class="name" x="{middle:.1f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text class="name" x="2" y="{TOP - 2}" text-anchor="start">{escape(y_name)}</text>')
    return parts


def svg(parts: Sequence[str], title: str, *, width: float = WIDTH, height: float = HEIGHT) -> str:
    """The whole chart; its title says what it shows to people who cannot see it."""
    inside = "".join(parts)
    label = escape(title, quote=True)
    return f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{inside}</svg>'


def short(value: float) -> str:
    """A number as a mark on an axis."""
    return f"{value:.4g}"


def _levels(low: float, high: float, count: int) -> tuple[tuple[float, str], ...]:
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough * 0.999)
    first = math.ceil(low / step)
    return tuple((at * step, short(at * step)) for at in range(first, math.floor(high / step) + 1))


def _decades(low: float, high: float) -> tuple[tuple[float, str], ...]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1.0,) if last - first > 3 else (1.0, 2.0, 5.0)
    found = [10.0**power * step for power in range(first, last + 1) for step in steps]
    return tuple((value, short(value)) for value in found if low <= value <= high)
