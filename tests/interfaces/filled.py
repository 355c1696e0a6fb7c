"""A small store with one record of every kind, made by the stages' own functions: what pages and the client are tested on."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from instar.adapters.search_optuna import OptunaSearch
from instar.core import ids
from instar.core.clock import EventClock
from instar.core.store import Store
from instar.data.checks import Check
from instar.data.tables import write_version
from instar.evaluate import evaluation as evaluations
from instar.evaluate.gates import GateCheck, Verdict
from instar.operate import actions, alerts
from instar.operate.measurement import BREACH, NO_LIMIT, Measurement, keep
from instar.plan import revisions
from instar.plan.project import load_project
from instar.plan.ranges import Range
from instar.release import approval, registry
from instar.release.registry import ModelVersion
from instar.serve.traffic import routing
from instar.serve.traffic.routing import Canary, Shadow
from instar.train import bundle, runs, search_space, studies, tuning_loop
from instar.train.bundle import OUTPUTS, Column, Manifest
from instar.train.search import DONE, Objective

PROJECT = "parcels"
CONTRACT = """
[project]
name = "parcels"
objective = "Tell customers <before> they ask that a parcel will be late"
owner = "delivery & returns"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }

[problem.delay.split]
decide = "7d"
judge = "7d"

[problem.delay.outcome]
due = "1d"

