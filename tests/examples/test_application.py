"""The airline hands over nothing before its time, and keeps local clocks and UTC apart."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

KNOWN_AFTERWARDS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "landed_at"}


@pytest.fixture(scope="session")
def airline(application: ModuleType, airline_folder: Path) -> Any:
    return application.Airline(airline_folder)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def one(frame: pl.DataFrame, flight: int) -> dict[str, Any]:
    return frame.row(by_predicate=pl.col("flight") == flight, named=True)


def test_the_schedule_tells_nothing_that_is_known_afterwards(airline: Any) -> None:
    schedule = airline.schedule(date(2013, 1, 1))
    assert schedule.height == 4  # the cancelled and the diverted one are on it as well
    assert not KNOWN_AFTERWARDS & set(schedule.columns)


def test_passengers_ask_at_the_last_full_hour_before_departure(airline: Any) -> None:
    schedule = airline.schedule(date(2013, 1, 1))
    assert one(schedule, 1545)["asked_at"] == at("2013-01-01T10:00")  # departs 5:15 in New York
    assert one(schedule, 725)["asked_at"] == at("2013-01-01T10:00")  # departs 6:00 sharp: an hour before, not at 11:00


def test_an_outcome_is_known_when_the_flight_is_down(airline: Any) -> None:
    landings = airline.landings(date(2013, 1, 1))
    assert sorted(landings["flight"]) == [725, 1545]  # neither the cancelled nor the diverted one
    down = one(landings, 1545)
    assert down["landed_at"] == at("2013-01-01T14:30")
    assert down["late"] is False
    down = one(landings, 725)  # San Juan is in no list: 11:00 there is 15:00 UTC
    assert down["landed_at"] == at("2013-01-01T15:20")
    assert down["late"] is True


def test_a_flight_over_midnight_lands_on_the_next_day(airline: Any) -> None:
    assert one(airline.landings(date(2013, 1, 31)), 739)["landed_at"] == at("2013-02-01T08:31")


def test_the_hour_that_comes_twice_is_the_one_in_the_file(airline: Any) -> None:
    assert one(airline.schedule(date(2013, 11, 3)), 2)["asked_at"] == at("2013-11-03T06:00")
    assert one(airline.landings(date(2013, 11, 3)), 2)["landed_at"] == at("2013-11-03T10:00")  # 3:55 Central standard


def test_a_month_is_delivered_after_its_last_landing(airline: Any) -> None:
    delivery = airline.delivery(1)
    assert delivery.rows.height == 5
    assert delivery.landed_at == at("2013-02-01T09:00")
    assert "asked_at" not in delivery.rows.columns
    assert "landed_at" not in delivery.rows.columns


def test_weather_comes_by_the_hour_and_a_day_may_have_23(airline: Any) -> None:
    feeds = airline.weather(date(2013, 3, 10))
    assert len(feeds) == 23
    assert feeds[0].landed_at == at("2013-03-10T05:00")
    for feed in feeds:
        assert feed.rows.height == 3
        assert set(feed.rows["time_hour"]) == {feed.landed_at}


def test_days_begin_at_midnight_in_new_york(application: ModuleType) -> None:
    assert application.midnight(date(2013, 3, 10)) == at("2013-03-10T05:00")
    assert application.midnight(date(2013, 3, 11)) == at("2013-03-11T04:00")


def test_the_real_year(application: ModuleType) -> None:
    try:
        airline = application.Airline()
    except application.NoFlights as error:
        pytest.skip(str(error))
    day = date(2013, 7, 1)
    schedule, landings = airline.schedule(day), airline.landings(day)
    assert (schedule.height, landings.height) == (966, 877)
    key = ["carrier", "flight", "origin", "time_hour"]
    both = schedule.join(landings, on=key, how="inner")
    assert both.height == landings.height
    assert both.filter(pl.col("landed_at") <= pl.col("asked_at")).is_empty()
    early = schedule.select((pl.col("time_hour") + pl.duration(minutes="minute") - pl.col("asked_at")).alias("early"))
    assert early.filter(~pl.col("early").is_between(timedelta(minutes=1), timedelta(hours=1))).is_empty()
    rows = [airline.delivery(month).rows.height for month in range(1, 13)]
    assert sum(rows) == 336_776
