"""The journey of a newcomer: make a project, run it, change it, look at it, serve it, ask it, trace it, audit it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.journeys.conftest import ROW
from tests.journeys.driving import contents, edit, inputs, instar, looked_at, looked_up, told, up, wait_for, walk

STEPS = ["bookings", "clean_bookings", "booking_features", "no_show_by_channel", "no_show_trees"]


def ran(folder: Path) -> list[str]:
    """Steps that a run of everything ran."""
    return [step["step"] for step in told(folder, "run")["steps"] if step["state"] == "done"]


def test_only_what_an_edit_reaches_runs_again(cafe: Path) -> None:
    assert ran(cafe) == []
    assert {step["state"] for step in looked_up(cafe, "status")["steps"]} == {"current"}

    # A comment, a docstring and a line break say nothing new.
    edit(
        cafe / "pipeline.py",
        "    return span.dt.total_days()",
        '    """Of a span."""\n    return (\n        span.dt.total_days()  # rounded down\n    )',
    )
    assert looked_up(cafe, "why", "booking_features")["state"] == "current"
    assert ran(cafe) == []

    edit(cafe / "pipeline.py", "span.dt.total_days()", "span.dt.total_hours() // 12")
    why = told(cafe, "why", "booking_features")
    assert why["state"] == "stale"
    assert "code pipeline.whole_days changed" in [reason["text"] for reason in why["reasons"]]
    stale = {step["step"] for step in looked_up(cafe, "status")["steps"] if step["state"] == "stale"}
    assert stale == {"booking_features", "no_show_by_channel", "no_show_trees"}
    before = contents(cafe)
    assert ran(cafe) == ["booking_features", "no_show_by_channel", "no_show_trees"]
    after = contents(cafe)
    assert {table for table in after if after[table] != before[table]} == {"booking_features"}
    # What was there before is still there, under its own name.
    diff = looked_up(cafe, "data", "diff", "booking_features@1", "booking_features@2")
    assert (diff["same_content"], diff["rows"]) == (False, [7192, 7192])


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["status"], STEPS),
        (["why", "no_show_trees"], ["is current"]),
        (["data", "ls"], ["booking_features@1", "clean_bookings__quarantine@1"]),
        (["data", "ls", "bookings"], ["bookings@1"]),
        (["data", "show", "booking_features"], ["days_ahead", "check fewer than half stay away: holds", "B00000"]),
        (["data", "profile", "clean_bookings@1"], ["visits_before"]),
        (["runs", "ls"], ["no_show_trees", "finished"]),
        (["models", "ls"], ["no_show@1", "champion"]),
        (["models", "show", "no_show@1"], ["no_show_by_channel", "passed"]),
        (["models", "show", "no_show@champion"], ["no_show@1"]),
        (["models", "card", "no_show@2"], ["# Model card: no_show@2", "## Evaluation"]),
        (["live"], ["no_show@1", "champion"]),
        (["trace", "no_show@1"], ["bookings@1", "was read by"]),
        (["trace", "bookings@1", "--forward"], ["no_show@3", "booking_features@1"]),
        (["audit", "verify"], ["consistent"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value[0], str) and " " not in value[0] else "",
)
def test_what_there_is_can_be_looked_at(made: Path, words: list[str], texts: list[str]) -> None:
    plain = looked_at(made, *words)
    assert all(text in plain for text in texts), plain
    document = looked_up(made, *words)
    assert document
    flat = json.dumps(document, ensure_ascii=False)
    names = [text for text in texts if "@" in text and " " not in text]
    assert all(name in flat for name in names), flat


def test_a_run_is_shown_by_the_beginning_of_its_id(made: Path) -> None:
    (first, *_) = looked_up(made, "runs", "ls", "--step", "no_show_trees")
    shown = looked_up(made, "runs", "show", first["id"][:-4])
    assert (shown["id"], shown["state"]) == (first["id"], "finished")
    assert shown["inputs"]
    assert shown["environment"].startswith("b3:")
    assert first["id"] in looked_at(made, "runs", "show", first["id"])


def test_a_prediction_from_the_call_to_the_row_that_it_came_from(cafe: Path) -> None:
    before = datetime.now(UTC) - timedelta(days=1)
    with up(cafe, "no_show") as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        # One by the command, one as any client sends it, one by the Python API.
        (asked,) = told(cafe, "predict", "no_show", *(f"{name}={value}" for name, value in ROW.items()))
        assert (asked["status"], asked["version"]) == (200, 1)
        about = client.get("/v2/models/no_show").json()
        datatypes = {column["name"]: column["datatype"] for column in about["inputs"]}
        assert datatypes.keys() == ROW.keys()
        body = {
            "id": "table 7",
            "inputs": inputs(ROW, datatypes),
            "parameters": {"entity": "B00000", "table_version": "booking_features@1"},
        }
        reply = client.post("/v2/models/no_show/infer", json=body)
        assert reply.status_code == 200, reply.text
        assert reply.json()["id"] == "table 7"
        prediction = f"{reply.headers['instar-call']}/0"

        outcomes = [{"prediction": prediction, "value": True}, {"prediction": asked["prediction"], "value": False}]
        posted = client.post("/api/outcomes", json={"outcomes": outcomes})
        assert (posted.status_code, posted.json()["recorded"]) == (200, 2)
        again = client.post("/api/outcomes", json={"outcomes": outcomes})
        assert (again.status_code, again.json()["unchanged"]) == (200, 2)

        (live,) = looked_up(cafe, "live")
        assert [part["version"] for part in live["answering"]] == ["no_show@1", "no_show@3"]
        assert looked_up(cafe, "live", "--at", before.isoformat()) == []
        (then,) = looked_up(cafe, "live", "--at", live["since"])
        assert then["policy"] == live["policy"]

        def shadow_answered() -> dict[str, Any] | None:
            trace: dict[str, Any] = looked_up(cafe, "trace", prediction)
            return trace if len(trace["facts"]["answers"]) == 2 else None

        trace = wait_for(shadow_answered)
        check_trace(trace)
        # The same over HTTP.
        there = client.get("/api/projects/cafe/trace", params={"id": prediction}).json()
        assert [hop["id"] for hop in walk(there)] == [hop["id"] for hop in walk(trace)]

        forward = looked_up(cafe, "trace", "bookings@1", "--forward")
        touched = {hop["name"]: hop for hop in walk(forward)}
        assert {"booking_features@1", "no_show@1", "no_show@3"} <= touched.keys()
        counts = [hop["facts"] for hop in walk(forward) if hop["kind"] == "predictions"]
        assert {"predictions": 2, "shadow_predictions": 0} in [
            {name: one[name] for name in ("predictions", "shadow_predictions")} for one in counts
        ]
        audit = told(cafe, "audit", "verify")
        assert audit["consistent"] is True
        said = server.stop()
    assert server.process.returncode == 0, said
    assert "drained" in said
    assert "Traceback" not in said
    # The record outlives the server.
    check_trace(told(cafe, "trace", prediction))
    assert told(cafe, "audit", "verify")["consistent"] is True
    assert "no server runs" in instar(cafe, "predict", "no_show", "guests=2", status=1).stderr


def check_trace(trace: dict[str, Any]) -> None:
    """Back from the prediction: its outcome, its call, who allowed the version, and the row of bronze."""
    stops = list(walk(trace))
    kinds = {hop["kind"] for hop in stops}
    assert {
        "prediction", "outcome", "call", "policy revision", "rollout", "model version", "approval", "evaluation",
        "bundle", "run", "table version",
    } <= kinds  # fmt: skip
    features = next(hop for hop in trace["hops"] if hop["relation"] == "decided on")
    rows = {hop["name"]: hop for hop in walk(features)}
    assert {name: hop["precision"] for name, hop in rows.items()} == {
        "booking_features@1": "row", "clean_bookings@1": "row", "bookings@1": "row",
    }  # fmt: skip
    landed = rows["bookings@1"]["facts"]
    assert (landed["row"]["booking"], landed["source"], landed["source_row"]) == ("B00000", "bookings.csv", 0)
    # What the model was fitted on is a version with many rows, and the trace does not pretend otherwise.
    fitted = next(hop for hop in stops if hop["relation"] == "was fitted on")
    assert fitted["precision"] == "version only"
