"""A comparison of runs as one HTML file that needs nothing else: it can be mailed, kept, and read in light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from instar.interfaces.charts.curves import TONES
from instar.interfaces.comparison import plots
from instar.interfaces.comparison.terminal import said

TABLES = {
    "parameters": "Parameters that differ",
    "metrics": "Metrics that differ",
    "inputs": "Inputs that differ",
    "environment": "Environments",
    "conditions": "Conditions",
    "commits": "Commits",
}


def page(document: Mapping[str, Any], metric: str | None = None) -> str:
    """The page.

    Args:
        metric: What parameters are drawn against; by default `cost`, else the first that differs.
    """
    source = (Path(__file__).parent / "page.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source).render(view(document, metric))


def view(document: Mapping[str, Any], metric: str | None = None) -> dict[str, Any]:
    """What the page shows, for its own template and for the console's."""
    metric = metric or ("cost" if "cost" in document["metrics"] else next(iter(document["metrics"]), None))
    return {
        "runs": document["runs"],
        "names": plots.names_of(document),
        "tables": {title: document[what] for what, title in TABLES.items() if document[what]},
        "same": document["same"],
        "code": document["code"],
        "metric": metric,
        "across": Markup(plots.across(document)),
        "curves": {name: Markup(chart) for name, chart in plots.curves_of(document).items()},
        "scatters": {name: Markup(chart) for name, chart in plots.scatters(document, metric).items()},
        "said": said,
        "tones": TONES,
    }
