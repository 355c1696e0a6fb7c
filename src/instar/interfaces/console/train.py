"""The page of one run with its parameters, metrics, code, environment and what it made."""

from __future__ import annotations

import math
from typing import Any

from instar.core import lineage, notes
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.interfaces.api.routes import Request
from instar.interfaces.console import chart, files
from instar.train import artifacts, proofs, sampling
from instar.train.reproductions import REPRODUCES
from instar.train.resources import PREFIX
from instar.train.runs import Run, get_run
from instar.train.surroundings import surroundings

BUCKETS = 400  # points of a curve; more cannot be seen
MOST_CHARTS = 40


def run(request: Request) -> dict[str, Any]:
    """One run: what went in, what was measured, what came out."""
    store, project, name = request.app.store, request.path["project"], request.path["run"]
    found = get_run(store, name)
    if found.project != project:
        raise NotFound("there is no such run in this project", subject=name, next_step="See instar runs ls.")
    with store.database.read() as tx:
        causes, effects = lineage.up(tx, found.id, 1), lineage.down(tx, found.id, 1)
    # A run of a thousand metrics has no thousand charts, and what the machine did takes no room from what was found.
    named = sorted(found.metrics, key=lambda name: (name.startswith(PREFIX), name))
    drawn = named[:MOST_CHARTS]
    histories = {name: sampling.sampled(store, found.id, name, buckets=BUCKETS) for name in drawn}
    charts = {
        name: chart.steps(name, [(one.step_from, one.mean) for one in buckets])
        for name, buckets in histories.items()
        if sum(math.isfinite(one.mean) for one in buckets) > 2
    }
    return {
        "project": project,
        "run": found,
        "seconds": found.seconds,
        "reproductions": [proofs.document(one) for one in proofs.of_run(store, project, found.id)],
        "repeats": _repeats(store, found),
        "causes": causes,
        "effects": effects,
        "notes": [notes.document(note) for note in notes.of(store, project, found.id)],
        "files": [files.told(project, found.id, entry) for entry in artifacts.all_artifacts(store, found.id)],
        "surroundings": surroundings(store.blobs, found),
        "undrawn": max(0, len(named) - MOST_CHARTS),
        "charts": {name: one for name, one in charts.items() if not name.startswith(PREFIX)},
        # What the machine did, apart from what the training found.
        "use": {name: value for name, value in found.metrics.items() if name.startswith(PREFIX)},
        "use_charts": {name: one for name, one in charts.items() if name.startswith(PREFIX)},
    }


def _repeats(store: Store, run: Run) -> dict[str, Any] | None:
    """The verdict that was found with this run, where it repeats another."""
    found = proofs.of_run(store, run.project, run.tags.get(REPRODUCES, ""))
    return next((proofs.document(one) for one in found if one.repetition == run.id), None)
