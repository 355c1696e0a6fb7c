"""The flights project for tests: its two files as modules, and a small airline of invented flights in the real format."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"

# Two days in winter, the day on which clocks go forward, and the night in which they go back; local times of New York.
# 1:20 at night comes twice on 3 November, and the file says in UTC which one is meant.
FLIGHT_ROWS = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z
2013,1,1,600,600,0,1120,1100,20,B6,725,N804JB,JFK,SJU,200,1598,6,0,2013-01-01T11:00:00Z
2013,1,1,NA,700,NA,NA,1000,NA,AA,791,N3EHAA,LGA,DFW,NA,1389,7,0,2013-01-01T12:00:00Z
2013,1,1,705,700,5,1500,1000,NA,AA,792,N3EHAA,LGA,DFW,NA,1389,7,0,2013-01-01T12:00:00Z
2013,1,31,2350,2359,-9,431,439,-8,B6,739,N804JB,JFK,PSE,190,1617,23,59,2013-02-01T04:00:00Z
2013,3,10,800,800,0,1100,1050,10,UA,1,N14228,EWR,IAH,220,1400,8,0,2013-03-10T12:00:00Z
2013,11,3,120,120,0,400,355,5,UA,2,N14228,EWR,IAH,220,1400,1,20,2013-11-03T06:00:00Z
"""
WEATHER_HEADER = (
    "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
)
PLANE_ROWS = """\
tailnum,year,type,manufacturer,model,engines,seats,speed,engine
N14228,1999,Fixed wing multi engine,BOEING,737-824,2,149,NA,Turbo-fan
N804JB,2012,Fixed wing multi engine,AIRBUS,A320-232,2,200,NA,Turbo-fan
"""
AIRLINE_ROWS = "carrier,name\nUA,United Air Lines Inc.\nB6,JetBlue Airways\nAA,American Airlines Inc.\n"
AIRPORT_ROWS = """\
faa,name,lat,lon,alt,tz,dst,tzone
IAH,George Bush Intercontinental,29.98,-95.34,97,-6,A,America/Chicago
DFW,Dallas Fort Worth Intl,32.89,-97.03,607,-6,A,America/Chicago
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"flights_{name}", FLIGHTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def application() -> Iterator[ModuleType]:
    return load("application")


@pytest.fixture(scope="session")
def steps() -> Iterator[ModuleType]:
    return load("pipeline")


@pytest.fixture(scope="session")
def airline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airline")
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHT_ROWS)
    hours = [*(f"2013-01-01T{hour:02d}" for hour in range(5, 24)), *(f"2013-03-10T{hour:02d}" for hour in range(4, 24))]
    hours += [f"2013-03-11T{hour:02d}" for hour in range(8)]
    rows = [
        f"{origin},2013,1,1,1,{30 + place},26.0,59.4,270,10.4,{20 + place},{place % 3 / 10},1012.{place % 10},10,{hour}:00:00Z"
        for place, hour in enumerate(hours)
        for origin in ("EWR", "JFK", "LGA")
    ]
    (folder / "weather.csv").write_text("\n".join([WEATHER_HEADER, *rows]) + "\n")
    (folder / "planes.csv").write_text(PLANE_ROWS)
    (folder / "airlines.csv").write_text(AIRLINE_ROWS)
    (folder / "airports.csv").write_text(AIRPORT_ROWS)
    return folder
