"""Where a score becomes a decision: by the cheapest cut of the rows, or by the costs alone, as the contract says."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import numpy as np
import pytest

from instar.plan.cost import Cost
from instar.plan.project import Split
from instar.train import fitting

COST = Cost(false_negative=3.0, false_positive=1.0)
SCORES = np.array([0.1, 0.2, 0.6, 0.7, 0.8])
TRUTH = np.array([False, False, False, True, True])


def split(threshold: Literal["decide", "neutral"], min_rows: int = 1) -> Split:
    day = timedelta(days=1)
    return Split(decide=day, judge=day, min_rows=min_rows, threshold=threshold)


def test_the_cheapest_cut_of_the_rows() -> None:
    assert fitting.decide(COST, TRUTH, SCORES, split("decide")) == pytest.approx(0.65)


def test_the_costs_alone_where_the_contract_says_neutral() -> None:
    assert fitting.decide(COST, TRUTH, SCORES, split("neutral")) == 0.25


def test_the_costs_alone_where_rows_are_too_few() -> None:
    assert fitting.decide(COST, TRUTH, SCORES, split("decide", min_rows=6)) == 0.25
