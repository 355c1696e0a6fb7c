from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.serve.policy import Canary, Policy, Route, Shadow, check, choose, position

keys = st.text(max_size=20)


def policy(share: float | None, champion: int | None = 1) -> Policy:
    return Policy("delay", "flights", 1, champion, None if share is None else Canary(2, share))


@settings(max_examples=100, deadline=None)
@given(keys, st.floats(0, 100), st.floats(0, 100))
def test_a_growing_share_only_adds_keys(key: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if choose(policy(small), key) == Route(2, "canary"):
        assert choose(policy(large), key) == Route(2, "canary")


@given(keys)
def test_no_share_and_the_whole_share_mean_what_they_say(key: str) -> None:
    assert choose(policy(0), key) == choose(policy(None), key) == Route(1, "champion")
    assert choose(policy(100), key) == Route(2, "canary")
    assert choose(policy(None, champion=None), key) is None


def test_a_share_is_met_and_endpoints_are_independent() -> None:
    names = [f"flight {n}" for n in range(4000)]
    taken = [key for key in names if choose(policy(25), key) == Route(2, "canary")]
    assert 0.22 < len(taken) / len(names) < 0.28
    assert 0.2 < sum(position("other", key) < 0.25 for key in taken) / len(taken) < 0.3


BAD: list[dict[str, Any]] = [
    {"endpoint": "../etc"},
    {"endpoint": ""},
    {"endpoint": "a" * 101},
    {"canary": Canary(2, 101)},
    {"canary": Canary(2, -1)},
    {"canary": Canary(1, 5)},
    {"canary": Canary(2, 5), "champion": None},
    {"shadows": (Shadow(1),)},
    {"shadows": (Shadow(3), Shadow(3, "again"))},
    {"shadows": (Shadow(3, "champion"),)},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_policies_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"endpoint": "delay", "project": "flights", "number": 1, "champion": 1, **change}
    with pytest.raises(BadInput):
        check(Policy(**fields))


def test_versions_are_named_once() -> None:
    made = Policy("delay", "flights", 1, 1, Canary(2, 5), (Shadow(4), Shadow(3, "frozen")))
    check(made)
    assert made.versions == (1, 2, 4, 3)