[problem.delay.retrain]
when = ["drift"]
"""
NASTY = "<script>alert('x')</script>"


def fill(store: Store, root: Path, days: int = 40) -> dict[str, Any]:
    """Fill a store; returns the ids that tests ask for."""
    (root / "instar.toml").write_text(CONTRACT)
    (root / "pipeline.py").write_text("")
    project = load_project(root)
    revisions.record_contract(store, project)
    bronze, gold = _tables(store)
    versions = [_version(store, gold, number) for number in (1, 2, 3)]
    bundles = {one.number: one.bundle for one in versions}
    first = _policy(store, bundles, champion=1, cause="first version")
    _policy(store, bundles, champion=1, canary=Canary(2, 10.0), shadows=[Shadow(3, "frozen")], cause="canary at 10 %")
    start = store.clock.event()
    assert isinstance(store.clock, EventClock)
    store.clock.advance_to(start + timedelta(days=days // 2))
    last = _policy(store, bundles, champion=2, shadows=[Shadow(3, "frozen")], cause="it saves 4 % of the cost")
    _measured(store, start, days)
    store.clock.advance_to(start + timedelta(days=days))
    return {
        "bronze": bronze,
        "gold": gold,
        "versions": versions,
        "first": first,
        "last": last,
        "study": _study(store, gold),
    }


def _study(store: Store, gold: str) -> str:
    """Four trials of a search over a number and a word."""
    space: search_space.Space = {"rate": Range(0.01, 1.0, log=True), "word": ("plain", NASTY)}
    terms = {
        "space": search_space.document(space), "fixed": {}, "objectives": [{"metric": "cost", "minimise": True}],
        "sampler": "random", "pruner": "none", "shares": [1.0], "seed": 1,
    }  # fmt: skip
    study, _ = studies.begin(
        store, PROJECT, step="trees", problem="delay", terms=terms, trials=4, version=gold, recipe="r"
    )
    search = OptunaSearch(studies.file_of(store, study), space, [Objective("cost")], sampler="random", seed=1)
    for number in range(4):
        proposal = search.ask("here 1 1")
        assert proposal is not None
        run = runs.start(
            store, PROJECT, experiment="search", step="trees", parameters=proposal.parameters, capture=False
        )
        search.began(proposal.number, run.id)
        costs = np.arange(50) % (number + 2) * 1.0
        runs.log_metrics(store, run.id, {"cost": float(costs.mean())})
        runs.log_artifact(store, run.id, tuning_loop.COSTS, costs.astype("<f4").tobytes())
        runs.finish(store, run.id)
        search.tell(proposal.number, DONE, [float(costs.mean())])
    studies.end(store, study, studies.FINISHED, {})
    return study.id


def _tables(store: Store) -> tuple[str, str]:
    rows = 400
    frame = pl.DataFrame(
        {
            "parcel": [f"p{row:05d}" for row in range(rows)],
            "weight": [None if row % 50 == 0 else 0.2 + (row * 37 % 200) / 20 for row in range(rows)],
            "carrier": [("north", "south", NASTY)[row % 3] for row in range(rows)],
            "late": [row % 5 == 0 for row in range(rows)],
        }
    )
    heavy = Check("nothing is heavy", pl.col("weight") < 9.0, "warn")
    bronze = write_version(store, PROJECT, "parcels", "bronze", frame[:300], cause="delivery day 1")
    bronze = write_version(store, PROJECT, "parcels", "bronze", frame[300:], mode="append", cause="delivery day 2")
    gold = write_version(
        store, PROJECT, "features", "gold", frame, key=["parcel"], inputs=[bronze.id], cause="user", checks=[heavy]
    )
    return bronze.id, gold.id


def _version(store: Store, gold: str, number: int) -> ModelVersion:
    run = runs.start(store, PROJECT, experiment="delay", step="trees", parameters={"rate": number / 10}, inputs=[gold])
    for step in range(5):
        runs.log_metrics(store, run.id, {"loss": 1 / (step + number)}, step)
    runs.log_metrics(store, run.id, {"cost": 0.5 / number})
    runs.finish(store, run.id)
    manifest = Manifest(
        model="delay",
        step="trees",
        kind="model",
        recipe=ids.digest(b"recipe"),
        parameters={"rate": number / 10},
        target="late",
        inputs=(
            Column("weight", "FP64", nullable=True, minimum=0.2, maximum=10.2),
            Column("carrier", "BYTES", privacy="personal", categories=("north", NASTY)),
        ),
        outputs=OUTPUTS,
        threshold=0.25,
        native=store.blobs.put(f"native {number}".encode()),
        form="polars",
        environment=store.blobs.put(b"environment"),
        run=run.id,
        fitted_on=gold,
        fitted_rows=380,
    )
    digest = bundle.pack(store.blobs, manifest)
    found = _evaluation(store, digest, gold, number)
    version = registry.register(store, PROJECT, "delay", bundle=digest, origin="recipe", evaluation=found.id)
    if number < 3:
        approval.decide(store, version, found, "automatic")
    return registry.find(store, PROJECT, version.id)


def _evaluation(store: Store, digest: str, gold: str, number: int) -> evaluations.Evaluation:
    state = "passed" if number < 3 else "failed"
    checks = (
        GateCheck("cost", state, f"{0.5 / number:.2f} EUR a row", "1 % less than nobody", f"the interval says {NASTY}"),  # type: ignore[arg-type]
        GateCheck("slice carrier=north", "undecided", "12 rows", "200 rows", "too few rows", blocking=False),
    )
    metrics = {"candidate": {"cost": {"value": 0.5 / number, "low": 0.1, "high": 0.6, "n": 200, "level": 0.95}}}
    document = {
        "rows": 200,
        "metrics": metrics,
        "slices": [{"slice": "carrier=north", "rows": 12, "candidate": 0.4, "opponent": None, "difference": {}}],
    }
    evaluation = evaluations.Evaluation(
        id=ids.new_id("eval"),
        project=PROJECT,
        problem="delay",
        bundle=digest,
        opponent=None,
        relation="first",
        table_version=gold,
        contract="b3:" + "c" * 64,
        verdict=Verdict(state, checks),  # type: ignore[arg-type]
        metrics=metrics,
        split={"judge": {"digest": "b3:" + "d" * 64}},
        report_json=store.blobs.put(ids.canonical_json(document)),
        report_html=store.blobs.put(b"<!doctype html><title>Report</title><p>a report"),
        cause="user",
        created_at=store.clock.wall(),
        event_at=store.clock.event(),
    )
    return evaluations.record(store, evaluation, key=f"key {number}")


def _policy(store: Store, bundles: dict[int, str], **terms: Any) -> routing.Revision:
    return routing.set_policy(store, PROJECT, "delay", bundles=bundles, **terms)


def _measured(store: Store, start: datetime, days: int) -> None:
    found = []
    for day in range(days):
        begin = start + timedelta(days=day)
        for subject, level in (("delay", 0.5), ("delay@1", 0.55), ("delay@2", 0.48), ("delay@3", 0.6)):
            value = level + 0.08 * math.sin(day / 6) + 0.02 * math.sin(day * 3.1 + level * 40)
            found.append(_look(begin, "cost", subject, value, None, NO_LIMIT))
    found.append(_look(start + timedelta(days=days - 1), "drift_share", "delay", 0.5, 0.2, BREACH))

    def work(tx: Any) -> None:
        changed = alerts.update(tx, store.clock, store.actor, PROJECT, keep(tx, found))
        assert len(changed.opened) == 1

    store.database.write(work, durable=True)
    cause = alerts.alerts(store, PROJECT)[0].id
    asked = actions.request(store, PROJECT, "delay", actions.Wanted("retrain", cause, f"retrain {cause}"))
    assert asked is not None


def _look(begin: datetime, monitor: str, subject: str, value: float, limit: float | None, state: str) -> Measurement:
    return Measurement(
        id=ids.new_id("meas"),
        project=PROJECT,
        endpoint="delay",
        monitor=monitor,
        subject=subject,
        window_start=begin,
        window_end=begin + timedelta(days=1),
        value=value,
        limit=limit,
        state=state,
        n=900,
        recorded_at=begin,
        outcomes_share=0.97,
    )
