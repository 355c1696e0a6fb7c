"""The content digest: a golden value for every type, and equal rows have one digest however they lie in memory."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core import ids
from instar.core.errors import WrongType
from instar.data import content

EVERYTHING = pl.DataFrame(
    {
        "integer": [1, None, 3],
        "small": pl.Series([1, 2, None], dtype=pl.Int8),
        "number": [0.0, None, float("nan")],
        "text": ["a", None, "grün"],
        "flag": [True, False, None],
        "day": [date(2026, 1, 1), None, date(1969, 12, 31)],
        "at": [datetime(2026, 1, 1, tzinfo=UTC), None, None],
        "clock": [time(1, 2), None, time(0)],
        "price": [Decimal("1.50"), None, Decimal("2.00")],
        "bytes": [b"\x00", None, b""],
        "kind": pl.Series(["x", "y", None], dtype=pl.Categorical),
        "list": [[1, 2], None, []],
        "nested": [{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None],
        "nothing": [None, None, None],
    }
)
GOLDEN = "b3:d4b07c2fb9e1ae515d0121683beee73cbf22dc311d347d917f7092e46d28b505"


def test_the_layout_by_hand() -> None:
    frame = pl.DataFrame({"n": [1, None], "t": ["ab", "c"]})
    plain = b"rows 2" + b"\x00column n\x00int64\x00" + bytes([0b01000000]) + struct.pack("<qq", 1, 0)
    plain += b"\x00column t\x00text\x00" + struct.pack("<qq", 2, 1) + b"abc"
    assert content.of_rows(frame) == ids.digest(plain)


def test_the_digest_of_every_type_is_what_it_always_was() -> None:
    assert content.of_rows(EVERYTHING) == GOLDEN


maybe_number = st.one_of(st.none(), st.integers(-9, 9))
maybe_text = st.one_of(st.none(), st.text(max_size=3))
maybe_list = st.one_of(st.none(), st.lists(st.integers(0, 3), max_size=2))
rows = st.lists(st.tuples(maybe_number, maybe_text, maybe_list), max_size=12)
SCHEMA = {"a": pl.Int64, "b": pl.String, "c": pl.List(pl.Int64)}


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 12))
def test_layout_in_memory_does_not_matter(data: list[object], cut: int) -> None:
    frame = pl.DataFrame(data, schema=SCHEMA, orient="row")
    chunked = pl.concat([frame[:cut], frame[cut:]], rechunk=False)
    sliced = pl.concat([frame, frame])[len(frame) :] if len(frame) else frame
    through_arrow = pl.DataFrame(frame.to_arrow())
    digests = {content.of_rows(one) for one in (frame, chunked, sliced, through_arrow)}
    assert len(digests) == 1


@settings(max_examples=60, deadline=None)
@given(rows, rows)
def test_other_rows_have_another_digest(one: list[object], other: list[object]) -> None:
    a, b = (pl.DataFrame(data, schema=SCHEMA, orient="row") for data in (one, other))
    assert (content.of_rows(a) == content.of_rows(b)) == a.equals(b)


def test_one_zero_one_nan() -> None:
    nan = np.frombuffer(np.array([0x7FF8000000000123], dtype=np.uint64).tobytes(), dtype=np.float64)
    assert content.of_rows(pl.DataFrame({"a": [-0.0, float("nan")]})) == content.of_rows(
        pl.DataFrame({"a": [0.0, nan[0]]})
    )


@pytest.mark.parametrize(
    "other",
    [
        pl.DataFrame({"b": [1, 2]}),
        pl.DataFrame({"a": [1, 2]}, schema={"a": pl.Int32}),
        pl.DataFrame({"a": [2, 1]}),
        pl.DataFrame({"a": [1, 2], "b": [None, None]}),
    ],
)
def test_names_types_and_order_count(other: pl.DataFrame) -> None:
    assert content.of_rows(pl.DataFrame({"a": [1, 2]})) != content.of_rows(other)


def test_partitions_count_by_name_and_parts_by_order() -> None:
    schema = {"a": "Int64"}
    assert content.of_parts(schema, [("02", "x"), ("01", "y")]) == content.of_parts(schema, [("01", "y"), ("02", "x")])
    assert content.of_parts(schema, [(None, "x"), (None, "y")]) != content.of_parts(schema, [(None, "y"), (None, "x")])


def test_python_objects_are_refused() -> None:
    with pytest.raises(WrongType, match="column a"):
        content.of_rows(pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}))
