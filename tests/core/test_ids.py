"""Ids sort by time, call ids tell time and place, digests are golden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core import ids
from instar.core.errors import MalformedRequest


def test_ids_have_their_prefix_sort_and_never_repeat() -> None:
    made = [ids.new_id("run") for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == 5000
    assert all(name.startswith("run_") and len(name) == 30 for name in made)


@given(st.integers(0, 2**50 - 1), st.integers(0, 2**30 - 1), st.integers(0, 2**50 - 1))
def test_a_call_id_gives_back_time_and_place(milliseconds: int, boot: int, sequence: int) -> None:
    text = ids.call_id(milliseconds, boot, sequence)
    assert ids.parse_call_id(text) == ids.CallId(milliseconds, boot, sequence)
    assert ids.parse_prediction_id(f"{text}/17") == (text, 17)


@given(st.text(max_size=40))
def test_no_text_that_is_not_an_id_passes(text: str) -> None:
    with pytest.raises(MalformedRequest):
        ids.parse_call_id("call_" + text + "!")
    with pytest.raises(MalformedRequest):
        ids.parse_prediction_id(text + "/x")


def test_call_ids_of_one_boot_sort_by_sequence_and_time() -> None:
    made = [ids.call_id(1000 + n // 3, 5, n) for n in range(100)]
    assert made == sorted(made)


def test_digests_are_golden() -> None:
    assert ids.digest(b"") == "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert ids.digest_of({"b": 1, "a": [1.5, None, "é"]}) == ids.digest('{"a":[1.5,null,"é"],"b":1}'.encode())


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON"):
        ids.digest_of(float("nan"))
