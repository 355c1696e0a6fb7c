"""The short list of a study, by cost."""

from __future__ import annotations

import numpy as np

from instar.evaluate.shortlist import shortlist


def test_the_cheapest_come_first_and_chance_is_told_from_difference() -> None:
    rng = np.random.default_rng(1)
    cheap = (rng.random(2000) < 0.1) * 3.0
    twin = np.roll(cheap, 7)  # as cheap, wrong on other rows
    nearly = cheap.copy()
    nearly[0] += 1.0
    poor = cheap + 0.2
    found = shortlist([("poor", poor), ("nearly", nearly), ("cheap", cheap), ("twin", twin)], length=4)
    assert {one.run for one in found[:2]} == {"cheap", "twin"}
    assert [one.run for one in found[2:]] == ["nearly", "poor"]
    assert [one.as_good for one in found] == [True, True, True, False]
    assert (found[0].more.mean, round(found[3].more.mean, 9)) == (0.0, 0.2)
    assert found[3].more.low > 0
    assert [one.run for one in shortlist([("poor", poor), ("cheap", cheap)], length=1)] == ["cheap"]
    assert shortlist([]) == []
