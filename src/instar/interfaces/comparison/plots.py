"""The plots of a comparison: curves of metrics, all parameters and metrics in parallel, each parameter against a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from instar.interfaces.charts import axes
from instar.interfaces.charts.curves import TONES, Curve, curves
from instar.interfaces.charts.parallel import Across, parallel
from instar.interfaces.charts.points import Point, scatter

FEW_RUNS = 3  # fewer say nothing in a scatter
MOST_AXES = 9
MOST_SCATTERS = 12


def curves_of(document: Mapping[str, Any]) -> dict[str, str]:
    """A chart for each metric with a history."""
    names = names_of(document)
    found = {}
    for metric, histories in document["curves"].items():
        lines = [Curve(names[one["run"]], [_point(point) for point in one["points"]]) for one in histories]
        ordered = {name: Curve(name, []) for name in names.values()} | {line.name: line for line in lines}
        found[metric] = curves(list(ordered.values()), f"{metric} by step", "step", metric)
    return {metric: chart for metric, chart in found.items() if chart}


def across(document: Mapping[str, Any]) -> str:
    """Differing parameters and metrics as parallel coordinates."""
    names = names_of(document)
    wanted = [*document["parameters"], *document["metrics"]][:MOST_AXES]
    rows = {**{name: _numbers(row) for name, row in document["parameters"].items()}, **document["metrics"]}
    lines = [
        Across(names[run["id"]], {name: rows[name][place] for name in wanted})
        for place, run in enumerate(document["runs"])
    ]
    return parallel(lines, wanted, "Parameters and metrics of each run")


def scatters(document: Mapping[str, Any], metric: str | None) -> dict[str, str]:
    """Each differing parameter of numbers against one metric."""
    if metric is None or metric not in document["metrics"]:
        return {}
    names, values = names_of(document), document["metrics"][metric]
    found = {}
    for name, row in list(document["parameters"].items())[:MOST_SCATTERS]:
        points = [
            Point(float(x), float(values[place]), f"{names[run['id']]}: {name} {x}, {metric} {values[place]:.6g}",
                  f"dot tone{place % TONES}")
            for place, (run, x) in enumerate(zip(document["runs"], _numbers(row), strict=True))
            if _is_number(x) and _is_number(values[place])
        ]  # fmt: skip
        if len(points) >= FEW_RUNS:
            xs = [point.x for point in points]
            spread = min(xs) > 0 and max(xs) / min(xs) >= 100
            line = axes.horizontal(xs, log=spread)
            found[name] = scatter(points, f"{metric} by {name}", name, metric, across=line)
    return found


def names_of(document: Mapping[str, Any]) -> dict[str, str]:
    """What each run is called: its name where it has one that no other has, else the end of its id."""
    names = [run["name"] for run in document["runs"]]
    return {
        run["id"]: run["name"] if run["name"] and names.count(run["name"]) == 1 else f"…{run['id'][-6:]}"
        for run in document["runs"]
    }


def _numbers(row: Sequence[Any]) -> Sequence[Any]:
    """Values of a parameter, as numbers where all that are there read as one: MLflow's clients send texts."""
    try:
        return [float(value) if isinstance(value, str) else value for value in row]
    except ValueError:
        return row


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _point(point: Sequence[Any]) -> tuple[float, float, float, float]:
    step, mean, low, high = (math.nan if value is None else float(value) for value in point)
    return step, mean, low, high
