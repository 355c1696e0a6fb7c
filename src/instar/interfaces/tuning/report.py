"""The report of a study as one JSON document, made when it ends and whenever somebody asks: trials, best, short list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.evaluate.shortlist import shortlist
from instar.train import runs, studies, tuning_loop
from instar.train.runs import Run
from instar.train.search import DONE, Search, Tried
from instar.train.studies import Study


def report(store: Store, study: Study, search: Search, unit: str) -> dict[str, Any]:
    """All that is known of a study.

    Args:
        unit: Of the problem's cost.
    """
    tried = [one for one in search.tried() if one.run is not None]
    found = {one.run: _run(store, one) for one in tried}
    done = [one for one in tried if one.state == DONE and found[one.run] is not None]
    best = [number for number in search.best() if number in {one.number for one in done}]
    return {
        "study": studies.document(study),
        "unit": unit,
        "trials": [_trial(one, found[one.run]) for one in tried],
        "best": best,
        "shortlist": _shortlist(store, done, found),
        "importances": search.importances(),
    }


def command(study: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """How to run the pipeline with a trial's parameters."""
    given = " ".join(f"-S {study['step']}.{name}={_text(value)}" for name, value in parameters.items())
    return f"instar run {given}"


def _run(store: Store, one: Tried) -> Run | None:
    try:
        return runs.get_run(store, str(one.run))
    except NotFound:  # deleted since
        return None


def _trial(one: Tried, run: Run | None) -> dict[str, Any]:
    metrics = {name: value for name, value in run.metrics.items() if math.isfinite(value)} if run else {}
    return {
        "number": one.number,
        "state": one.state,
        "parameters": one.parameters,
        "values": list(one.values),
        "metrics": metrics,
        "seconds": run.seconds if run else None,
        "run": one.run,
        "error": run.error if run else None,
    }


def _shortlist(store: Store, done: list[Tried], found: Mapping[str | None, Run | None]) -> list[dict[str, Any]]:
    costs = []
    for one in done:
        run = found[one.run]
        if run is not None and tuning_loop.COSTS in run.artifacts:
            costs.append((run.id, tuning_loop.costs_of(store, run)))
    numbers = {one.run: one for one in done}
    return [
        {
            "run": listed.run,
            "trial": numbers[listed.run].number,
            "parameters": numbers[listed.run].parameters,
            "cost": listed.cost,
            "more": listed.more.mean,
            "low": _finite(listed.more.low),
            "high": _finite(listed.more.high),
            "as_good": listed.as_good,
        }
        for listed in shortlist(costs)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
