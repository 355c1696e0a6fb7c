"""A small airline for journeys: invented flights and weather in the files' real format, with something to learn in them."""

from __future__ import annotations

import csv
import io
import random
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

EASTERN = ZoneInfo("America/New_York")
CARRIERS = {"UA": "United Air Lines Inc.", "B6": "JetBlue Airways", "AA": "American Airlines Inc."}
ORIGINS = ("EWR", "JFK", "LGA")
DESTINATIONS = {"IAH": 1400, "ORD": 719, "BOS": 187, "SJU": 1598}
HOURS = (6, 8, 9, 11, 13, 15, 17, 18, 20, 21)
FLIGHT_COLUMNS = """\
year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight tailnum origin dest
air_time distance hour minute time_hour"""
WEATHER_COLUMNS = """\
origin year month day hour temp dewp humid wind_dir wind_speed wind_gust precip pressure visib time_hour"""
AIRPORTS = """\
faa,name,lat,lon,alt,tz,dst,tzone
IAH,George Bush Intercontinental,29.98,-95.34,97,-6,A,America/Chicago
ORD,Chicago Ohare Intl,41.98,-87.90,668,-6,A,America/Chicago
BOS,General Edward Lawrence Logan Intl,42.36,-71.01,19,-5,A,America/New_York
"""


def write_files(folder: Path, last: datetime, flights_a_day: int = 40, seed: int = 3) -> None:
    """Write the files that `application.Airline` reads, from 1 January to before `last` (a date in New York).

    Evening flights and flights after rain tend to be late; one flight in thirty is cancelled.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rain = _weather(folder / "weather.csv", last, rng)
    rows: list[list[object]] = []
    day = datetime(2013, 1, 1)
    while day < last:
        for number in range(flights_a_day):
            rows.append(_flight(day, number, rain, rng))
        day += timedelta(days=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FLIGHT_COLUMNS.split())
    writer.writerows(rows)
    with zipfile.ZipFile(folder / "flights.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flights.csv", text.getvalue())
    planes = "\n".join(f"N{number},2004,Fixed wing,BOEING,737,2,{100 + number},NA,Turbo-fan" for number in range(20))
    head = "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\n"
    (folder / "planes.csv").write_text(head + planes + "\n")
    airlines = "\n".join(f"{code},{name}" for code, name in CARRIERS.items())
    (folder / "airlines.csv").write_text(f"carrier,name\n{airlines}\n")
    (folder / "airports.csv").write_text(AIRPORTS)


def _weather(file: Path, last: datetime, rng: random.Random) -> dict[tuple[str, datetime], float]:
    rain: dict[tuple[str, datetime], float] = {}
    with file.open("w", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(WEATHER_COLUMNS.split())
        hour, end = datetime(2013, 1, 1, 6, tzinfo=UTC), last.replace(tzinfo=EASTERN).astimezone(UTC)
        wet = False
        while hour < end:
            if rng.random() < 0.1:
                wet = not wet
            local = hour.astimezone(EASTERN)
            for origin in ORIGINS:
                fell = round(rng.random() * 0.3, 2) if wet else 0.0
                rain[origin, hour] = fell
                writer.writerow(
                    [origin, local.year, local.month, local.day, local.hour, round(30 + 20 * rng.random(), 2),
                     round(20 + 10 * rng.random(), 2), round(50 + 30 * rng.random(), 2), rng.randrange(0, 360, 10),
                     round(15 * rng.random(), 2), round(20 + 10 * rng.random(), 2), fell,
                     round(1000 + 20 * rng.random(), 1), 3 if wet else 10, f"{hour:%Y-%m-%dT%H}:00:00Z"]
                )  # fmt: skip
            hour += timedelta(hours=1)
    return rain


def _flight(day: datetime, number: int, rain: dict[tuple[str, datetime], float], rng: random.Random) -> list[object]:
    hour, minute = HOURS[number % len(HOURS)], 5 * rng.randrange(12)
    origin, carrier = rng.choice(ORIGINS), rng.choice(list(CARRIERS))
    dest = rng.choice(list(DESTINATIONS))
    there = day.replace(hour=hour, tzinfo=EASTERN)
    moment = there.astimezone(UTC)
    wet = rain.get((origin, moment - timedelta(hours=1)), 0.0) > 0
    risk = 0.08 + 0.2 * (hour >= 17) + 0.4 * wet
    delay: object = rng.randrange(16, 120) if rng.random() < risk else rng.randrange(-30, 15)
    departure, arrival = hour * 100 + minute, ((hour + 2) % 24) * 100 + minute
    gone: list[object] = [departure, departure, 0]
    if rng.random() < 1 / 30:
        gone, delay = ["NA", departure, "NA"], "NA"
    down = "NA" if delay == "NA" else arrival
    return [
        day.year, day.month, day.day, *gone, down, arrival, delay, carrier, 100 + number, f"N{rng.randrange(25)}", origin,
        dest, "NA" if delay == "NA" else 100, DESTINATIONS[dest], hour, minute, f"{moment:%Y-%m-%dT%H}:00:00Z",
    ]  # fmt: skip
