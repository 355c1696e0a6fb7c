"""Bars beside their names: shares or sizes of a few things, the largest first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from instar.interfaces.charts import axes

ROW, NAMES, NUMBERS = 22, 130, 52  # height of a bar's row, room for names on the left and numbers on the right


def bars(values: Mapping[str, float], title: str, *, percent: bool = False) -> str:
    """A chart with a bar for each value, 0 or more; empty when there are none."""
    if not values:
        return ""
    most = max(values.values()) or 1.0
    room = axes.WIDTH - NAMES - NUMBERS
    parts = []
    for row, (name, value) in enumerate(sorted(values.items(), key=lambda one: -one[1])):
        y, width = row * ROW + 4, value / most * room
        text = f"{value:.0%}" if percent else axes.short(value)
        parts.append(f'<text class="name" x="{NAMES - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="share" x="{NAMES}" y="{y}" width="{max(width, 1):.1f}" height="{ROW - 7}"/>')
        parts.append(f'<text class="mark" x="{NAMES + width + 6:.1f}" y="{y + 12}">{text}</text>')
    return axes.svg(parts, title, height=len(values) * ROW + 6)
