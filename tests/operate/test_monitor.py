from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from instar import testing
from instar.core.ids import call_id
from instar.core.store import Store
from instar.data.profile import profile
from instar.operate import alerts
from instar.operate.measurement import measurements
from instar.operate.monitor import Reference, Watched, watch
from instar.operate.outcomes import Item, post
from instar.plan.cost import Cost
from instar.plan.project import Monitor, OutcomeTerms, Problem, Split

DAY = timedelta(days=1)
START = testing.NOON
PROBLEM = Problem(
    task="binary", target="late", metric="cost", cost=Cost(false_negative=3.0, false_positive=1.0, unit="EUR"),
    split=Split(decide=14 * DAY, judge=14 * DAY), outcome=OutcomeTerms(due=DAY), monitor=Monitor(min_rows=50),
)  # fmt: skip
FITTED = pl.DataFrame({"hour": np.arange(2000) % 24 + 0.0, "origin": ["EWR", "JFK", "LGA", "JFK"] * 500})
REFERENCE = Reference(2, ("hour", "origin"), profile(FITTED), "b3:profile", 0.5, "eval_1", START - 10 * DAY)


def fly(log: Any, start: datetime, count: int = 240, *, origin: str = "", score: float = 0.9) -> list[str]:
    """A day of calls like the rows fitted on, or all from one origin."""
    return [
        log.add(
            start + DAY * place / count,
            {2: score, 1: 0.2},
            inputs={"hour": float(place % 24), "origin": origin or ("EWR", "JFK", "LGA", "JFK")[place % 4]},
        )
        for place in range(count)
    ]


def look(store: Store, log: Any, now: datetime, reference: Reference = REFERENCE) -> Watched:
    store.clock.advance_to(now)  # type: ignore[attr-defined]
    return watch(store, "flights", "delay", PROBLEM, log, reference)


def one(watched: Watched, monitor: str, subject: str = "delay") -> Any:
    (found,) = [m for m in watched.measurements if (m.monitor, m.subject) == (monitor, subject)]
    return found


def test_traffic_like_the_rows_fitted_on_is_quiet_and_measured_all_the_same(store: Store, log: Any) -> None:
    fly(log, START)
    watched = look(store, log, START + DAY)
    share = one(watched, "drift_share")
    assert (share.state, share.value, share.n, share.reference) == ("ok", 0.0, 240, "b3:profile")
    assert (share.window_start, share.window_end) == (START, START + DAY)
    assert share.cursor == max(row["prediction"] for row in log.rows)
    assert one(watched, "drift", "hour").state == "ok"
    assert "bins" in one(watched, "drift", "hour").detail["binning"]
    assert watched.changed == alerts.Changed()
    assert measurements(store, "flights", monitor="drift_share") == [share]


def test_drift_alerts_once_with_the_columns_that_moved(store: Store, log: Any) -> None:
    fly(log, START, origin="EWR")
    watched = look(store, log, START + DAY)
    assert one(watched, "drift", "origin").state == "breach"
    assert one(watched, "drift", "hour").state == "ok"
    (opened,) = watched.changed.opened
    assert (opened.metric, opened.value, opened.since) == ("drift_share", 0.5, START)
    assert "origin" in opened.text
    fly(log, START + DAY, origin="EWR")
    assert "drift_share" not in [alert.metric for alert in look(store, log, START + 2 * DAY).changed.opened]
    fly(log, START + 2 * DAY)
    assert [closed.id for closed in look(store, log, START + 3 * DAY).changed.closed] == [opened.id]


def test_cost_is_that_of_the_answers_returned_and_waits_for_the_outcomes_due(store: Store, log: Any) -> None:
    names = fly(log, START)
    post(store, "flights", [Item(name, place % 4 != 0) for place, name in enumerate(names)], log.seen)
    assert one(look(store, log, START + DAY), "cost").state == "too few"
    watched = look(store, log, START + 2 * DAY)
    cost = one(watched, "cost")
    # The champion warned always: a quarter were false alarms at 1. The limit is 0.5 and 15 % more.
    assert (cost.value, cost.state, cost.n, cost.outcomes_share) == (0.25, "ok", 240, 1.0)
    assert cost.limit == pytest.approx(0.575)
    assert (cost.window_start, cost.window_end) == (START, START + DAY)
    assert one(watched, "cost", "delay@1").value == pytest.approx(0.75 * 3)  # never warned: three quarters missed at 3
    assert one(watched, "auc", "delay@1").value == 0.5
    assert one(watched, "cost", "delay@1").state == "no limit"


