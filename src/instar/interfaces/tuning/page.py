"""The report of a study as one HTML file that needs nothing else: it can be mailed, kept, and read in light and dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from instar.interfaces.tuning import plots
from instar.interfaces.tuning.report import command


def page(report: Mapping[str, Any]) -> str:
    """The page."""
    source = (Path(__file__).parent / "page.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    study, unit = report["study"], report["unit"]
    shown = {"study": study, "unit": unit, "trials": report["trials"], "shortlist": report["shortlist"]}
    return environment.from_string(source).render(**shown, **view(report))


def view(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows besides the report itself, for this file's template and for the console's."""
    study = report["study"]
    cheapest = report["shortlist"][0]["parameters"] if report["shortlist"] else {}
    return {
        "objectives": [one["metric"] for one in study["terms"]["objectives"]],
        "counts": counts(report),
        "command": command(study, {**study["terms"]["fixed"], **cheapest}),
        "history": Markup(plots.history(report)),
        "trade_off": Markup(plots.trade_off(report)),
        "importance": Markup(plots.importance(report)),
        "slices": {name: Markup(chart) for name, chart in plots.slices(report).items()},
        "number": number,
        "said": said,
    }


def counts(report: Mapping[str, Any]) -> str:
    """How many trials ended in which way, in words."""
    found = Counter(one["state"] for one in report["trials"])
    return ", ".join(f"{count} {state}" for state, count in sorted(found.items())) or "no trials"


def number(value: float | None) -> str:
    """A number with as many digits as a comparison needs."""
    return "–" if value is None else f"{value:.5g}"


def said(parameters: Mapping[str, Any]) -> str:
    """Parameters in a line."""
    shown = {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in parameters.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
