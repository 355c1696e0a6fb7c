"""The arithmetic of mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.plan.cost import Cost, best_threshold, mean_cost, neutral_threshold, per_row

COST = Cost(false_negative=3.0, false_positive=1.0, unit="EUR")


def test_each_kind_of_mistake_has_its_price() -> None:
    assert per_row(COST, [1, 1, 0, 0], [1, 0, 1, 0]).tolist() == [0.0, 3.0, 1.0, 0.0]
    assert mean_cost(COST, [1, 1, 0, 0], [1, 0, 1, 0]) == 1.0


def test_no_rows_have_no_mean_cost() -> None:
    assert np.isnan(mean_cost(COST, [], []))
    assert best_threshold(COST, [], []) == neutral_threshold(COST) == 0.25


def test_sides_of_unequal_length_and_missing_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        per_row(COST, [1, 0], [1])
    with pytest.raises(ValueError, match="NaN"):
        best_threshold(COST, [1, 0], [0.5, float("nan")])


def test_the_threshold_separates_what_can_be_separated() -> None:
    threshold = best_threshold(COST, [0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9])
    assert threshold == pytest.approx(0.4)


def test_a_dear_miss_moves_the_threshold_down() -> None:
    truth, score = [0, 1, 0, 1], [0.2, 0.3, 0.4, 0.8]
    assert best_threshold(COST, truth, score) < 0.3
    assert best_threshold(Cost(false_negative=1.0, false_positive=3.0), truth, score) > 0.4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=30),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_no_other_threshold_is_cheaper(rows: list[tuple[bool, int]], miss: float, alarm: float) -> None:
    cost = Cost(false_negative=miss, false_positive=alarm)
    truth = np.array([one for one, _ in rows])
    score = np.array([two / 8 for _, two in rows])
    threshold = best_threshold(cost, truth, score)
    found = mean_cost(cost, truth, score >= threshold)
    cuts = [*np.unique(score), 2.0]
    assert found == pytest.approx(min(mean_cost(cost, truth, score >= cut) for cut in cuts))
    order = np.argsort(score)[::-1]
    assert best_threshold(cost, truth[order], score[order]) == threshold