def test_a_rise_of_the_cost_alerts_and_says_how_much(store: Store, log: Any) -> None:
    names = fly(log, START)
    post(store, "flights", [Item(name, False) for name in names], log.seen)
    (opened,) = look(store, log, START + 2 * DAY).changed.opened
    assert (opened.metric, opened.value) == ("cost", 1.0)
    assert "+100%" in opened.text


def test_missing_outcomes_alert_after_they_are_due(store: Store, log: Any) -> None:
    names = fly(log, START)
    post(store, "flights", [Item(name, True) for name in names[:60]], log.seen)
    watched = look(store, log, START + 2 * DAY)
    missing = one(watched, "outcomes_missing")
    assert (missing.value, missing.state, missing.outcomes_share) == (0.75, "breach", 0.25)
    assert "outcomes_missing" in {alert.metric for alert in watched.changed.opened}


def test_outcomes_of_calls_never_seen_alert_after_the_horizon(store: Store, log: Any) -> None:
    strange = call_id(1_600_000_000_000, boot=9, sequence=1)
    post(store, "flights", [Item(f"{strange}/0", True)], log.seen)
    assert one(look(store, log, START + DAY), "outcomes_parked").state == "ok"
    watched = look(store, log, START + 3 * DAY)
    assert one(watched, "outcomes_parked").value == 1.0
    assert [alert.metric for alert in watched.changed.opened] == ["outcomes_parked"]


def test_errors_and_latency_are_those_of_calls(store: Store, log: Any) -> None:
    for minute in range(100):
        log.add(START + timedelta(minutes=minute), {2: 0.9}, latency_us=30_000 if minute < 3 else 2_000)
    for minute in range(4):
        log.add(START + timedelta(minutes=minute), {}, version=2, status=503)
    log.add(START, {}, version=2, status=400)
    watched = look(store, log, START + DAY)
    errors, latency = one(watched, "errors"), one(watched, "latency_p99")
    assert (errors.value, errors.n, errors.state) == (4 / 105, 105, "breach")
    assert (latency.value, latency.limit, latency.state, latency.detail["median"]) == (30.0, 20.0, "breach", 2.0)


def test_without_traffic_there_is_too_little_to_say(store: Store, log: Any) -> None:
    watched = look(store, log, START + DAY)
    states = {m.monitor: m.state for m in watched.measurements}
    assert states["errors"] == states["latency_p99"] == states["cost"] == states["drift_share"] == "too few"
    assert watched.changed == alerts.Changed()


def test_without_a_reference_figures_are_kept_and_nothing_alerts(store: Store, log: Any) -> None:
    names = fly(log, START)
    post(store, "flights", [Item(name, False) for name in names], log.seen)
    watched = look(store, log, START + 2 * DAY, Reference(2))
    assert (one(watched, "cost").value, one(watched, "cost").state) == (1.0, "no reference")
    assert one(watched, "drift_share").state == "no reference"
    assert watched.changed == alerts.Changed()


def test_looking_twice_at_one_moment_changes_nothing(store: Store, log: Any) -> None:
    fly(log, START, origin="EWR")
    assert look(store, log, START + DAY).changed.opened
    assert look(store, log, START + DAY) == Watched((), alerts.Changed())


def test_staleness_is_the_age_of_the_last_row_fitted_on(store: Store, log: Any) -> None:
    assert one(look(store, log, START + DAY), "staleness", "delay@2").value == 11.0


def test_the_log_is_read_once_and_only_its_end(store: Store, log: Any) -> None:
    asked: list[Any] = []
    read = log.read
    log.read = lambda endpoint, since, until: asked.append((since, until)) or read(endpoint, since, until)
    look(store, log, START + 5 * DAY)
    assert asked == [(START + 3 * DAY, START + 5 * DAY)]


def test_measurements_are_plain_json(store: Store, log: Any) -> None:
    fly(log, START)
    for measurement in look(store, log, START + DAY).measurements:
        msgspec.json.encode(measurement)
