from __future__ import annotations

import pytest

from instar.core.errors import PipelineError
from instar.train.tuning import trials


def test_every_combination_once_in_the_order_written() -> None:
    assert trials({"a": [1, 2, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip
    assert trials({}) == trials(None) == [{}]
    assert trials({"a": ([1], [2])}) == [{"a": [1]}, {"a": [2]}]


@pytest.mark.parametrize("search", [{"a": []}, {"a": "text"}, {"a": 3}, {"a": range(30), "b": range(30)}])
def test_a_search_without_values_or_without_end_is_refused(search: dict) -> None:
    with pytest.raises(PipelineError):
        trials(search)
