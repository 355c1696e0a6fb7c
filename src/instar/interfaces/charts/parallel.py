"""Parallel coordinates: one upright axis for each parameter and metric, one line for each run across all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from instar.interfaces.charts import axes
from instar.interfaces.charts.axes import Axis
from instar.interfaces.charts.curves import TONES

WIDTH, HEIGHT, EDGE, TOP, BOTTOM = 900, 300, 60, 34, 14
MOST_NAMES = 12  # values of one text that an axis can show


@dataclass(frozen=True)
class Across:
    """One run: its name and its values by the axis' name."""

    name: str
    values: Mapping[str, Any]


def parallel(given: Sequence[Across], names: Sequence[str], title: str) -> str:
    """A chart with an axis for each name on which at least one run has a value; empty with fewer than two axes."""
    found = {name: one for name in names if (one := _axis([run.values.get(name) for run in given])) is not None}
    if len(found) < 2:
        return ""
    places = {name: EDGE + number * (WIDTH - 2 * EDGE) / (len(found) - 1) for number, name in enumerate(found)}
    parts: list[str] = []
    for name, (axis, _) in found.items():
        x = places[name]
        parts.append(f'<line class="level" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="name" x="{x:.1f}" y="14" text-anchor="middle">{escape(name)}</text>')
        for value, text in axis.marks:
            parts.append(f'<text class="mark" x="{x + 4:.1f}" y="{axis.at(value) + 4:.1f}">{escape(text[:16])}</text>')
    for number, run in enumerate(given):
        path = " ".join(_points(run, found, places))
        said = f"<title>{escape(run.name)}</title>"
        parts.append(f'<polyline class="curve tone{number % TONES}" points="{path}">{said}</polyline>')
    return axes.svg(parts, title, width=WIDTH, height=HEIGHT)


def _axis(values: Sequence[Any]) -> tuple[Axis, list[str]] | None:
    """The axis of some values, and the texts on it when they are no numbers."""
    known = [value for value in values if value is not None and value == value]
    if not known:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in known):
        spread = min(known) > 0 and max(known) / min(known) >= 100
        return axes.axis(known, HEIGHT - BOTTOM, TOP, log=spread, count=4), []
    texts = list(dict.fromkeys(str(value) for value in known))[:MOST_NAMES]
    return axes.names_axis(texts, HEIGHT - BOTTOM, TOP), texts


def _points(run: Across, found: Mapping[str, tuple[Axis, list[str]]], places: Mapping[str, float]) -> list[str]:
    points = []
    for name, (axis, texts) in found.items():
        value = run.values.get(name)
        if texts:
            value = float(texts.index(str(value))) if str(value) in texts else None
        if isinstance(value, int | float) and math.isfinite(value):
            points.append(f"{places[name]:.1f},{axis.at(float(value)):.1f}")
    return points
