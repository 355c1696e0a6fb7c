"""Will this flight arrive late? The steps from what the airline hands over to a model that can be asked before departure.

    flights, airlines ──▶ clean_flights ─┐
                                         ├──▶ delay_features ──▶ late_share_by_hour (rule), delay_trees (model)
    weather ──▶ clean_weather ───────────┤
    planes ──────────────────────────────┘

The published schedule of a day takes the place of `clean_flights` when its rows are made for serving.

Nothing known only after departure may enter `delay_features`: no departure time or delay, no time in the air. Weather is
what was observed at the last full hour before scheduled departure. The same function makes the rows of training and,
from the published schedule, the rows that are served.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from instar import as_of, baseline, check, gold, model, quarantine, silver, source

if TYPE_CHECKING:
    import numpy.typing as npt
    from sklearn.pipeline import Pipeline

LATE_MINUTES = 15  # arrival delay above which a passenger was not warned in vain
YEAR = 2013

# Limits of the possible. A gust of 200 mph would be a record at sea level; the shortest scheduled flight is 80 miles.
HIGHEST_WIND_MPH = 200
SHORTEST_MILES = 50
EARLIEST_MINUTES = -180

CATEGORIES = ["carrier", "origin", "dest"]

flights = source(
    "flights",
    by="month",
    key=["carrier", "flight", "origin", "time_hour"],
    columns={
        "carrier": pl.String, "flight": pl.Int64, "tailnum": pl.String, "origin": pl.String, "dest": pl.String,
        "distance": pl.Int64, "hour": pl.Int64, "minute": pl.Int64, "time_hour": pl.Datetime("us", "UTC"),
        "sched_dep_time": pl.Int64, "sched_arr_time": pl.Int64, "dep_time": pl.Int64, "arr_delay": pl.Int64,
    },
)  # fmt: skip
weather = source(
    "weather",
    key=["origin", "time_hour"],
    columns={"origin": pl.String, "time_hour": pl.Datetime("us", "UTC"), "temp": pl.Float64, "wind_speed": pl.Float64},
)
schedule = source(
    "schedule",
    key=["carrier", "flight", "origin", "time_hour"],
    columns={"carrier": pl.String, "flight": pl.Int64, "origin": pl.String, "time_hour": pl.Datetime("us", "UTC")},
)
planes = source("planes", key=["tailnum"], columns={"tailnum": pl.String, "seats": pl.Int64})
airlines = source("airlines", key=["carrier"], columns={"carrier": pl.String, "name": pl.String})


@silver(key=["carrier", "flight", "origin", "time_hour"])
def clean_flights(flights: pl.LazyFrame, airlines: pl.LazyFrame) -> pl.LazyFrame:
    """Flights that were flown and arrived where they should, one row each."""
    known = airlines.select("carrier", "name")
    rows = flights.join(known, on="carrier", how="left", maintain_order="left")
    rows = rows.select(
        "carrier", "flight", "tailnum", "origin", "dest", "distance", "time_hour", "hour", "minute", "arr_delay",
        pl.col("dep_time").is_not_null().alias("departed"),
        pl.col("name").is_not_null().alias("known_carrier"),
        pl.col("_landed_at").alias("landed_at"),
    )  # fmt: skip
    key = ["carrier", "flight", "origin", "time_hour"]
    checked = quarantine(
        rows,
        cancelled=~pl.col("departed"),
        diverted=pl.col("arr_delay").is_null(),
        duplicate=~pl.struct(key).is_first_distinct(),
        unknown_carrier=~pl.col("known_carrier"),
        impossible_distance=pl.col("distance") < SHORTEST_MILES,
        impossible_hour=~pl.col("hour").is_between(0, 23) | ~pl.col("minute").is_between(0, 59),
        impossible_delay=pl.col("arr_delay") < EARLIEST_MINUTES,
    )
    return checked.drop("departed", "known_carrier")


@silver(key=["origin", "time_hour"])
def clean_weather(weather: pl.LazyFrame) -> pl.LazyFrame:
    """Hourly observations at the three airports, with how they changed over the hours before."""
    rows = weather.select(
        "origin",
        "time_hour",
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "wind_gust",
        "precip",
        "pressure",
        "visib",
    )
    return quarantine(
        rows.sort("origin", "time_hour", maintain_order=True),
        duplicate=~pl.struct("origin", "time_hour").is_first_distinct(),
        impossible_wind=~pl.col("wind_speed").is_between(0, HIGHEST_WIND_MPH),
        impossible_rain=pl.col("precip") < 0,
    )


@gold(entity=["flight_id", "flight"], event_time="time_hour")
def delay_features(clean_flights: pl.LazyFrame, clean_weather: pl.LazyFrame, planes: pl.LazyFrame) -> pl.LazyFrame:
    """What is known of a flight at the last full hour before its scheduled departure, and whether it came late."""
    rows = clean_flights.with_columns(scheduled=pl.col("time_hour") + pl.duration(minutes="minute"))
    rows = as_of(
        rows,
        with_recent_hours(clean_weather).rename({"time_hour": "observed_at"}),
        left_on="scheduled",
        right_on="observed_at",
        by="origin",
        tolerance=timedelta(hours=6),
        strict=True,
    )
    rows = rows.join(planes.select("tailnum", "seats"), on="tailnum", how="left", maintain_order="left")
    local = pl.col("time_hour").dt.convert_time_zone("America/New_York")
    return rows.select(
        flight_id=pl.format(
            "{}-{}-{}-{}", "carrier", "flight", "origin", pl.col("time_hour").dt.strftime("%Y%m%dT%H"),
        ),
        flight="flight",
        time_hour="time_hour",
        carrier="carrier",
        origin="origin",
        dest="dest",
        minute_of_day=pl.col("hour") * 60 + pl.col("minute"),
        weekday=local.dt.weekday().cast(pl.Int64),
        distance="distance",
        seats="seats",
        temp="temp",
        dewp="dewp",
        humid="humid",
        wind_dir="wind_dir",
        wind_speed="wind_speed",
        wind_gust="wind_gust",
        precip="precip",
        pressure="pressure",
        visib="visib",
        precip_3h="precip_3h",
        precip_6h="precip_6h",
        visib_low_3h="visib_low_3h",
        pressure_rise_3h="pressure_rise_3h",
        late=pl.col("arr_delay") > LATE_MINUTES,
    )  # fmt: skip


def with_recent_hours(weather: pl.LazyFrame) -> pl.LazyFrame:
    """Observations with sums and extremes of the hours up to and including each; never of a later one."""
    rows = weather.sort("origin", "time_hour")
    before = rows.select("origin", pl.col("time_hour").dt.offset_by("3h"), pressure_3h_ago="pressure")
    return (
        rows.with_columns(
            # Rounded to what the gauge can read: a running sum in floating point depends on where it began.
            precip_3h=pl.col("precip").rolling_sum_by("time_hour", "3h").over("origin").round(2),
            precip_6h=pl.col("precip").rolling_sum_by("time_hour", "6h").over("origin").round(2),
            visib_low_3h=pl.col("visib").rolling_min_by("time_hour", "3h").over("origin"),
        )
        .join(before, on=["origin", "time_hour"], how="left", maintain_order="left")
        .with_columns(pressure_rise_3h=pl.col("pressure") - pl.col("pressure_3h_ago"))
    )


class LateShareByHour:
    """A rule anybody can check by hand: a flight is as likely late as the flights of its hour were.

    Args:
        shares: Share of late flights for each hour of the day in New York, 24 numbers.
    """

    def __init__(self, shares: npt.ArrayLike) -> None:
        self.shares = np.asarray(shares, dtype=np.float64)

    def predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """The share of each row's hour, shape (n,)."""
        hours = frame["minute_of_day"].to_numpy() // 60
        return self.shares[hours.astype(np.int64)]


