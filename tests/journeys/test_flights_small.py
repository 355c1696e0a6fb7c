"""The commands of the life cycle over the flights project, fed with some weeks of real flights as files."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import httpx2
import polars as pl
import pytest

from instar.app import open_app
from instar.data import tables
from instar.data.kind import rows_to_serve
from tests.journeys.driving import inputs, instar, looked_at, looked_up, told, up, walk

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
LAST_DAY = date(2013, 2, 10)
TODAY = date(2013, 2, 11)  # its schedule is published, its flights have not left
SERVED = "delay_features__served"


@pytest.fixture(scope="module")
def application() -> ModuleType:
    spec = importlib.util.spec_from_file_location("journey_application", FLIGHTS / "application.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def flights(application: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with every third flight of January and of ten days of February, after its first run."""
    try:
        airline = application.Airline()
    except application.NoFlights as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("airline")
    project = folder / "flights"
    shutil.copytree(FLIGHTS, project, ignore=shutil.ignore_patterns(".instar", "__pycache__"))
    days = [date(2013, 1, 1) + timedelta(days=n) for n in range((TODAY - date(2013, 1, 1)).days + 1)]
    third = pl.col("flight") % 3 == 0

    def land(table: str, name: str, rows: pl.DataFrame, landed_at: str, *options: str) -> None:
        file = folder / f"{name}.parquet"
        rows.write_parquet(file)
        landed = told(project, "ingest", table, str(file), "--landed-at", landed_at, *options)
        assert (landed["table"], landed["zone"]) == (table, "bronze")

    for feed in (airline.planes(), airline.airlines()):
        land(feed.name, feed.name, feed.rows, feed.landed_at.isoformat())
    weather = pl.concat([feed.rows for day in days for feed in airline.weather(day)])
    land("weather", "weather", weather, "2013-02-11T12:00:00Z")
    for month in (1, 2):
        feed = airline.delivery(month)
        rows = feed.rows.filter(third, pl.date("year", "month", "day") <= LAST_DAY)
        land("flights", feed.name, rows, "2013-02-11T09:00:00Z", "--partition", f"2013-{month:02d}")
    schedule = airline.schedule(TODAY).filter(third).drop("asked_at")
    land("schedule", "schedule-2013-02-11", schedule, "2013-02-11T05:00:00Z")
    first = instar(project, "run")
    assert "delay@1 promoted" in first.stdout, first.stdout
    return project


def test_everything_is_on_the_record_and_listed(flights: Path) -> None:
    assert [step["step"] for step in told(flights, "run")["steps"] if step["state"] == "done"] == []
    states = {step["step"]: step["state"] for step in looked_up(flights, "status")["steps"]}
    assert states.pop("flights") == states.pop("weather") == "landed"
    assert {states[step] for step in ("clean_flights", "clean_weather", "delay_features", "delay_trees")} == {"current"}
    rows = {table["table"]: table["rows"] for table in looked_up(flights, "data", "ls")}
    assert rows["clean_flights"] + rows["clean_flights__quarantine"] == rows["flights"]
    assert rows["delay_features"] == rows["clean_flights"] > 8_000
    shown = looked_up(flights, "data", "show", "delay_features")
    assert {"flight_id", "temp", "late"} <= {column["name"] for column in shown["columns"]}
    assert not {"dep_time", "dep_delay", "arr_delay", "air_time"} & {column["name"] for column in shown["columns"]}
    reasons = looked_up(flights, "data", "profile", "clean_flights__quarantine")["columns"]["_reason"]["top"]
    assert {"cancelled", "diverted"} <= {reason for reason, _ in reasons}
    assert {run["step"] for run in looked_up(flights, "runs", "ls")} == {"late_share_by_hour", "delay_trees"}
    first, *_ = looked_up(flights, "models", "ls")
    assert (first["version"], first["origin"]) == ("delay@1", "baseline")
    for words in (
        ["status"], ["why", "delay_trees"], ["data", "ls"], ["data", "show", "flights"], ["runs", "ls"],
        ["models", "ls"], ["models", "show", "delay@1"], ["models", "card", "delay@champion"], ["live"],
    ):  # fmt: skip
        assert looked_at(flights, *words)
    assert "a miss 3, a false alarm 1 EUR" in looked_at(flights, "models", "card", "delay@1")


