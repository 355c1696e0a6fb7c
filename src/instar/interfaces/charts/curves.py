"""Curves of several runs on one chart: a metric over its steps, each run in a colour of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from instar.interfaces.charts import axes

TONES = 7  # colours that the pages have; more runs than that share them


@dataclass(frozen=True)
class Curve:
    """One run's values: step, mean, and where points were put together the lowest and highest of them."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def curves(given: Sequence[Curve], title: str, x_name: str, y_name: str) -> str:
    """A chart of curves; where points were put together, a band shows their range. Empty when no number is in them."""
    shown = [Curve(one.name, [point for point in one.points if math.isfinite(point[1])]) for one in given]
    values = [value for one in shown for point in one.points for value in point[1:] if math.isfinite(value)]
    if not values:
        return ""
    across = axes.horizontal([point[0] for one in shown for point in one.points])
    down = axes.vertical(values)
    parts = axes.frame(across, down, x_name, y_name)
    for number, one in enumerate(shown):
        tone = f"tone{number % TONES}"
        if any(low < high for _, _, low, high in one.points):
            band = [(x, high) for x, _, _, high in one.points] + [(x, low) for x, _, low, _ in reversed(one.points)]
            path = " ".join(f"{across.at(x):.1f},{down.at(y):.1f}" for x, y in band if math.isfinite(y))
            parts.append(f'<polygon class="band {tone}" points="{path}"/>')
        path = " ".join(f"{across.at(x):.1f},{down.at(mean):.1f}" for x, mean, _, _ in one.points)
        said = f"<title>{escape(one.name)}</title>"
        if len(one.points) == 1:
            x, mean = one.points[0][:2]
            place = f'cx="{across.at(x):.1f}" cy="{down.at(mean):.1f}"'
            parts.append(f'<circle class="dot {tone}" {place} r="3.5">{said}</circle>')
        elif one.points:
            parts.append(f'<polyline class="curve {tone}" points="{path}">{said}</polyline>')
    return axes.svg(parts, title)
