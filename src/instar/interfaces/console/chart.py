"""Lines over time or steps as SVG coordinates: pure arithmetic, which the template `chart.svg` draws and styles.

chart = lines([Line("delay@3", [(day, 0.52), ...])], [Mark(day, "promoted")], unit="EUR per row")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

WIDTH, HEIGHT = 880, 280  # units of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 28
SILENCE = 3.5  # usual distances between points; a longer one breaks the line, since nothing was measured there
TONES = 7  # colours that the style sheet has, the faint one apart
FAINT = 7


@dataclass(frozen=True)
class Line:
    """One series of measured values; None where there is no value. A faint one is background."""

    name: str
    points: Sequence[tuple[datetime, float | None]]
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment at which something was decided."""

    at: datetime
    text: str


@dataclass(frozen=True)
class Drawn:
    """A line, drawn: path, number of its colour, last value, and its points: x, y, the moment in words, value."""

    name: str
    tone: int
    path: str
    last: float | None
    points: list[tuple[float, float, str, float]]


@dataclass(frozen=True)
class Chart:
    """All that the template needs; empty when there was no value to draw."""

    unit: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM
    lines: list[Drawn] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    levels: list[tuple[float, str]] = field(default_factory=list)
    moments: list[tuple[float, str]] = field(default_factory=list)
    summary: str = ""


def lines(series: Sequence[Line], marks: Sequence[Mark] = (), unit: str = "") -> Chart:
    """Place series of moments on one time axis and one axis of values."""
    points = [
        [(_seconds(at), value, _day(at)) for at, value in one.points if value is not None and math.isfinite(value)]
        for one in series
    ]
    moments = [x for some in points for x, _, _ in some]
    if not moments:
        return Chart(unit)
    begin, end = (datetime.fromtimestamp(x, UTC) for x in (min(moments), max(moments)))
    return _draw(
        [(one.name, one.faint, some) for one, some in zip(series, points, strict=True)],
        [(_seconds(at), text) for at, text in _calendar(begin, end)],
        [(_seconds(mark.at), mark.text) for mark in marks],
        unit,
    )


def steps(name: str, values: Sequence[tuple[int, float]]) -> Chart:
    """Place the history of one metric of a run on an axis of its steps."""
    points = [(float(step), value, f"step {step}") for step, value in values if math.isfinite(value)]
    if not points:
        return Chart(name)
    axis = [(x, f"{x:g}") for x in ticks(points[0][0], points[-1][0]) if points[0][0] <= x <= points[-1][0]]
    return _draw([(name, False, points)], axis, [], f"{name} by step")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round levels from at or below `low` to at or above `high`, some `about` of them.

    >>> ticks(0.31, 0.72)
    [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    """
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-12):  # all alike: levels around it
        low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
    rough = (high - low) / about
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(size * scale for size in (1, 2, 5, 10) if size * scale >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


Points = list[tuple[float, float, str]]


def _draw(
    series: list[tuple[str, bool, Points]], axis: list[tuple[float, str]], marks: list[tuple[float, str]], unit: str
) -> Chart:
    xs = [x for _, _, points in series for x, _, _ in points]
    ys = [y for _, _, points in series for _, y, _ in points]
    levels = ticks(min(ys), max(ys))
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    down = _scale(levels[0], levels[-1], HEIGHT - BOTTOM, TOP)
    tone = 0
    drawn = []
    for name, faint, points in series:
        path = _path(points, across, down)
        last = points[-1][1] if points else None
        placed = [(across(x), down(y), text, y) for x, y, text in points]
        drawn.append(Drawn(name, FAINT if faint else tone % TONES, path, last, placed))
        tone += not faint
    shown = ", ".join(f"{one.name} {one.last:.3g}" for one in drawn if one.last is not None and one.tone != FAINT)
    return Chart(
        unit,
        # The faint ones first, so that they lie below the others.
        lines=sorted(drawn, key=lambda one: one.tone != FAINT),
        marks=[(across(x), text) for x, text in marks if min(xs) <= x <= max(xs)],
        levels=[(down(level), f"{level:g}") for level in levels],
        moments=[(across(x), text) for x, text in axis],
        summary=f"{unit}; last values: {shown}",
    )


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    whole = (high - low) or 1.0
    return lambda value: round(begin + (end - begin) * (value - low) / whole, 1)


def _path(points: Points, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    distances = [b[0] - a[0] for a, b in pairwise(points)]
    silence = SILENCE * median(distances) if distances else 0.0
    parts = []
    for place, (x, y, _) in enumerate(points):
        letter = "M" if place == 0 or distances[place - 1] > silence else "L"
        parts.append(f"{letter}{across(x):g} {down(y):g}")
    return "".join(parts)


def _calendar(begin: datetime, end: datetime) -> list[tuple[datetime, str]]:
    """Firsts of months when there are several, else up to six moments between the two ends."""
    months: list[tuple[datetime, str]] = []
    at = begin.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while at <= end:
        if at >= begin:
            months.append((at, at.strftime("%b %Y") if at.month == 1 or not months else at.strftime("%b")))
        at = (at + timedelta(days=32)).replace(day=1)
    if len(months) >= 3:
        return months[:: math.ceil(len(months) / 12)]
    whole = end - begin
    count = min(6, whole.days)
    return [(begin + whole * place / count, _day(begin + whole * place / count)) for place in range(count)] or [
        (begin, _day(begin))
    ]


def _seconds(at: datetime) -> float:
    return at.timestamp()


def _day(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d")
