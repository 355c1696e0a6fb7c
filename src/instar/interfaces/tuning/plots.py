"""The plots of a study: how the best value came about, what each parameter has to do with it, which parameters matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instar.interfaces.charts import axes, bars
from instar.interfaces.charts.points import Point, scatter


def history(report: Mapping[str, Any]) -> str:
    """The first objective of each trial, and the best so far as a line."""
    objective = report["study"]["terms"]["objectives"][0]
    better = min if objective["minimise"] else max
    points, line = [], []
    best: float | None = None
    for one in _done(report):
        value = one["values"][0]
        best = value if best is None else better(best, value)
        line.append((float(one["number"]), best))
        points.append(Point(one["number"], value, _said(one, objective["metric"]), _kind(one, report)))
    return scatter(points, f"{objective['metric']} of each trial", "trial", objective["metric"], line=line)


def slices(report: Mapping[str, Any]) -> dict[str, str]:
    """For each parameter its values against the first objective."""
    objective = report["study"]["terms"]["objectives"][0]["metric"]
    return {
        name: chart
        for name, space in report["study"]["terms"]["space"].items()
        if (chart := _slice(report, name, space, objective))
    }


def trade_off(report: Mapping[str, Any]) -> str:
    """Two objectives against each other; empty with one."""
    objectives = [one["metric"] for one in report["study"]["terms"]["objectives"]]
    if len(objectives) < 2:
        return ""
    points = [
        Point(one["values"][0], one["values"][1], _said(one, *objectives), _kind(one, report)) for one in _done(report)
    ]
    return scatter(points, f"{objectives[0]} against {objectives[1]}", objectives[0], objectives[1])


def importance(report: Mapping[str, Any]) -> str:
    """The share of each parameter in the spread of the first objective."""
    return bars.bars(report["importances"], "Share of each parameter in the spread", percent=True)


def _slice(report: Mapping[str, Any], name: str, space: Any, objective: str) -> str:
    done = [one for one in _done(report) if name in one["parameters"]]
    if isinstance(space, list):
        names = [str(value) for value in space]
        across = axes.names_axis(names, axes.LEFT, axes.WIDTH - axes.RIGHT)
        places = [float(names.index(str(one["parameters"][name]))) for one in done]
    else:
        places = [float(one["parameters"][name]) for one in done]
        across = axes.horizontal(places, log=bool(space["log"]))
    points = [
        Point(place, one["values"][0], _said(one, objective), _kind(one, report))
        for place, one in zip(places, done, strict=True)
    ]
    return scatter(points, f"{objective} by {name}", name, objective, across=across)


def _done(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [one for one in report["trials"] if one["state"] == "done" and one["values"]]


def _said(one: Mapping[str, Any], *objectives: str) -> str:
    values = ", ".join(f"{name} {value:.6g}" for name, value in zip(objectives, one["values"], strict=False))
    parameters = ", ".join(f"{name}={value}" for name, value in one["parameters"].items())
    return f"trial {one['number']}: {values}; {parameters}"


def _kind(one: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    return "dot best" if one["number"] in report["best"] else "dot"
