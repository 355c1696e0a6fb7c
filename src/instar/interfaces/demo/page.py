"""The demo's report as one HTML file that needs nothing else: it can be mailed, kept, and opened in ten years."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from instar.interfaces.demo import plots
from instar.interfaces.demo.figures import WAYS


def page(report: Mapping[str, Any]) -> str:
    """The page; light or dark as the reader's system is set."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value, digits=4: "–" if value is None else f"{value:.{digits}f}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["signed"] = lambda value: "–" if value is None else f"{value:+.1%}"
    template = resources.files("instar.interfaces.demo").joinpath("page.html").read_text(encoding="utf-8")
    drawn = {
        "cost": plots.cost_by_month(report),
        "late": plots.late_by_month(report),
        "answers": plots.answers_by_day(report),
    }
    return environment.from_string(template).render(report=report, plots=drawn, ways=WAYS)
