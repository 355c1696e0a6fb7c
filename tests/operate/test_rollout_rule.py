from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.evaluate.compare import PairedSums
from instar.operate.rollout_rule import Decision, Evidence, Move, Place, Terms, advance

NOW = datetime(2013, 6, 1, tzinfo=UTC)
TERMS = Terms(
    shadow=2000, steps=(2, 5, 10, 25, 75, 100), bake=timedelta(hours=6), patience=timedelta(days=14),
    cool_down=timedelta(days=7), cost=0.05, errors=0.01, no_worse=0.02, min_rows=200, refit=True,
)  # fmt: skip
SHADOW = Place("shadow", -1, NOW - timedelta(days=1))
LAST = Place("canary", 5, NOW - timedelta(hours=7))


def costs(rows: int, champion: float, candidate: float) -> PairedSums:
    """Rows on which the two disagree now and then, with about these mean costs."""
    random = np.random.default_rng(7)
    shared = random.random(rows)
    return PairedSums.of((shared < candidate).astype(float), (shared < champion).astype(float))


def seen(**changes: object) -> Evidence:
    whole = Evidence(calls=1500, errors=0, paired=1500, paired_here=900, cost=PairedSums(), until=NOW)
    return replace(whole, **changes)  # type: ignore[arg-type]


def look(place: Place, evidence: Evidence, terms: Terms = TERMS) -> Decision:
    return advance(place, terms, evidence, NOW)


def test_shadow_waits_for_its_predictions_then_takes_the_first_step() -> None:
    assert look(SHADOW, seen(paired=1999)).move is Move.WAIT
    decision = look(SHADOW, seen(paired=2000))
    assert (decision.move, decision.stage, decision.step, decision.rule) == (Move.ADVANCE, "canary", 0, "shadow")
    assert "2000" in decision.reason
    assert "2 %" in decision.reason


def test_each_step_bakes_and_needs_traffic() -> None:
    place = Place("canary", 1, NOW - timedelta(hours=6))
    assert look(replace(place, since=NOW - timedelta(hours=5, minutes=59)), seen()).move is Move.WAIT
    assert look(place, seen(paired_here=0)).move is Move.WAIT
    decision = look(place, seen())
    assert (decision.move, decision.stage, decision.step) == (Move.ADVANCE, "canary", 2)


@pytest.mark.parametrize(("place", "move"), [(SHADOW, Move.REJECT), (LAST, Move.ROLL_BACK)])
def test_errors_put_the_candidate_out(place: Place, move: Move) -> None:
    assert look(place, seen(calls=10, errors=2)).move is not move  # two failures of ten calls are not yet a share
    for evidence in (seen(calls=10, errors=3), seen(calls=1000, errors=11)):
        decision = look(place, evidence)
        assert (decision.move, decision.rule, decision.for_cause) == (move, "errors", True)
        assert decision.facts["errors"] == evidence.errors
    assert look(place, seen(calls=1000, errors=10)).rule != "errors"


@pytest.mark.parametrize(("place", "move"), [(SHADOW, Move.REJECT), (LAST, Move.ROLL_BACK)])
def test_a_candidate_proven_to_cost_more_is_put_out_with_the_evidence(place: Place, move: Move) -> None:
    decision = look(place, seen(cost=costs(1500, 0.2, 0.4)))
    assert (decision.move, decision.rule, decision.for_cause) == (move, "cost guard", True)
    assert decision.facts["interval"][0] > 0
    assert decision.facts["outcomes"] == 1500
    assert "1500 outcomes" in decision.reason


def test_a_handful_of_outcomes_proves_nothing() -> None:
    assert look(SHADOW, seen(cost=costs(100, 0.0, 1.0))).move is Move.WAIT


def test_it_becomes_champion_after_the_last_step_with_enough_outcomes() -> None:
    assert look(LAST, seen(cost=costs(199, 0.2, 0.2))).move is Move.WAIT
    assert "undecided" in look(LAST, seen(cost=costs(199, 0.2, 0.2))).reason
    decision = look(LAST, seen(cost=costs(5000, 0.2, 0.2)))
    assert (decision.move, decision.stage) == (Move.PROMOTE, "champion")
    assert decision.rule == "no worse"


def test_a_refit_may_be_slightly_worse_and_a_new_recipe_may_not() -> None:
    slightly = seen(cost=costs(60_000, 0.300, 0.306))
    assert look(LAST, slightly).move is Move.PROMOTE
    decision = look(LAST, slightly, replace(TERMS, refit=False))
    assert (decision.move, decision.rule) == (Move.ROLL_BACK, "not contradicted")
    worse = look(LAST, seen(cost=costs(60_000, 0.300, 0.312)))
    assert (worse.move, worse.rule) == (Move.ROLL_BACK, "no worse")


