"""Point-in-time joins never look into the future; serving runs the training function."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.core.errors import MissingColumn, WrongType
from instar.data.features import as_frame, as_of, serving_rows

START = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")

hours = st.one_of(st.none(), st.integers(0, 12).map(lambda hour: START + timedelta(hours=hour)))
keys = st.sampled_from(["a", "b", None])
asks = st.lists(st.tuples(hours, keys), max_size=12)
observations = st.lists(
    st.tuples(hours, keys, st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 99)), max_size=14
)


def expected(ask: tuple[Any, Any], seen: list[dict[str, Any]], tolerance: timedelta | None, strict: bool) -> Any:
    """The plain rule, row by row: the newest observation about the past that was known by then."""
    at, key = ask
    if at is None or key is None:
        return None
    known = [
        row
        for row in seen
        if row["key"] == key and row["at"] is not None and row["created"] is not None
        and (max(row["at"], row["created"]) < at if strict else max(row["at"], row["created"]) <= at)
    ]  # fmt: skip
    if not known:
        return None
    best = max(known, key=lambda row: (row["at"], max(row["at"], row["created"]), row["place"]))
    return None if tolerance is not None and at - best["at"] > tolerance else best["value"]


@settings(max_examples=150, deadline=None)
@given(asks, observations, st.booleans(), st.one_of(st.none(), st.integers(0, 5)))
def test_as_of_is_the_plain_rule(asked: list[Any], seen: list[Any], strict: bool, tolerance_hours: int | None) -> None:
    tolerance = None if tolerance_hours is None else timedelta(hours=tolerance_hours)
    rows = []
    for place, (at, key, late, value) in enumerate(seen):
        created = None if at is None or late is None else at + timedelta(hours=late - 1)
        rows.append({"at": at, "key": key, "created": created, "value": value, "place": place})
    left = pl.DataFrame(asked, schema={"asked": TIME, "key": pl.String}, orient="row")
    right = pl.DataFrame(
        rows, schema={"at": TIME, "key": pl.String, "created": TIME, "value": pl.Int64, "place": pl.Int64}
    )
    joined = as_of(left, right, "asked", "at", by="key", tolerance=tolerance, strict=strict, created="created")
    assert joined.select("asked", "key").equals(left)
    assert joined["value"].to_list() == [expected(ask, rows, tolerance, strict) for ask in asked]
    late = joined.filter((pl.col("at") > pl.col("asked")) | (pl.col("created") > pl.col("asked")))
    assert late.is_empty()


def test_as_of_without_key_and_with_clashing_names() -> None:
    left = pl.DataFrame({"at": [START, START + timedelta(hours=2)], "value": [1, 2]})
    right = pl.DataFrame({"at": [START + timedelta(hours=1)], "value": [9]})
    joined = as_of(left.lazy(), right, "at", "at").collect()
    assert joined.columns == ["at", "value", "at_right", "value_right"]
    assert joined["value_right"].to_list() == [None, 9]


def test_as_of_names_what_is_wrong() -> None:
    left, right = pl.DataFrame({"at": [START]}), pl.DataFrame({"at": [START.replace(tzinfo=None)]})
    with pytest.raises(MissingColumn, match=r"left side[\s\S]*asked for nope"):
        as_of(left, right, "nope", "at")
    with pytest.raises(WrongType, match="one type with one time zone"):
        as_of(left, right, "at", "at")


def gold(flights: pl.LazyFrame, weather: pl.LazyFrame, scale: float = 1.0) -> pl.LazyFrame:
    return flights.join(weather, on="origin", how="left").with_columns(
        late=pl.col("delay") > 15, d=pl.col("distance") * scale
    )


FLIGHTS = pl.DataFrame({"origin": ["JFK"], "distance": [100.0], "delay": [20]})
WEATHER = pl.DataFrame({"origin": ["JFK", "LGA"], "wind": [1.0, 2.0]})


def test_serving_rows_run_the_same_function_and_unknown_columns_are_null() -> None:
    moment = pl.DataFrame({"origin": ["LGA"], "distance": [7]})
    rows = serving_rows(gold, {"flights": FLIGHTS, "weather": WEATHER}, {"flights": moment}, {"scale": 2.0})
    assert rows.to_dicts() == [{"origin": "LGA", "distance": 7.0, "delay": None, "wind": 2.0, "late": None, "d": 14.0}]
    training = serving_rows(gold, {"flights": FLIGHTS, "weather": WEATHER}, {})
    assert training.schema == rows.schema


def test_serving_refuses_a_table_that_the_step_does_not_read() -> None:
    with pytest.raises(MissingColumn, match="asked for flights or weather"):
        serving_rows(gold, {"flights": FLIGHTS, "weather": WEATHER}, {"planes": FLIGHTS})


def test_outputs_of_steps_in_any_form() -> None:
    assert as_frame(FLIGHTS.lazy()).equals(FLIGHTS)
    assert as_frame(FLIGHTS.to_arrow()).equals(FLIGHTS)
    with pytest.raises(WrongType, match="found int"):
        as_frame(3)
