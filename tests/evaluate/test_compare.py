"""Intervals cover what they promise: one look for the paired interval, every look for the confidence sequence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.evaluate import compare
from instar.evaluate.compare import (
    SEQUENCE_DIFFER,
    SEQUENCE_START,
    ConfidenceSequence,
    PairedSums,
    anytime,
    grouped_sequence,
    paired,
)

Costs = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def models(rows: int, random: np.random.Generator, share: float) -> Costs:
    """Costs of two equally good models which differ on `share` of the rows: a miss costs 3, a false alarm 1."""
    both = random.choice([0.0, 0.0, 0.0, 1.0, 3.0], rows)
    differ = random.random(rows)
    first = np.where(differ < share / 8, 3.0, np.where(differ < share / 2, 1.0, 0.0))
    second = np.where(differ > 1 - share / 8, 3.0, np.where(differ > 1 - share / 2, 1.0, 0.0))
    wrong = (first > 0) | (second > 0)
    return np.where(wrong, first, both), np.where(wrong, second, both)


def rare_but_dear(rows: int, random: np.random.Generator) -> Costs:
    """One model misses seldom (3), the other raises false alarms three times as often (1): equal means, skewed differences."""
    place = random.random(rows)
    return np.where(place < 0.0125, 3.0, 0.0), np.where(place > 1 - 0.0375, 1.0, 0.0)


CASES: dict[str, Callable[[int, np.random.Generator], Costs]] = {
    "differ on a third": lambda rows, random: models(rows, random, 0.33),
    "differ on a tenth": lambda rows, random: models(rows, random, 0.1),
    "differ on a fiftieth": lambda rows, random: models(rows, random, 0.02),
    "rare but dear": rare_but_dear,
}


@pytest.mark.parametrize("case", CASES)
def test_the_sequence_covers_at_all_looks_and_a_t_interval_does_not(case: str) -> None:
    # Both models cost the same, and somebody looks every 50 rows for 12,000 rows: how often is he told otherwise, ever?
    random, streams, step = np.random.default_rng(20260101), 400, 50
    wrong, wrong_by_t = 0, 0
    for _ in range(streams):
        a, b = CASES[case](12_000, random)
        sums, misled, misled_by_t = PairedSums(), False, False
        for begin in range(0, len(a), step):
            sums += PairedSums.of(a[begin : begin + step], b[begin : begin + step])
            look, once = sums.sequence(), sums.margin()
            misled |= look.low > 0 or look.high < 0
            misled_by_t |= sums.n >= SEQUENCE_START and (once.low > 0 or once.high < 0)
        wrong, wrong_by_t = wrong + misled, wrong_by_t + misled_by_t
    # 5 % is promised; three standard errors of 400 streams are 3.3 %.
    assert wrong / streams <= 0.05 + 0.033
    assert wrong_by_t / streams > 0.2


def test_the_sequence_finds_a_real_loss_in_days() -> None:
    # 5 % worse on models that differ on a tenth of the rows, 900 rows a day: seen within two weeks in most streams.
    random, found = np.random.default_rng(1), 0
    for _ in range(40):
        a, b = models(12_600, random, 0.1)
        a = a + (random.random(len(a)) < 0.05) * 1.0
        found += PairedSums.of(a, b).sequence().low > 0
    assert found >= 36


def test_the_sequence_says_nothing_before_its_start() -> None:
    random = np.random.default_rng(0)
    a, b = models(SEQUENCE_START - 1, random, 0.5)
    assert PairedSums.of(a, b).sequence().high == math.inf
    a, b = models(SEQUENCE_START, random, 0.5)
    assert math.isfinite(PairedSums.of(a, b).sequence().high)


def test_the_sequence_waits_for_rows_that_differ() -> None:
    a, b = np.zeros(5_000), np.zeros(5_000)
    a[: SEQUENCE_DIFFER - 1] = 1.0
    assert PairedSums.of(a, b).sequence().low == -math.inf
    a[SEQUENCE_DIFFER] = 1.0
    assert math.isfinite(PairedSums.of(a, b).sequence().low)
    assert PairedSums.of(b, b).sequence().low == -math.inf


def test_the_formula_of_the_paper() -> None:
    # Waudby-Smith et al. 2024, Theorem 2.2, worked by hand: n = 1000, s = 2, alpha = 0.05, r² for 500 rows.
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05)) + 1) / 500
    half = 2 * math.sqrt(2 * (1000 * rho2 + 1) / (1000**2 * rho2) * math.log(math.sqrt(1000 * rho2 + 1) / 0.05))
    found = anytime(0.5 * 1000, 1000 * (0.25 + 4.0), 1000, 0.95, start=1, tightest=500)
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    assert 1.96 * 2 / math.sqrt(1000) < half < 2 * 1.96 * 2 / math.sqrt(1000)


def test_it_is_tightest_where_it_was_asked_to_be() -> None:
    widths = {t: anytime(0.0, 5_000.0, 5_000, start=1, tightest=t).high for t in (500, 1_000, 5_000, 20_000, 100_000)}
    assert min(widths, key=lambda t: widths[t]) == 5_000


def test_a_sequence_fed_in_batches_ends_where_one_batch_ends() -> None:
    random = np.random.default_rng(3)
    values = random.normal(0.2, 1.0, 1_000)
    batches = ConfidenceSequence(start=100)
    for part in np.array_split(values, 7):
        last = batches.update(float(part.sum()), float(part @ part), len(part))
    whole = ConfidenceSequence(start=100, total=float(values.sum()), squares=float(values @ values), n=1_000).interval()
    assert (last.low, last.high, last.n) == (pytest.approx(whole.low), pytest.approx(whole.high), whole.n)


def test_the_paired_interval_covers_at_one_look() -> None:
    random, streams = np.random.default_rng(5), 1_000
    inside = 0
    for _ in range(streams):
        found = paired(*models(2_000, random, 0.1))
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / streams <= 0.97


def test_pairing_makes_the_interval_narrower_than_two_samples_would() -> None:
    a, b = models(4_000, np.random.default_rng(2), 0.1)
    two_samples = 1.96 * math.sqrt(a.var() / len(a) + b.var() / len(b))
    found = paired(a, b)
    assert (found.high - found.low) / 2 < 0.6 * two_samples


def test_a_margin_counts_the_opponents_own_uncertainty() -> None:
    a, b = models(1_000, np.random.default_rng(4), 0.2)
    found, rows = PairedSums.of(a, b).margin(1.02), a - 1.02 * b
    half = 1.959964 * rows.std(ddof=1) / math.sqrt(len(rows))
    assert (found.mean, found.high) == (pytest.approx(rows.mean()), pytest.approx(rows.mean() + half, rel=1e-5))


def test_nothing_is_known_of_no_rows_or_one() -> None:
    assert math.isnan(PairedSums().margin().mean)
    assert PairedSums().sequence().low == -math.inf
    one = paired(np.array([1.0]), np.array([0.0]))
    assert (one.mean, one.low, one.high) == (1.0, -math.inf, math.inf)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        PairedSums.of(np.zeros(3), np.zeros(2))


costs = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 3.0])), max_size=30)


@settings(max_examples=40, deadline=None)
@given(costs, costs)
def test_sums_merge_as_if_the_rows_had_come_at_once(
    first: list[tuple[float, float]], second: list[tuple[float, float]]
) -> None:
    def sums(rows: list[tuple[float, float]]) -> PairedSums:
        return PairedSums.of(np.array([a for a, _ in rows]), np.array([b for _, b in rows]))

    assert sums(first) + sums(second) == sums(first + second)


def days(rng: np.random.Generator, count: int, rows: int, shared: float) -> list[PairedSums]:
    """Days on which two equally good versions differ by chance, each row for itself and all rows of a day together."""
    found = []
    for _ in range(count):
        tilt = float(np.clip(0.5 + shared * rng.standard_normal(), 0.0, 1.0))
        differs, worse = rng.random(rows) < 0.2, rng.random(rows) < tilt
        found.append(PairedSums.of((differs & worse).astype(float), (differs & ~worse).astype(float)))
    return found


def test_groups_that_differ_by_chance_alone_change_little() -> None:
    parts = days(np.random.default_rng(1), 40, 200, shared=0.0)
    plain, grouped = sum(parts, PairedSums()).sequence(), grouped_sequence(parts)
    assert grouped.mean == pytest.approx(plain.mean)
    assert 1.0 <= (grouped.high - grouped.low) / (plain.high - plain.low) < 1.3


def test_what_a_day_shares_is_no_proof() -> None:
    rng, wrong_plain, wrong_grouped = np.random.default_rng(2), 0, 0
    for _ in range(60):
        parts = days(rng, 8, 400, shared=0.4)
        looks = [parts[:number] for number in range(4, 9)]
        wrong_plain += any(sum(look, PairedSums()).sequence().low > 0 for look in looks)
        wrong_grouped += any(grouped_sequence(look).low > 0 for look in looks)
    assert wrong_plain >= 12  # rows taken as independent are far too sure of themselves
    assert wrong_grouped <= 2


def test_groups_still_prove_what_is_there() -> None:
    rng = np.random.default_rng(3)
    worse = [PairedSums.of((rng.random(500) < 0.3) * 1.0, (rng.random(500) < 0.2) * 1.0) for _ in range(8)]
    assert grouped_sequence(worse).low > 0
    assert math.isinf(grouped_sequence(worse[:3]).low)  # of three days nothing is said
    assert math.isinf(grouped_sequence([]).low)
    assert grouped_sequence([*worse, PairedSums()]) == grouped_sequence(worse)  # an empty day is none


@pytest.mark.parametrize(("freedom", "student"), [(3, 3.182), (5, 2.571), (30, 2.042), (1000, 1.962)])
def test_few_groups_are_widened_as_students_t(freedom: int, student: float) -> None:
    assert compare._student_over_normal(freedom, 0.95) * 1.95996 == pytest.approx(student, rel=0.002)
