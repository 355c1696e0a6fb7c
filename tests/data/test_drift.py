"""Drift: golden values by hand, and a profile of the same world does not drift."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from instar.core.errors import BadInput
from instar.data import drift, profile


def of(**columns: list[object]) -> profile.Profile:
    return profile.profile(pl.DataFrame(columns))


def test_psi_by_hand() -> None:
    # Shares 0.5/0.5 against 0.8/0.2: 0.3 ln(0.8/0.5) - 0.3 ln(0.2/0.5) = 0.3 ln 4.
    assert drift.population_stability([50, 50], [80, 20]) == pytest.approx(0.3 * math.log(4))
    assert drift.population_stability([50, 50], [5, 5]) == 0.0


def test_an_empty_bin_counts_as_half_a_row() -> None:
    expected = (0.005 - 0.5) * math.log(0.005 / 0.5) + (1.0 - 0.5) * math.log(1.0 / 0.5)
    assert drift.population_stability([50, 50], [0, 100]) == pytest.approx(expected)


def test_jensen_shannon_by_hand() -> None:
    assert drift.jensen_shannon([1, 0], [0, 1]) == 1.0
    assert drift.jensen_shannon([3, 1], [30, 10]) == 0.0
    from_reference = 0.5 * math.log2(0.5 / 0.65) + 0.5 * math.log2(0.5 / 0.35)
    from_window = 0.8 * math.log2(0.8 / 0.65) + 0.2 * math.log2(0.2 / 0.35)
    expected = (from_reference + from_window) / 2
    assert drift.jensen_shannon([50, 50], [80, 20]) == pytest.approx(expected)


def test_numbers_are_cut_at_the_quantiles_of_the_reference() -> None:
    reference = of(a=list(range(1, 101)))
    [found] = drift.compare(reference, of(a=list(range(91, 101)) * 10), bins=10)
    # Nine bins of ten rows are empty in the window, whose hundred rows all lie in the last.
    expected = 9 * (0.005 - 0.1) * math.log(0.005 / 0.1) + 0.9 * math.log(10)
    assert found.value == pytest.approx(expected)
    assert (found.column, found.measure, found.n_reference, found.n_window) == ("a", "psi", 100, 100)
    assert (
        found.binning
        == "10 quantile bins of the reference and missing; empty bins count as half a row; natural logarithm"
    )
    assert found.noise == pytest.approx(9 * (1 / 100 + 1 / 100))


def test_categories_and_the_bin_of_others() -> None:
    [found] = drift.compare(of(a=["x"] * 50 + ["y"] * 50), of(a=["x"] * 50 + ["new"] * 50))
    expected = (0.005 - 0.5) * math.log(0.005 / 0.5) + (0.5 - 0.005) * math.log(0.5 / 0.005)
    assert found.value == pytest.approx(expected)


def test_a_column_that_went_missing_drifts() -> None:
    quiet, loud = drift.compare(of(a=[1, 2, 3, 4] * 25, b=["x"] * 100), of(a=[1, 2, 3, 4] * 25, b=[None] * 100))
    assert quiet.value == 0.0
    assert loud.value > 4


def test_a_constant_column_can_drift_upwards_only_when_something_changed() -> None:
    reference = of(a=[5.0] * 100)
    assert drift.compare(reference, of(a=[5.0] * 30))[0].value == 0.0


def test_the_same_world_stays_below_the_threshold_and_a_shift_rises_above() -> None:
    generator = np.random.default_rng(7)
    reference = profile.profile(pl.DataFrame({"x": generator.normal(0, 1, 50_000)}))
    same = profile.profile(pl.DataFrame({"x": generator.normal(0, 1, 5_000)}))
    moved = profile.profile(pl.DataFrame({"x": generator.normal(0.5, 1, 5_000)}))
    assert drift.compare(reference, same)[0].value < 0.02
    # A normal shifted by half a deviation: the divergence of the two, cut into deciles, is close to 0.25.
    assert drift.compare(reference, moved)[0].value == pytest.approx(0.24, abs=0.04)
    assert 0 < drift.compare(reference, moved, measure="js")[0].value < 0.1


def test_types_that_cannot_be_compared_say_so() -> None:
    [found] = drift.compare(of(a=[1, 2]), of(a=["x", "y"]))
    assert math.isnan(found.value)
    assert "type changed from number to text" in found.binning


def test_bad_requests_are_refused() -> None:
    with pytest.raises(BadInput, match="2 to 100 bins"):
        drift.compare(of(a=[1]), of(a=[1]), bins=1)
    with pytest.raises(BadInput, match="psi or js"):
        drift.compare(of(a=[1]), of(a=[1]), measure="ks")  # type: ignore[arg-type]
