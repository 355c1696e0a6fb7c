"""A comparison of runs as one JSON document, made when somebody asks what differs and which is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train import runs, sampling
from instar.train.run_differences import differences
from instar.train.runs import Run

BUCKETS = 200  # points of a curve; more cannot be seen
MOST_RUNS = 50
MOST_CURVES = 24  # metrics with a history that are drawn


def compare(store: Store, found: Sequence[Run]) -> dict[str, Any]:
    """All that differs between the runs, and the curves of their metrics.

    Raises:
        BadInput: There is none to compare, or there are too many.
    """
    if not 1 <= len(found) <= MOST_RUNS:
        raise BadInput("so many runs cannot be compared", found=len(found), asked=f"1 to {MOST_RUNS} runs")
    what = differences(store, found)
    return {
        "runs": [_run(run) for run in found],
        "parameters": dict(what.parameters),
        "metrics": dict(what.metrics),
        "same": _same(found),
        "inputs": dict(what.inputs),
        "environment": dict(what.environment),
        "conditions": dict(what.conditions),
        "commits": dict(what.commits),
        "code": [
            {"run": one.run, "file": one.file, "lines": list(one.lines), "cut": one.cut} for one in what.code
        ],
        "curves": _curves(store, found),
    }  # fmt: skip


def _run(run: Run) -> dict[str, Any]:
    document = runs.document(run)
    kept = (
        "id",
        "name",
        "project",
        "experiment",
        "step",
        "state",
        "started",
        "ended",
        "seconds",
        "parameters",
        "metrics",
    )
    return {name: document[name] for name in kept}


def _same(found: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Parameters and metrics that all runs share, with the one value that they have."""
    same: dict[str, dict[str, Any]] = {}
    for what in ("parameters", "metrics"):
        columns = [getattr(run, what) for run in found]
        shared = [name for name in columns[0] if all(name in one and one[name] == columns[0][name] for one in columns)]
        same[what] = {name: columns[0][name] for name in shared}
    return same


def _curves(store: Store, found: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """Down-sampled histories of the metrics that were logged more than once, by metric: one entry a run that has it."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for name in sorted({name for run in found for name in run.metrics}):
        drawn = []
        for run in found:
            if name in run.metrics:
                buckets = sampling.sampled(store, run.id, name, buckets=BUCKETS)
                points = [
                    [one.step_from, _finite(one.mean), _finite(one.minimum), _finite(one.maximum)] for one in buckets
                ]
                drawn.append({"run": run.id, "points": points})
        if any(len(one["points"]) > 1 for one in drawn) and len(curves) < MOST_CURVES:
            curves[name] = drawn
    return curves


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
