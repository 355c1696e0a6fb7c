"""Every row is in exactly one slice of a column, and the slices have names that people know."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import ContractError
from instar.evaluate.slices import MOST_VALUES, cut_slices


def test_a_slice_a_value_largest_first() -> None:
    frame = pl.DataFrame({"origin": ["JFK", "LGA", "JFK", None, "LGA", "JFK"], "hour": [5, 5, 6, 6, 6, 5]})
    found = cut_slices(frame, ["origin", "hour"])
    assert [(part.name, part.rows) for part in found] == [
        ("origin=JFK", 3), ("origin=LGA", 2), ("origin=(missing)", 1), ("hour=5", 3), ("hour=6", 3),
    ]  # fmt: skip
    assert found[0].index.tolist() == [0, 2, 5]


def test_a_measure_is_cut_at_its_quartiles() -> None:
    frame = pl.DataFrame({"distance": [*(float(i) for i in range(100)), None]})
    found = {part.value: part.rows for part in cut_slices(frame, ["distance"])}
    assert found == {"below 25": 25, "25 to 50": 25, "50 to 74": 24, "74 and above": 26, "(missing)": 1}


def test_a_measure_with_one_common_value_is_one_slice() -> None:
    frame = pl.DataFrame({"rain": [0.0] * 200 + [float(i) for i in range(1, 60)]})
    assert {part.value: part.rows for part in cut_slices(frame, ["rain"])} == {"0 and above": 259}


def test_rare_values_of_many_are_put_together() -> None:
    names = [f"tail{i:03}" for i in range(100) for _ in range(100 - i)]
    found = cut_slices(pl.DataFrame({"tail": names}), ["tail"])
    assert len(found) == MOST_VALUES
    assert {part.value for part in found} >= {"tail000", "(rest)"}
    assert sum(part.rows for part in found) == len(names)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ContractError, match="'carrrier'"):
        cut_slices(pl.DataFrame({"carrier": ["UA"]}), ["carrrier"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.sampled_from("abc"), st.text(max_size=2)), min_size=1, max_size=80))
def test_slices_partition_the_rows(values: list[str | None]) -> None:
    found = cut_slices(pl.DataFrame({"x": values}, schema={"x": pl.String}), ["x"])
    assert sorted(np.concatenate([part.index for part in found]).tolist()) == list(range(len(values)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=120))
def test_slices_of_numbers_partition_the_rows(values: list[float | None]) -> None:
    found = cut_slices(pl.DataFrame({"x": values}, schema={"x": pl.Float64}), ["x"])
    assert sorted(np.concatenate([part.index for part in found]).tolist()) == list(range(len(values)))
