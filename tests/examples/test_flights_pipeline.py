"""The flights project: features know nothing of the future, and training and serving see the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from instar.data.checks import split_quarantine
from instar.data.features import serving_rows
from instar.plan.pipeline import discover
from instar.plan.project import load_project

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
KNOWN_AFTERWARDS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "landed_at"}


@pytest.fixture
def airline(application: ModuleType, airline_folder: Path) -> Any:
    return application.Airline(airline_folder)


def landed(airline: Any, *months: int) -> pl.LazyFrame:
    parts = [
        airline.delivery(month).rows.with_columns(_landed_at=pl.lit(airline.delivery(month).landed_at))
        for month in months
    ]
    return pl.concat(parts).lazy()


def clean_weather(steps: ModuleType, airline: Any, *days: date) -> pl.DataFrame:
    rows = pl.concat([feed.rows for day in days for feed in airline.weather(day)])
    return split_quarantine(steps.clean_weather(rows.lazy()).collect())[0]


def features(steps: ModuleType, airline: Any, weather: pl.DataFrame, flights: pl.DataFrame) -> pl.DataFrame:
    frame: pl.DataFrame = steps.delay_features(flights.lazy(), weather.lazy(), airline.planes().rows.lazy()).collect()
    return frame


def clean_flights(steps: ModuleType, airline: Any, *months: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    frame = steps.clean_flights(landed(airline, *months), airline.airlines().rows.lazy()).collect()
    clean, bad = split_quarantine(frame)
    assert bad is not None
    return clean, bad


def test_the_project_holds_together() -> None:
    project = load_project(FLIGHTS)
    pipeline = discover(project)
    order = pipeline.order()
    assert order.index("clean_flights") < order.index("delay_features") < order.index("delay_trees")
    assert pipeline.steps["delay_trees"].problem == "delay" == pipeline.steps["late_share_by_hour"].problem
    assert set(pipeline.checks) >= {"flights", "weather", "clean_flights", "clean_weather", "delay_features"}


def test_rows_that_teach_nothing_go_aside_with_the_reason(steps: ModuleType, airline: Any) -> None:
    clean, bad = clean_flights(steps, airline, 1)
    assert dict(bad.select("flight", "_reason").iter_rows()) == {791: "cancelled", 792: "diverted"}
    assert sorted(clean["flight"]) == [725, 739, 1545]
    rows = landed(airline, 1)
    twice = steps.clean_flights(pl.concat([rows, rows]), airline.airlines().rows.lazy()).collect()
    assert twice.filter(pl.col("_reason") == "duplicate").height == 3
    strange = rows.with_columns(carrier=pl.lit("ZZ"))
    assert "unknown_carrier" in set(steps.clean_flights(strange, airline.airlines().rows.lazy()).collect()["_reason"])
    near = steps.clean_flights(rows.with_columns(distance=pl.lit(17)), airline.airlines().rows.lazy()).collect()
    assert near.filter(pl.col("_reason") == "impossible_distance").height == 3


def test_a_hurricane_of_a_typing_error_goes_aside(steps: ModuleType, airline: Any) -> None:
    rows = pl.concat([feed.rows for feed in airline.weather(date(2013, 1, 1))])
    rows = rows.with_columns(wind_speed=pl.when(pl.int_range(pl.len()) == 5).then(1048.4).otherwise("wind_speed"))
    _, bad = split_quarantine(steps.clean_weather(rows.lazy()).collect())
    assert bad is not None
    assert bad["_reason"].to_list() == ["impossible_wind"]


def test_weather_is_that_of_the_last_full_hour_before(steps: ModuleType, airline: Any) -> None:
    weather = clean_weather(steps, airline, date(2013, 1, 1))
    flights, _ = clean_flights(steps, airline, 1)
    found = dict(features(steps, airline, weather, flights).select("flight_id", "temp").iter_rows())
    by_hour = dict(weather.filter(pl.col("origin") == "EWR").select("time_hour", "temp").iter_rows())
    ten = datetime(2013, 1, 1, 10, tzinfo=UTC)
    assert found["UA-1545-EWR-20130101T10"] == by_hour[ten]  # departs 10:15
    assert found["B6-725-JFK-20130101T11"] == by_hour[ten]  # departs 11:00 sharp: the strictly earlier hour
    assert found["B6-739-JFK-20130201T04"] is None  # nothing observed within six hours


def test_the_future_changes_nothing(steps: ModuleType, airline: Any) -> None:
    weather = clean_weather(steps, airline, date(2013, 1, 1))
    flights, _ = clean_flights(steps, airline, 1)
    before = features(steps, airline, weather, flights).filter(pl.col("time_hour").dt.hour() == 10)
    later = pl.col("time_hour") >= datetime(2013, 1, 1, 11, tzinfo=UTC)
    numbers = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
    other = weather.with_columns(pl.when(later).then(pl.col(name) + 7).otherwise(pl.col(name)) for name in numbers)
    after = features(steps, airline, other, flights).filter(pl.col("time_hour").dt.hour() == 10)
    assert before.height == 1
    assert before.equals(after, null_equal=True)


def test_nothing_known_afterwards_is_a_feature(steps: ModuleType, airline: Any) -> None:
    flights, _ = clean_flights(steps, airline, 1)
    frame = features(steps, airline, clean_weather(steps, airline, date(2013, 1, 1)), flights)
    assert not KNOWN_AFTERWARDS & set(frame.columns)
    shifted = flights.with_columns(pl.col("arr_delay") + 1000, landed_at=pl.col("landed_at") + timedelta(days=90))
    other = features(steps, airline, clean_weather(steps, airline, date(2013, 1, 1)), shifted)
    assert frame.drop("late").equals(other.drop("late"), null_equal=True)
    assert other["late"].all()


def test_served_rows_are_the_rows_of_training(steps: ModuleType, airline: Any) -> None:
    day = date(2013, 1, 1)
    weather, (flights, _) = clean_weather(steps, airline, day), clean_flights(steps, airline, 1)
    trained = features(steps, airline, weather, flights)
    planes = airline.planes().rows
    served = serving_rows(
        steps.delay_features,
        {"clean_flights": flights, "clean_weather": weather, "planes": planes},
        {"clean_flights": airline.schedule(day)},
    )
    assert served.height == 4
    assert served["late"].null_count() == 4
    common = trained.drop("late").join(served.select("flight_id"), on="flight_id", how="semi")
    assert common.height == 2
    assert common.equals(
        served.drop("late").join(common.select("flight_id"), on="flight_id", how="semi"), null_equal=True
    )


def test_the_rule_is_the_share_of_the_hour(steps: ModuleType) -> None:
    rows = pl.DataFrame({"minute_of_day": [300, 330, 359, 1080, 1081], "late": [True, False, False, True, True]})
    rule = steps.late_share_by_hour(rows)
    asked = pl.DataFrame({"minute_of_day": [301, 1139, 0]})
    np.testing.assert_allclose(rule.predict(asked), [1 / 3, 1.0, 0.6])  # midnight is unknown: the share of all


def test_trees_take_what_is_missing_and_what_is_new(steps: ModuleType, airline: Any) -> None:
    pytest.importorskip("sklearn")
    flights, _ = clean_flights(steps, airline, 1, 3)
    one = features(steps, airline, clean_weather(steps, airline, date(2013, 1, 1)), flights)
    rows = pl.concat([one] * 300).with_columns(late=pl.int_range(pl.len()) % 3 == 0).drop("flight_id", "time_hour")
    trees = steps.delay_trees(rows, iterations=5)
    strange = (
        rows.head(2).drop("late").with_columns(dest=pl.lit("XXX"), carrier=pl.lit(None, dtype=pl.String), temp=None)
    )
    scores = trees.predict_proba(strange)[:, 1]
    assert scores.shape == (2,)
    assert np.all((scores > 0) & (scores < 1))
    again = steps.delay_trees(rows, iterations=5)
    np.testing.assert_array_equal(trees.predict_proba(rows.drop("late")), again.predict_proba(rows.drop("late")))