def test_a_flight_is_asked_about_lands_and_is_traced(flights: Path) -> None:
    with open_app(flights) as app:
        schedule = tables.latest(app.store, "flights", "schedule")
        assert schedule is not None
        rows = rows_to_serve(
            app.store, "flights", app.pipeline, "delay_features", {"clean_flights": tables.scan(app.store, schedule)}
        )
        read = [tables.latest(app.store, "flights", name) for name in ("clean_weather", "planes")]
        made_from = [schedule.id, *(version.id for version in read if version is not None)]
        key = app.pipeline.step("delay_features").options["key"]
        served = tables.write_version(app.store, "flights", SERVED, "gold", rows, key=key, order=(), inputs=made_from)
    assert rows.height == schedule.rows
    assert rows["late"].null_count() == rows.height
    assert rows["temp"].null_count() < rows.height
    row = rows.row(rows.height // 2, named=True)

    with up(flights, "delay") as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        datatypes = {column["name"]: column["datatype"] for column in client.get("/v2/models/delay").json()["inputs"]}
        body = {
            "inputs": inputs({name: row[name] for name in datatypes}, datatypes),
            "parameters": {"entity": row["flight_id"], "table_version": served.id},
        }
        headers = {"Instar-Event-Time": "2013-02-11T12:00:00Z", "Instar-Key": row["flight_id"]}
        reply = client.post("/v2/models/delay/infer", json=body, headers=headers)
        assert reply.status_code == 200, reply.text
        prediction = f"{reply.headers['instar-call']}/0"
        words = [f"{name}={'' if row[name] is None else row[name]}" for name in datatypes]
        (again,) = told(
            flights, "predict", "delay", *words, "--at", "2013-02-11T12:00:00Z", "--entity", row["flight_id"]
        )
        assert again["score"] == reply.json()["outputs"][0]["data"][0]
        outcome = {"prediction": prediction, "value": False, "observed_at": "2013-02-11T18:00:00Z"}
        assert client.post("/api/outcomes", json={"outcomes": [outcome]}).json()["recorded"] == 1
        # The same from a row of the training table, which the flights' own file brought.
        past = looked_up(flights, "data", "show", "delay_features", "--rows", "1")["sample"][0]
        (asked,) = told(
            flights, "predict", "delay", *(f"{name}={'' if past[name] is None else past[name]}" for name in datatypes),
            "--entity", past["flight_id"], "--table-version", "delay_features@1",
        )  # fmt: skip
    assert "drained" in server.said
    assert server.process.returncode == 0

    trace = told(flights, "trace", prediction)
    stops = {hop["name"]: hop for hop in walk(next(hop for hop in trace["hops"] if hop["relation"] == "decided on"))}
    assert stops[f"{SERVED}@1"]["precision"] == "row"
    landed = stops["schedule@1"]
    assert landed["precision"] == "row"
    assert landed["facts"]["row"]["flight"] == row["flight"]
    assert landed["facts"]["source"] == "schedule-2013-02-11.parquet"
    assert any(hop["kind"] == "outcome" for hop in trace["hops"])
    assert trace["facts"]["entity"] == row["flight_id"]
    (call,) = [hop for hop in trace["hops"] if hop["kind"] == "call"]
    assert call["facts"]["at"] == "2013-02-11T12:00:00+00:00"

    decided = next(
        hop for hop in looked_up(flights, "trace", asked["prediction"])["hops"] if hop["relation"] == "decided on"
    )
    bronze = [hop for hop in walk(decided) if hop["name"].startswith("flights@") and hop["precision"] == "row"]
    assert {hop["facts"]["row"]["flight"] for hop in bronze} == {past["flight"]}
    assert {hop["facts"]["source"] for hop in bronze} == {"flights-2013-01.parquet"}

    forward = json.dumps(looked_up(flights, "trace", "weather@1", "--forward"))
    assert f"{SERVED}@1" in forward
    assert "delay@1" in forward
    (live,) = looked_up(flights, "live")
    assert live["endpoint"] == "delay"
    assert looked_up(flights, "live", "--at", "2013-01-01") == []
    assert told(flights, "audit", "verify")["consistent"] is True
