from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from instar import testing
from instar.core.store import Store
from instar.operate.outcomes import Item, post
from instar.operate.pairing import answers_of, gather
from instar.operate.rollout import Rollout
from instar.operate.rollout_rule import Terms
from instar.plan.cost import Cost

COST = Cost(false_negative=3.0, false_positive=1.0, unit="EUR")
START = testing.NOON
TERMS = Terms(
    shadow=5, steps=(100,), bake=timedelta(hours=1), patience=timedelta(days=14), cool_down=timedelta(days=7),
    cost=0.05, errors=0.01, no_worse=0.02, min_rows=1, refit=True,
)  # fmt: skip
ROLLOUT = Rollout(
    "roll_1", "flights", "delay", 3, "b3:3", 2, "canary", 0, START + timedelta(hours=1), TERMS, (), None, "test", START,
    None, "", None, None, True, START,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = testing.memory_store(tmp_path)
    store.clock.advance_to(START + timedelta(hours=2))  # type: ignore[attr-defined]
    return store


def test_costs_are_paired_on_predictions_that_both_answered_and_whose_outcome_is_known(store: Store, log: Any) -> None:
    late = log.add(START, {2: 0.9, 3: 0.1})  # the candidate misses it
    on_time = log.add(START, {2: 0.9, 3: 0.1})  # the champion's false alarm
    agreed = log.add(START + timedelta(hours=1), {2: 0.1, 3: 0.2, 1: 0.9})
    log.add(START, {2: 0.9, 3: 0.9})  # no outcome yet
    alone = log.add(START, {2: 0.9})
    log.add(START - timedelta(minutes=1), {2: 0.9, 3: 0.9})  # before the rollout
    log.add(START + timedelta(hours=2), {2: 0.9, 3: 0.9})  # after the look
    truths = [(late, True), (on_time, False), (agreed, True), (alone, False)]
    post(store, "flights", [Item(name, value) for name, value in truths], log.seen)

    evidence = gather(store, log, ROLLOUT, COST)
    assert (evidence.calls, evidence.errors, evidence.paired, evidence.paired_here) == (4, 0, 4, 1)
    sums = evidence.cost
    assert (sums.n, sums.a, sums.b) == (3, 6.0, 4.0)  # candidate: miss, right, miss; champion: right, alarm, miss
    assert (sums.aa, sums.bb, sums.ab) == (18.0, 10.0, 9.0)


def test_failed_answers_and_dead_calls_of_the_candidate_are_its_errors(store: Store, log: Any) -> None:
    log.add(START, {2: 0.9, 3: 0.9})
    log.add(START, {2: 0.9, 3: None})  # failed in shadow or in the pair
    log.add(START, {}, version=3, status=503)  # routed to it, and nobody answered
    log.add(START, {}, version=2, status=503)  # the champion's own failure
    log.add(START, {}, version=3, status=400)  # the caller's fault
    evidence = gather(store, log, ROLLOUT, COST)
    assert (evidence.calls, evidence.errors, evidence.paired) == (3, 2, 1)


def test_answers_with_tensors_alone_are_no_errors_and_nothing_to_compare(store: Store, log: Any) -> None:
    log.add(START, {2: None, 3: None})
    for said in log.rows[0]["answers"]:
        said["error"] = said["decision"] = said["threshold"] = None
    evidence = gather(store, log, ROLLOUT, COST)
    assert (evidence.calls, evidence.errors, evidence.paired, evidence.cost.n) == (1, 0, 0, 0)


def test_an_empty_log_is_no_evidence(store: Store, log: Any) -> None:
    evidence = gather(store, log, ROLLOUT, COST)
    assert (evidence.calls, evidence.errors, evidence.paired, evidence.cost.n) == (0, 0, 0, 0)


def test_answers_of_one_version(log: Any) -> None:
    name = log.add(START, {2: 0.9, 3: 0.4})
    said = answers_of(log.read("delay"), 3)
    assert said.drop("at").rows() == [(name, 0.4, 0, 0.5, None)]
    assert answers_of(log.read("delay"), 9).height == 0


def test_a_rollout_reads_no_further_back_than_its_beginning(store: Store, log: Any) -> None:
    asked: list[Any] = []
    read = log.read
    log.read = lambda endpoint, since, until: asked.append((since, until)) or read(endpoint, since, until)
    gather(store, log, replace(ROLLOUT, started_at=START), COST)
    assert asked == [(START, START + timedelta(hours=2))]


def test_outcomes_that_go_together_are_summed_by_span(store: Store, log: Any) -> None:
    daily = replace(ROLLOUT, started_at=START - timedelta(days=3), terms=replace(TERMS, group=timedelta(days=1)))
    names = [log.add(START - timedelta(hours=hours), {2: 0.9, 3: 0.1}) for hours in (1, 2, 30, 31, 32)]
    post(store, "flights", [Item(name, True) for name in names], log.seen)
    evidence = gather(store, log, daily, COST)
    assert sorted(group.n for group in evidence.groups) == [2, 3]
    assert sum((group.a for group in evidence.groups), 0.0) == evidence.cost.a == 15.0
    assert gather(store, log, replace(daily, terms=TERMS), COST).groups == ()
