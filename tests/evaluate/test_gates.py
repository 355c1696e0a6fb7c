"""The verdict follows from the rules: a bound decides, undecided is never passed, failed beats everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.evaluate.compare import PairedSums
from instar.evaluate.gates import (
    BundleFacts,
    Evidence,
    GateCheck,
    Latency,
    ParityEvidence,
    Relation,
    SliceEvidence,
    conclude,
    judge,
    waive,
)
from instar.plan.project import Gates

GATES = Gates(improvement=0.01, no_worse=0.02, slices=("carrier",), slice_no_worse=0.10, latency_p99_ms=20.0)
GOOD = BundleFacts(
    contract_problems=(), latency=Latency(1.0, 5.0, 300, "test"), parity=ParityEvidence(500, 1e-9, 1e-6, True)
)


def costs(candidate: float, champion: float, rows: int = 4_000) -> PairedSums:
    """Costs of 1 on shares of the rows; the same rows are hard for both."""
    place = (np.arange(rows) + 0.5) / rows
    return PairedSums.of((place < candidate).astype(float), (place < champion).astype(float))


def evidence(relation: Relation, candidate: float, champion: float, rows: int = 4_000, **changes: Any) -> Evidence:
    pairs = costs(candidate, champion, rows)
    given = Evidence(relation, "delay@3", pairs, "EUR", 200, facts=GOOD, decide_rows=1_000)
    return replace(given, **changes)


def state_of(found: Evidence, name: str = "cost") -> str:
    return next(check.state for check in judge(GATES, found).checks if check.name == name)


@pytest.mark.parametrize(
    ("relation", "candidate", "expected"),
    [
        ("recipe", 0.40, "passed"),  # a fifth cheaper
        ("recipe", 0.4955, "undecided"),  # cheaper, but not surely by 1 %
        ("recipe", 0.50, "failed"),  # equal is no improvement: its interval lies beyond -1 %
        ("recipe", 0.60, "failed"),
        ("refit", 0.40, "passed"),
        ("refit", 0.50, "passed"),  # equal is no worse than 2 %
        ("refit", 0.51, "undecided"),  # 2 % worse, give or take
        ("refit", 0.60, "failed"),
        ("first", 0.40, "passed"),
        ("first", 0.51, "passed"),  # not shown to be worse than the neutral decision
        ("first", 0.60, "failed"),
    ],
)
def test_cost_against_the_champion(relation: Relation, candidate: float, expected: str) -> None:
    found = judge(GATES, evidence(relation, candidate, 0.50))
    assert found.state == expected
    assert state_of(evidence(relation, candidate, 0.50)) == expected


def test_the_bound_decides_and_not_the_point_estimate() -> None:
    # A tenth cheaper, on rows where the two have nothing to do with each other: 220 of them leave it open.
    even, odd = np.arange(220) % 2 == 0, np.arange(220) % 20 < 9
    pairs = PairedSums.of(np.roll(odd, 3).astype(float), even.astype(float))
    assert pairs.mean_a < pairs.mean_b * 0.92
    assert judge(GATES, evidence("recipe", 0, 0, costs=pairs)).state == "undecided"


def test_improvement_is_asked_relative_to_the_champions_cost() -> None:
    wanted = replace_gates(improvement=0.15)
    assert judge(wanted, evidence("recipe", 0.40, 0.50)).state == "passed"
    assert judge(replace_gates(improvement=0.25), evidence("recipe", 0.40, 0.50)).state == "failed"


def replace_gates(**changes: Any) -> Gates:
    import msgspec

    return msgspec.structs.replace(GATES, **changes)


@pytest.mark.parametrize("relation", ["first", "recipe", "refit"])
def test_too_few_rows_are_undecided_whatever_they_say(relation: Relation) -> None:
    for candidate in (0.0, 0.5, 1.0):
        found = judge(GATES, evidence(relation, candidate, 0.50, rows=199))
        assert found.state == "undecided"
        assert "too few" in found.reason
    assert judge(GATES, evidence(relation, 0.40, 0.50, rows=0)).state == "undecided"


def test_a_threshold_chosen_on_too_few_rows_is_undecided() -> None:
    found = judge(GATES, evidence("recipe", 0.40, 0.50, decide_rows=10))
    assert (found.state, "threshold" in found.reason) == ("undecided", True)


def test_the_first_version_says_that_there_was_no_champion() -> None:
    found = judge(GATES, evidence("first", 0.40, 0.50, opponent="always no"))
    assert "first version, no champion" in found.checks[0].why
    assert "always no" in found.checks[0].asked
    worse = judge(GATES, evidence("first", 0.60, 0.50, opponent="always no"))
    assert worse.state == "failed"


def slices(**shares: tuple[float, float, int]) -> tuple[SliceEvidence, ...]:
    return tuple(SliceEvidence("carrier", name, costs(*given)) for name, given in shares.items())


def test_a_slice_that_is_worse_fails_and_is_named() -> None:
    found = judge(GATES, evidence("recipe", 0.40, 0.50, slices=slices(UA=(0.3, 0.5, 900), OO=(0.7, 0.5, 900))))
    assert found.state == "failed"
    assert [check.name for check in found.failed] == ["slice carrier=OO"]
    assert "carrier=OO" in found.reason


def test_a_small_slice_is_listed_and_does_not_block() -> None:
    found = judge(GATES, evidence("recipe", 0.40, 0.50, slices=slices(UA=(0.3, 0.5, 900), HA=(1.0, 0.1, 20))))
    assert found.state == "passed"
    assert [check.name for check in found.undecided] == ["slice carrier=HA"]
    assert "20 rows are too few" in found.undecided[0].why


def test_slices_may_be_a_little_worse() -> None:
    assert judge(GATES, evidence("recipe", 0.40, 0.50, slices=slices(UA=(0.52, 0.5, 3_000)))).state == "passed"


def test_many_slices_do_not_fail_by_chance() -> None:
    # Forty slices of a candidate exactly at the limit: a 95 % interval each would often blame one of them.
    random = np.random.default_rng(7)
    blamed = 0
    for _ in range(50):
        parts = tuple(
            SliceEvidence(
                "carrier", str(i), PairedSums.of((random.random(400) < 0.44) * 1.0, (random.random(400) < 0.40) * 1.0)
            )
            for i in range(40)
        )
        blamed += judge(GATES, evidence("recipe", 0.40, 0.50, slices=parts)).state == "failed"
    assert blamed <= 6


def test_the_first_version_has_no_slices_to_be_worse_on() -> None:
    assert judge(GATES, evidence("first", 0.40, 0.50, slices=slices(OO=(0.9, 0.5, 900)))).state == "passed"


@pytest.mark.parametrize(
    ("facts", "gate", "expected"),
    [
        (replace(GOOD, latency=Latency(1.0, 20.1, 300, "test")), "latency", "failed"),
        (replace(GOOD, latency=Latency(1.0, 20.0, 300, "test")), "latency", "passed"),
        (replace(GOOD, latency=Latency(1.0, 2.0, 99, "test")), "latency", "undecided"),
        (replace(GOOD, latency=None), "latency", "undecided"),
        (replace(GOOD, contract_problems=("it asks for input tail",)), "contract", "failed"),
        (replace(GOOD, contract_problems=None), "contract", "undecided"),
        (replace(GOOD, parity=ParityEvidence(500, 1e-3, 1e-6, False)), "parity", "failed"),
        (replace(GOOD, parity=ParityEvidence(500, 1e-3, 1e-6, True)), "parity", "failed"),
        (replace(GOOD, parity=ParityEvidence(0, 0.0, 1e-6, True)), "parity", "undecided"),
        (replace(GOOD, parity=None), "parity", "passed"),
    ],
)
def test_facts_of_the_bundle(facts: BundleFacts, gate: str, expected: str) -> None:
    given = evidence("recipe", 0.40, 0.50, facts=facts)
    assert state_of(given, gate) == expected
    assert judge(GATES, given).state == expected


def check(state: str, name: str = "x", blocking: bool = True) -> GateCheck:
    return GateCheck(name, state, "found", "asked", "why", blocking)  # type: ignore[arg-type]


states = st.lists(st.tuples(st.sampled_from(["passed", "failed", "undecided"]), st.booleans()), max_size=6)


@settings(max_examples=60, deadline=None)
@given(states)
def test_a_verdict_is_its_worst_check(given: list[tuple[str, bool]]) -> None:
    found = conclude(tuple(check(state, blocking=blocking) for state, blocking in given)).state
    if any(state == "failed" for state, _ in given):
        assert found == "failed"
    elif any(state == "undecided" and blocking for state, blocking in given):
        assert found == "undecided"
    else:
        assert found == "passed"


def test_a_waiver_passes_over_one_gate_by_name() -> None:
    verdict = conclude((check("failed", "latency"), check("undecided", "cost"), check("passed", "parity")))
    assert waive(verdict, frozenset({"latency"})).state == "undecided"
    both = waive(verdict, frozenset({"latency", "cost"}))
    assert both.state == "passed"
    assert [found.state for found in both.checks] == ["failed", "undecided", "passed"]
    assert both.checks[0].why.startswith("waived")


def test_one_line_names_the_first_gates_that_failed_and_counts_the_rest() -> None:
    failed = tuple(GateCheck(f"slice {number}", "failed", "1", "0", "worse") for number in range(5))
    assert conclude(failed).reason == "slice 0: worse; slice 1: worse; slice 2: worse; and 2 more"
