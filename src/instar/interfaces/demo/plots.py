"""The plots of the demo's page, as SVG: coordinates and text only, colours come from the page's style sheet.

Each plot says in its `title` what it shows, and the page has every figure in a table as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from typing import Any

from instar.interfaces.demo.figures import WAYS

WIDTH, LEFT, RIGHT = 880, 46, 116  # units of the view box; the right margin holds the names of the lines
TOP, BOTTOM = 12, 24
MARKS = {"promotion": "▲", "rejection": "×", "rollback": "▼"}  # alerts and retrainings are in the list of events
TONES = 6  # colours that the style sheet has for versions


def cost_by_month(report: Mapping[str, Any], height: int = 300) -> str:
    """Cost per flight of the four ways: one line each, over months."""
    months = report["months"]
    values = [month["cost"][way] for month in months for way in WAYS if month["cost"][way] is not None]
    if not values:
        return ""
    low, high, step = scale(min(values), max(values))
    across = _across(len(months))

    def down(value: float) -> float:
        return TOP + (height - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [*_levels(low, high, step, down), *_month_names(months, across, height)]
    ends: list[tuple[float, str, float]] = []
    for way in WAYS:
        points = [
            (across(place), down(month["cost"][way]), month)
            for place, month in enumerate(months)
            if month["cost"][way] is not None
        ]
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline class="line {way}" points="{path}"/>')
        for x, y, month in points:
            said = f"{way}, {month['month']}: {month['cost'][way]:.4f} {report['unit']} per flight"
            parts.append(
                f'<circle class="dot {way}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(said)}</title></circle>'
            )
        ends.append((points[-1][1], way, points[-1][2]["cost"][way]))
    for y, way, value in _apart(ends):
        parts.append(f'<text class="name {way}" x="{WIDTH - RIGHT + 10}" y="{y + 4:.1f}">{way} {value:.3f}</text>')
    return _svg(height, f"Cost per flight in {report['unit']} by month, for {', '.join(WAYS)}", parts)


def late_by_month(report: Mapping[str, Any], height: int = 130) -> str:
    """Share of late flights by month, as bars."""
    months = report["months"]
    shares = [month["late_share"] or 0.0 for month in months]
    if not shares:
        return ""
    _, high, step = scale(0.0, max(shares))
    across = _across(len(months))

    def down(value: float) -> float:
        return TOP + (height - TOP - BOTTOM) * (high - value) / high

    width = min(40.0, (WIDTH - LEFT - RIGHT) / len(months) * 0.6)
    parts = [*_levels(0.0, high, step, down, percent=True), *_month_names(months, across, height)]
    for place, share in enumerate(shares):
        x, y = across(place) - width / 2, down(share)
        said = f"{months[place]['month']}: {share:.1%} late"
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{down(0.0) - y:.1f}">'
            f"<title>{escape(said)}</title></rect>"
        )
    return _svg(height, "Share of flights that arrived late, by month", parts)


def answers_by_day(report: Mapping[str, Any], height: int = 170) -> str:
    """Who answered: the versions' shares of the returned answers, day upon day, with what was decided above."""
    shares = report["answers_by_day"]
    if not shares:
        return ""
    days = sorted({one["day"] for one in shares})
    first = date.fromisoformat(days[0])
    count = (date.fromisoformat(days[-1]) - first).days + 1
    top, floor = TOP + 16, height - BOTTOM
    width = (WIDTH - LEFT - RIGHT) / count

    def across(day: str) -> float:
        return LEFT + (date.fromisoformat(day) - first).days * width

    parts = []
    # Colours follow the order of appearance: versions that answer one after the other never share one.
    versions = list(dict.fromkeys(one["version"] for one in sorted(shares, key=lambda one: one["day"])))
    tone = {version: place % TONES for place, version in enumerate(versions)}
    below: dict[str, float] = dict.fromkeys(days, 0.0)
    for one in shares:
        y = floor - (floor - top) * (below[one["day"]] + one["share"])
        tall = (floor - top) * one["share"]
        below[one["day"]] += one["share"]
        said = f"{one['day']}: version {one['version']} gave {one['share']:.0%} of the answers"
        parts.append(
            f'<rect class="tone{tone[one["version"]]}" x="{across(one["day"]):.1f}" y="{y:.2f}" '
            f'width="{width + 0.2:.2f}" height="{tall:.2f}"><title>{escape(said)}</title></rect>'
        )
    for version, (begin, end) in _main_stretch(shares).items():
        middle = (across(begin) + across(end) + width) / 2
        if across(end) - across(begin) > 22:
            parts.append(f'<text class="on" x="{middle:.1f}" y="{(top + floor) / 2 + 4:.1f}">@{version}</text>')
    for event in report["events"]:
        sign = MARKS.get(event["kind"])
        if sign is not None and days[0] <= event["at"][:10] <= days[-1]:
            said = f"{event['at'][:10]} {event['kind']}: {event['text']}"
            parts.append(
                f'<text class="mark {event["kind"]}" x="{across(event["at"][:10]):.1f}" y="{TOP + 8}">{sign}'
                f"<title>{escape(said)}</title></text>"
            )
    for day in days:
        if day.endswith("-01"):
            parts.append(f'<text class="axis" x="{across(day):.1f}" y="{height - 8}">{_month_name(day)}</text>')
    return _svg(height, "Share of the returned answers by model version, day by day", parts)


def scale(low: float, high: float, about: int = 5) -> tuple[float, float, float]:
    """Round bounds around two values and the step between round levels.

    >>> scale(0.42, 0.71)
    (0.4, 0.75, 0.05)
    """
    span = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span / about))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if span / (size * factor) <= about + 1)
    below, above = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return round(below, 10), round(max(above, below + step), 10), round(step, 10)


def _main_stretch(shares: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, str]]:
    """First and last day on which a version gave most of the answers."""
    most: dict[str, Mapping[str, Any]] = {}
    for one in shares:
        if one["day"] not in most or one["share"] > most[one["day"]]["share"]:
            most[one["day"]] = one
    found: dict[int, tuple[str, str]] = {}
    for day in sorted(most):
        version = int(most[day]["version"])
        found[version] = (found[version][0] if version in found else day, day)
    return found


def _across(count: int) -> Any:
    gap = (WIDTH - LEFT - RIGHT) / max(count, 1)
    return lambda place: LEFT + gap * (place + 0.5)


def _levels(low: float, high: float, step: float, down: Any, percent: bool = False) -> list[str]:
    parts = []
    for number in range(round((high - low) / step) + 1):
        level = low + number * step
        y, text = down(level), f"{level:.0%}" if percent else f"{level:.2f}"
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis left" x="{LEFT - 8}" y="{y + 4:.1f}">{text}</text>')
    return parts


def _month_names(months: Sequence[Mapping[str, Any]], across: Any, height: int) -> list[str]:
    return [
        f'<text class="axis middle" x="{across(place):.1f}" y="{height - 6}">{_month_name(month["month"])}</text>'
        for place, month in enumerate(months)
    ]


def _month_name(text: str) -> str:
    return date(2000, int(text[5:7]), 1).strftime("%b")


def _apart(ends: list[tuple[float, str, float]], least: float = 15.0) -> list[tuple[float, str, float]]:
    """Labels moved down until none covers another."""
    placed: list[tuple[float, str, float]] = []
    for y, way, value in sorted(ends):
        placed.append((max(y, placed[-1][0] + least) if placed else y, way, value))
    return placed


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )
