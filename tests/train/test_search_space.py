"""Which values of which parameters are tried: said, declared, annotated, or round the default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.plan.ranges import Range, between
from instar.plan.steps import Step, model, note_of
from instar.train import search_space


def step_of(function: Any) -> Step:
    note = note_of(function)
    assert isinstance(note, Step)
    return note


@model("delay", search={"leaf": [5, 10], "rate": between(0.01, 0.3, log=True)})
def trees(
    features: pl.DataFrame, rate: float = 0.1, leaf: int = 5, depth: Annotated[int, between(2, 12)] = 4,
    loss: Literal["log", "exp"] = "log", warm: bool = False, share: float = 0.5, rounds: int = 40, name: str = "x",
    off: float = 0.0, seed: int = 1,
) -> None: ...  # fmt: skip


@model("delay")
def nothing(features: pl.DataFrame, name: str = "x") -> None: ...


def test_what_is_declared_comes_before_what_is_annotated_and_that_before_the_default() -> None:
    assert search_space.space_of(step_of(trees)) == {
        "rate": Range(0.01, 0.3, log=True),
        "leaf": (5, 10),
        "depth": Range(2, 12),
        "loss": ("log", "exp"),
        "warm": (False, True),
        "share": Range(0.05, 1.0, log=True),
        "rounds": Range(10, 160, log=True),
    }


def test_what_is_said_is_all_that_is_searched() -> None:
    said = search_space.space_of(
        step_of(trees), ["rate=0.02..0.5:log", "leaf=5..100:5", "loss=log,exp", "depth=3..3e1"]
    )
    assert said == {
        "rate": Range(0.02, 0.5, log=True),
        "leaf": Range(5, 100, step=5),
        "loss": ("log", "exp"),
        "depth": Range(3, 30),
    }
    assert search_space.from_document(search_space.document(said)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rat=0..1", "Did you mean 'rate'"),
        ("rate", "nothing to try"),
        ("rate=", "nothing to try"),
        ("rate=a..b", "could not convert"),
        ("rate=0.1..0.3:fast", "could not convert"),
        ("rate=0.3..0.1", "from a lower to a higher number; found rate=0.3..0.1"),
        ("rate=0..1:log", "a logarithmic range lies above zero"),
        ("rate=0..1:-1", "the step of a range is above zero"),
        ("rate=0.1,fast", "fast is no such value"),
        ("depth=1..2.5", "a whole number"),
        ("depth=3,4.5", "4.5 is no such value"),
        ("loss=1..3", "is no number"),
    ],
)
def test_a_space_that_cannot_be_read_says_why(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        search_space.space_of(step_of(trees), [text])


def test_each_value_is_chosen_from_once() -> None:
    assert search_space.space_of(step_of(trees), ["depth=4,4,5"]) == {"depth": (4, 5)}


def test_a_step_without_anything_to_search_says_how_to_declare_it() -> None:
    with pytest.raises(BadInput, match="--space NAME=LOW"):
        search_space.space_of(step_of(nothing))


@given(st.floats(0.001, 1e6), st.floats(1.001, 100))
def test_a_range_holds_its_ends_and_nothing_beyond(low: float, factor: float) -> None:
    where = between(low, low * factor)
    assert where.holds(low)
    assert where.holds(low * factor)
    assert not where.holds(low * factor * 1.01)
    assert not where.holds(True)


def test_a_point_is_in_the_space_when_each_parameter_is() -> None:
    space: search_space.Space = {"depth": Range(2, 12), "loss": ("log", "exp")}
    assert search_space.holds(space, {"depth": 3, "loss": "exp", "other": 1})
    assert not search_space.holds(space, {"depth": 3})
    assert not search_space.holds(space, {"depth": 3.5, "loss": "exp"})
    assert not search_space.holds(space, {"depth": 3, "loss": "hinge"})