@pytest.mark.parametrize("place", [SHADOW, replace(LAST, step=2), LAST])
def test_patience_ends_in_undecided_and_bars_nobody(place: Place) -> None:
    long_ago = replace(place, since=NOW - timedelta(days=14, hours=1))
    evidence = seen(paired=10, paired_here=0, cost=costs(10, 0.2, 0.2))
    decision = look(long_ago, evidence)
    assert (decision.move, decision.rule, decision.for_cause) == (Move.REJECT, "patience", False)
    assert "undecided" in decision.reason
    assert look(replace(long_ago, since=NOW - timedelta(days=14)), evidence).move is Move.WAIT


def test_without_steps_shadow_is_all_there_is() -> None:
    decision = look(SHADOW, seen(paired=2000, cost=costs(2000, 0.2, 0.2)), replace(TERMS, steps=()))
    assert decision.move is Move.PROMOTE


def test_where_the_answer_changes_the_outcome_pairs_prove_nothing() -> None:
    terms = replace(TERMS, affected_by_answer=True)
    assert look(LAST, seen(cost=costs(5000, 0.2, 0.6)), terms).move is Move.WAIT
    waited = look(replace(LAST, since=NOW - timedelta(days=15)), seen(cost=costs(5000, 0.2, 0.1)), terms)
    assert (waited.move, waited.rule) == (Move.REJECT, "patience")


@settings(max_examples=60, deadline=None)
@given(
    step=st.integers(-1, 5), hours=st.integers(0, 500), calls=st.integers(0, 5000), errors=st.integers(0, 60),
    paired=st.integers(0, 5000), rows=st.integers(0, 3000), candidate=st.sampled_from([0.0, 0.2, 0.21, 0.5]),
    refit=st.booleans(), affected=st.booleans(),
)  # fmt: skip
def test_every_look_moves_at_most_one_step_and_says_why(
    step: int,
    hours: int,
    calls: int,
    errors: int,
    paired: int,
    rows: int,
    candidate: float,
    refit: bool,
    affected: bool,
) -> None:
    place = Place("shadow" if step < 0 else "canary", step, NOW - timedelta(hours=hours))
    evidence = seen(calls=calls, errors=errors, paired=paired, paired_here=paired, cost=costs(rows, 0.2, candidate))
    decision = look(place, evidence, replace(TERMS, refit=refit, affected_by_answer=affected))
    assert decision.reason
    assert decision.rule
    json.dumps(decision.facts, allow_nan=False)
    assert decision.facts["outcomes"] == rows
    assert decision.step in (step, step + 1)
    if decision.move is Move.PROMOTE:
        assert step == 5
        assert rows >= TERMS.min_rows
        assert not affected
    if decision.move is Move.WAIT:
        assert (decision.stage, decision.step) == (place.stage, place.step)
    if decision.move is Move.ROLL_BACK:
        assert place.stage == "canary"


def test_costs_are_not_compared_before_enough_outcomes() -> None:
    patient = replace(TERMS, min_outcomes=2500)
    bad = costs(1000, 0.2, 0.5)
    assert look(SHADOW, seen(paired=1500, cost=bad)).move is Move.REJECT
    assert look(SHADOW, seen(paired=1500, cost=bad), patient).move is Move.WAIT
    assert look(SHADOW, seen(paired=1500, cost=costs(2500, 0.2, 0.5)), patient).move is Move.REJECT
    good = seen(paired=3000, paired_here=300, cost=costs(2499, 0.2, 0.2))
    assert look(LAST, good, patient).move is Move.WAIT
    assert look(LAST, replace(good, cost=costs(2500, 0.2, 0.2)), patient).move is Move.PROMOTE


def test_outcomes_that_go_together_are_compared_by_group() -> None:
    terms = replace(TERMS, group=timedelta(days=1))
    bad = tuple(costs(400, 0.2, 0.5) for _ in range(5))
    whole = sum(bad, PairedSums())
    assert look(SHADOW, seen(paired=1500, cost=whole, groups=bad), terms).move is Move.REJECT
    assert look(SHADOW, seen(paired=1500, cost=whole, groups=bad[:3]), terms).move is Move.WAIT
    one_bad_day = (costs(2000, 0.2, 0.5), *(costs(100, 0.2, 0.2) for _ in range(4)))
    mixed = sum(one_bad_day, PairedSums())
    assert look(SHADOW, seen(paired=1500, cost=mixed, groups=one_bad_day)).move is Move.REJECT
    assert look(SHADOW, seen(paired=1500, cost=mixed, groups=one_bad_day), terms).move is Move.WAIT
    good = tuple(costs(400, 0.2, 0.2) for _ in range(4))
    ready = seen(paired=3000, paired_here=300, cost=sum(good, PairedSums()), groups=good)
    assert look(LAST, ready, terms).move is Move.PROMOTE
    waits = look(LAST, replace(ready, groups=good[:3]), terms)
    assert (waits.move, waits.rule) == (Move.WAIT, "group")
