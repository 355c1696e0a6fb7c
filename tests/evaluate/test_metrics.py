"""Metrics agree with their definitions, worked by hand or by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.evaluate import metrics
from instar.plan.cost import Cost

COST = Cost(false_negative=3.0, false_positive=1.0, unit="EUR")
TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 0])
SCORE = np.array([0.9, 0.6, 0.2, 0.7, 0.4, 0.3, 0.2, 0.1])

labels = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=25)


def test_the_summary_of_a_small_table() -> None:
    # At 0.5: two hits, one miss (3), one false alarm (1).
    found = metrics.summary(COST, TRUTH, SCORE, 0.5)
    assert found["cost"].mean == pytest.approx(4 / 8)
    assert found["accuracy"].mean == pytest.approx(6 / 8)
    assert found["precision"].mean == pytest.approx(2 / 3)
    assert found["recall"].mean == pytest.approx(2 / 3)
    assert found["f1"].mean == pytest.approx(2 / 3)
    assert found["positives"].mean == pytest.approx(3 / 8)
    assert found["decided_positive"].mean == pytest.approx(3 / 8)
    assert found["brier"].mean == pytest.approx(np.mean((SCORE - TRUTH) ** 2))
    assert found["log_loss"].mean == pytest.approx(-np.mean(np.log(np.where(TRUTH == 1, SCORE, 1 - SCORE))))
    assert found["auc"].mean == pytest.approx((5 + 4 + 1.5) / 15)
    assert all(value.n in (3, 8) for value in found.values())


def test_the_summary_and_the_single_functions_agree() -> None:
    decision = SCORE >= 0.5
    found = metrics.summary(COST, TRUTH, SCORE, 0.5)
    for name in ("accuracy", "precision", "recall", "f1"):
        assert getattr(metrics, name)(TRUTH, decision) == pytest.approx(found[name].mean)
    for name in ("auc", "brier", "log_loss"):
        assert getattr(metrics, name)(TRUTH, SCORE) == pytest.approx(found[name].mean)


@settings(max_examples=60, deadline=None)
@given(labels)
def test_auc_is_the_chance_to_rank_a_pair_right(rows: list[tuple[bool, float]]) -> None:
    truth, score = np.array([y for y, _ in rows]), np.array([s for _, s in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert metrics.auc(truth, score) == pytest.approx(expected, nan_ok=True)


def test_auc_interval_covers() -> None:
    # Normal scores one standard deviation apart: the true area is Phi(1 / sqrt(2)).
    random, inside = np.random.default_rng(0), 0
    true_area = 0.5 * (1 + math.erf(0.5))
    for _ in range(300):
        truth = random.random(300) < 0.3
        found = metrics.auc_interval(truth, random.normal(truth.astype(float), 1.0))
        inside += found.low <= true_area <= found.high
    assert 0.91 <= inside / 300 <= 0.985


def test_shares_stay_within_zero_and_one() -> None:
    for count, n in [(0, 5), (5, 5), (1, 3), (500, 1000)]:
        found = metrics.share(count, n)
        assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    assert metrics.share(0, 5).high > 0.3  # none of five proves little
    assert (metrics.share(8, 10).low, metrics.share(8, 10).high) == (
        pytest.approx(0.4902, abs=1e-4),
        pytest.approx(0.9433, abs=1e-4),
    )


def test_undefined_is_nan_not_an_error() -> None:
    ones = np.ones(3)
    assert math.isnan(metrics.auc(ones, SCORE[:3]))
    assert math.isnan(metrics.recall(np.zeros(3), ones))
    assert math.isnan(metrics.precision(ones, np.zeros(3)))
    empty = np.array([])
    assert math.isnan(metrics.log_loss(empty, empty))
    assert math.isnan(metrics.summary(COST, empty, empty, 0.5)["cost"].mean)


def test_scores_of_zero_and_one_keep_log_loss_finite() -> None:
    assert metrics.log_loss(np.array([1, 0]), np.array([0.0, 1.0])) == pytest.approx(36.04, abs=0.01)
    assert metrics.log_loss(np.array([1, 0]), np.array([1.0, 0.0])) == pytest.approx(0.0, abs=1e-12)


def test_calibration_bins_are_equally_filled_and_ordered() -> None:
    random = np.random.default_rng(0)
    score = random.random(1_000)
    points = metrics.calibration((random.random(1_000) < score).astype(int), score)
    assert [n for _, _, n in points] == [100] * 10
    assert [s for s, _, _ in points] == sorted(s for s, _, _ in points)
    assert all(abs(s - share) < 0.15 for s, share, _ in points)
    assert metrics.calibration(np.array([]), np.array([])) == []
    assert len(metrics.calibration(np.array([1, 0]), np.array([0.2, 0.1]))) == 2
