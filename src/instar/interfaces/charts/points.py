"""Points and lines on a chart: a scatter of measured things, each with a text that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from instar.interfaces.charts import axes
from instar.interfaces.charts.axes import Axis


@dataclass(frozen=True)
class Point:
    """One point: where, what it is, and the class of its colour."""

    x: float
    y: float
    said: str
    kind: str = "dot"
    link: str = ""


def scatter(
    points: Sequence[Point], title: str, x_name: str, y_name: str, *, across: Axis | None = None, down: Axis | None = None,
    line: Sequence[tuple[float, float]] = (), log: bool = False,
) -> str:  # fmt: skip
    """A chart of points, and if given a line over them; empty when there are none."""
    if not points:
        return ""
    across = across or axes.horizontal([point.x for point in points], log=log)
    down = down or axes.vertical([point.y for point in points] + [y for _, y in line])
    parts = axes.frame(across, down, x_name, y_name)
    if line:
        path = " ".join(f"{across.at(x):.1f},{down.at(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="line" points="{path}"/>')
    parts += [_dot(point, across, down) for point in points]
    return axes.svg(parts, title)


def _dot(point: Point, across: Axis, down: Axis) -> str:
    place = f'cx="{across.at(point.x):.1f}" cy="{down.at(point.y):.1f}"'
    dot = f'<circle class="{escape(point.kind)}" {place} r="3.5"><title>{escape(point.said)}</title></circle>'
    return f'<a href="{escape(point.link, quote=True)}">{dot}</a>' if point.link else dot
