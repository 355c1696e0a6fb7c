"""What the loop is compared with: the rule, the first model frozen, retraining every month regardless, a spoiled candidate.

The first three answer every call as standing shadows of the endpoint, so their answers are on the record like the loop's
own; none of them is ever a candidate. The spoiled one is proposed as a colleague would, and must not come through.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from instar.data import tables
from instar.data.checks import split_quarantine
from instar.data.ingest import LANDED_AT
from instar.data.tables import TableVersion
from instar.interfaces.demo.figures import FROZEN, MONTHLY, RULE
from instar.interfaces.demo.progress import Progress
from instar.interfaces.demo.world import Feed
from instar.operate import proposal, standing
from instar.operate.proposal import Loop, Proposal
from instar.plan import runner
from instar.release import registry
from instar.release.registry import ModelVersion
from instar.serve.traffic.policy import Shadow
from instar.train import refitting

SPOILED = "delay_features__spoiled"


def first(loop: Loop, endpoint: str, origin: str) -> ModelVersion | None:
    """The first version of an origin, e.g. the rule (`"baseline"`) or the frozen model (`"refit"`)."""
    found = registry.versions(loop.store, loop.project.name, endpoint)
    return next((one for one in found if one.origin == origin), None)


def shadows(progress: Progress) -> tuple[Shadow, ...]:
    """The standing shadows, each version once."""
    found: dict[int, Shadow] = {}
    for role in (RULE, FROZEN, MONTHLY):
        version = progress.version_of(role)
        if version is not None:
            found.setdefault(version, Shadow(version, role))
    return tuple(found.values())


def keep(loop: Loop, endpoint: str, progress: Progress, reason: str) -> Loop:
    """Make the standing shadows those of the progress; returns the loop that goes on with them."""
    wanted = shadows(progress)
    standing.keep(loop.store, loop.project.name, endpoint, wanted, reason, publish=loop.publish)
    return replace(loop, standing=wanted)


def make_gold(loop: Loop, gold: str, cause: str) -> TableVersion:
    """The gold table of all that has landed."""
    runner.execute(loop.store, loop.project, loop.pipeline, loop.kinds, [gold], cause=cause)
    version = tables.latest(loop.store, loop.project.name, gold)
    assert version is not None
    return version


def refit_monthly(loop: Loop, endpoint: str, version: TableVersion) -> ModelVersion:
    """The frozen model's recipe, fitted again on all rows of the gold table, whatever anybody thinks of it."""
    frozen = first(loop, endpoint, "refit")
    assert frozen is not None
    cause = "monthly retraining, for comparison"
    rows = tables.scan(loop.store, version).collect()
    bundle = refitting.refit(
        loop.store, loop.project, loop.pipeline, judged_bundle(loop, frozen), rows, version.id, cause=cause
    )
    return registry.register(
        loop.store, loop.project.name, endpoint, bundle=bundle, origin="ad hoc", refit_of=frozen.id, cause=cause
    )


def propose_spoiled(loop: Loop, endpoint: str, gold: str, delivery: Feed) -> Proposal:
    """Fit the recipe on a month whose delays came with the wrong sign, and propose that.

    The rows pass through the project's own steps and keep their checks: nothing in the data alone gives them away. It is
    judged on the flights that really landed.
    """
    frozen = first(loop, endpoint, "refit")
    assert frozen is not None
    store, name = loop.store, loop.project.name
    cause = f"a colleague's fit on {delivery.name} with the signs of all delays turned"
    turned = delivery.rows.with_columns(-pl.col("arr_delay"), pl.lit(delivery.landed_at).alias(LANDED_AT))
    read = {
        step.name: tables.scan(store, found)
        for step in loop.pipeline.steps.values()
        if (found := tables.latest(store, name, step.name)) and step.makes_table
    }
    clean = loop.pipeline.step("clean_flights").function
    make = loop.pipeline.step(gold).function
    assert clean is not None
    assert make is not None
    judged_on = tables.latest(store, name, gold)
    assert judged_on is not None
    # Only the days before those that it will be judged on: whoever saw these could not be judged at all.
    event_time = loop.pipeline.step(gold).options["event_time"]
    last = tables.scan(store, judged_on).select(pl.col(event_time).max()).collect().item()
    before = pl.col(event_time) < last - loop.project.contract.problem[endpoint].split.judge
    flights, _ = split_quarantine(clean(turned.lazy(), read["airlines"]).collect())
    rows = make(flights.lazy(), read["clean_weather"], read["planes"]).filter(before).collect()
    spoiled = tables.write_version(store, name, SPOILED, "gold", rows, key=["flight_id"], cause=cause)
    bundle = refitting.refit(
        store, loop.project, loop.pipeline, judged_bundle(loop, frozen), rows, spoiled.id, cause=cause
    )
    return proposal.propose(loop, endpoint, bundle, cause=cause, origin="ad hoc", table_version=judged_on.id)


def judged_bundle(loop: Loop, refit: ModelVersion) -> str:
    """The bundle whose recipe a refit repeats."""
    found = registry.versions(loop.store, loop.project.name, refit.model)
    return next(one.bundle for one in found if one.id == refit.refit_of)