@baseline("delay")
def late_share_by_hour(delay_features: pl.DataFrame) -> LateShareByHour:
    """The product before there is any machine learning in it."""
    late = delay_features["late"].to_numpy().astype(np.float64)
    hours = (delay_features["minute_of_day"] // 60).to_numpy()
    flights, late_ones = np.bincount(hours, minlength=24), np.bincount(hours, weights=late, minlength=24)
    overall = late.mean()  # for hours at which nothing has flown yet
    return LateShareByHour(np.where(flights > 0, late_ones / np.maximum(flights, 1), overall))


@model("delay", search={"learning_rate": [0.06, 0.1], "leaves": [10, 15]})
def delay_trees(
    delay_features: pl.DataFrame, learning_rate: float = 0.06, leaves: int = 15, iterations: int = 100
) -> Pipeline:
    """Boosted trees: they take missing observations as they come, and a carrier as a carrier."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    # A destination that is new this month counts as unknown, as does a missing one.
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    trees = HistGradientBoostingClassifier(
        learning_rate=learning_rate,
        max_iter=iterations,
        max_leaf_nodes=leaves,
        min_samples_leaf=200,
        l2_regularization=5.0,
        early_stopping=False,
        categorical_features=list(range(len(CATEGORIES))),
        random_state=0,
    )
    columns = ColumnTransformer([("codes", codes, CATEGORIES)], remainder="passthrough")
    features = delay_features.drop("late")
    return Pipeline([("columns", columns), ("trees", trees)]).fit(features, delay_features["late"].to_numpy())


@check("flights")
def flights_as_promised() -> dict[str, pl.Expr]:
    return {
        "every flight has a carrier": pl.col("carrier").is_not_null(),
        "all of one year": pl.col("time_hour").dt.convert_time_zone("America/New_York").dt.year() == YEAR,
        "out of New York": pl.col("origin").is_in(["EWR", "JFK", "LGA"]),
    }


@check("weather", severity="warn")
def weather_is_plausible() -> dict[str, pl.Expr]:
    return {
        "wind below a record": pl.col("wind_speed") < HIGHEST_WIND_MPH,
        "temperature in range": pl.col("temp").is_between(-30, 120),
    }


@check("clean_flights")
def only_flights_that_arrived() -> dict[str, pl.Expr]:
    return {
        "arrival delay is known": pl.col("arr_delay").is_not_null(),
        "distance is possible": pl.col("distance") >= SHORTEST_MILES,
    }


@check("clean_weather")
def weather_is_possible() -> dict[str, pl.Expr]:
    return {
        "humidity is a percentage": pl.col("humid").is_between(0, 100),
        "visibility is not negative": pl.col("visib") >= 0,
    }


@check("delay_features")
def features_are_complete() -> dict[str, pl.Expr]:
    return {
        "the truth is known": pl.col("late").is_not_null(),
        "some flights are late, most are not": pl.col("late").mean().is_between(0.02, 0.8),
        "minute of the day": pl.col("minute_of_day").is_between(0, 24 * 60 - 1),
    }


@check("delay_features", severity="warn")
def weather_is_there() -> dict[str, pl.Expr]:
    return {"nearly all flights have weather": pl.col("temp").is_null().mean() < 0.05}
