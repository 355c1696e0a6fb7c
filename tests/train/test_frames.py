"""Frames are the same whichever way they are made."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import MissingInput
from instar.train.bundle import Column
from instar.train.frames import Frames, as_form, frame_of

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "FP64": st.floats(), "FP32": st.floats(width=64), "INT64": st.integers(-(2**63), 2**63 - 1),
    "INT32": st.integers(-(2**31), 2**31 - 1), "BOOL": st.booleans(), "BYTES": st.text(max_size=3),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[Column, ...], dict[str, list[Any]]]:
    """A signature and rows of it, with gaps or without."""
    kinds = draw(st.lists(st.sampled_from([*VALUES]), min_size=1, max_size=2, unique=True))
    wanted = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5))
    rows = draw(st.sampled_from([1, 2, 7, 70]))
    inputs, columns = [], {}
    for at, kind in enumerate(wanted):
        some = st.none() | VALUES[kind] if draw(st.booleans()) else VALUES[kind]
        few = draw(st.lists(some, min_size=min(rows, 7), max_size=min(rows, 7)))
        inputs.append(Column(f"{kind}_{at}", kind, nullable=True))
        columns[f"{kind}_{at}"] = (few * rows)[:rows]
    return tuple(inputs), columns


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(["pandas", "columns", "polars", "pyarrow"]))
def test_a_frame_is_what_polars_would_make_of_it(
    table: tuple[tuple[Column, ...], dict[str, list[Any]]], form: str
) -> None:
    inputs, columns = table
    made, wanted = Frames(inputs, form).make(columns), as_form(frame_of(columns, inputs), form)
    if form == "pandas":
        import pandas

        pandas.testing.assert_frame_equal(made, wanted, check_exact=True)
        values, same = made.to_numpy(), wanted.to_numpy()
        # How an array lies decides in which order BLAS adds, and so its last digits.
        assert (values.dtype, values.flags.c_contiguous, values.flags.f_contiguous) == (
            same.dtype, same.flags.c_contiguous, same.flags.f_contiguous,
        )  # fmt: skip
    elif form == "columns":
        assert repr(made) == repr(wanted)
        assert all(made[name] is not columns[name] for name in made)
    else:
        assert repr(made) == repr(wanted)
        assert made.schema == wanted.schema


@settings(max_examples=60, deadline=None)
@given(tables())
def test_a_matrix_is_what_numpy_makes_of_the_data_frame(
    table: tuple[tuple[Column, ...], dict[str, list[Any]]],
) -> None:
    inputs, columns = table
    matrix = Frames(inputs, "pandas").matrix(columns)
    if matrix is not None:
        wanted = as_form(frame_of(columns, inputs), "pandas").to_numpy()
        assert matrix.dtype == wanted.dtype
        np.testing.assert_array_equal(matrix, wanted)


@pytest.mark.parametrize("form", ["pandas", "polars", "pyarrow", "columns"])
def test_what_is_not_there_is_named_and_what_does_not_fit_is_for_polars_to_tell(form: str) -> None:
    inputs = (Column("x", "FP64"), Column("y", "FP64"))
    frames = Frames(inputs, form)
    with pytest.raises(MissingInput, match="y"):
        frames.make({"x": [1.0]})
    for bad in ([1.0, 2.0], ["1.5"], [b"1"], [[1.0]], []):
        columns: dict[str, Any] = {"x": [1.0], "y": bad}
        assert said(lambda given: frames.make(given), columns) == said(
            lambda given: as_form(frame_of(given, inputs), form), columns
        )
        assert frames.matrix(columns) is None


def said(make: Callable[[dict[str, Any]], Any], columns: dict[str, Any]) -> str:
    """What a frame is, or the kind of error that says why it is none."""
    try:
        return repr(make(columns))
    except Exception as problem:
        return type(problem).__name__


def test_numbers_between_two_of_a_short_float_go_the_same_way() -> None:
    values = [0.1, 1e300, -1e-300, 16777217.0, struct.unpack("f", b"\x01\x00\x00\x00")[0]]
    inputs = (Column("x", "FP32"),)
    matrix = Frames(inputs, "pandas").matrix({"x": values})
    assert matrix is not None
    np.testing.assert_array_equal(matrix[:, 0], frame_of({"x": values}, inputs)["x"].to_numpy())


def test_arrays_are_taken_as_lists_are() -> None:
    inputs = (Column("x", "FP64"), Column("y", "FP64"))
    columns = {"x": np.array([1.0, 2.0]), "y": np.array([3.0, None], dtype=object)}
    found = Frames(inputs, "pandas").make(columns)
    np.testing.assert_array_equal(found.to_numpy(), [[1.0, 3.0], [2.0, np.nan]])
