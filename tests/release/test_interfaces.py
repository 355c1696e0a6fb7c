"""Models on the command line and over HTTP, over a project that was run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from instar.app import App, open_app
from instar.data.ingest import Delivery, land
from instar.interfaces import control
from instar.interfaces.api.release import routes
from instar.interfaces.cli.release import commands
from instar.operate import cycle
from tests.evaluate.bundles import table

CONTRACT = """
[project]
name = "trips"
objective = "Warn passengers"
owner = "operations"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
split = { decide = "14d", judge = "14d", refit = false }
outcome = { due = "1d" }
gates = { slices = ["carrier"], latency_p99_ms = 1000 }
retrain = { approval = "POLICY" }
"""

PIPELINE = """
import numpy as np
import polars as pl
from instar import baseline, gold, source

trips = source("trips")

@gold(entity="trip", event_time="at")
def features(trips: pl.LazyFrame) -> pl.LazyFrame:
    return trips.select("trip", "at", "risk", "carrier", "late")

class Rule:
    def __init__(self, blur):
        self.blur = blur
    def predict(self, frame):
        risk = frame["risk"].to_numpy()
        return np.clip(risk + self.blur * np.sin(1e4 * risk), 0, 1)

@baseline("delay")
def rule(features: pl.DataFrame, blur: float = 0.0):
    return Rule(blur)
"""


def project(root: Path, policy: str = "automatic") -> None:
    """A project which was run twice: delay@1 is a blurred rule and champion, delay@2 its sharp successor."""
    (root / "instar.toml").write_text(CONTRACT.replace("POLICY", policy))
    (root / "pipeline.py").write_text(PIPELINE)
    rows = table().with_columns(trip=pl.int_range(pl.len()))
    with open_app(root) as app:
        moment = rows["at"].max() + timedelta(days=1)  # type: ignore[operator]
        land(app.store, "trips", app.pipeline.step("trips"), [Delivery("trips", rows, moment)])
        loop = app.loop()
        for blur in (0.6, 0.0):
            cycle.turn(loop, parameters={"rule.blur": blur})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("INSTAR_STORE", raising=False)
    monkeypatch.delenv("INSTAR_DATABASE", raising=False)
    project(tmp_path)
    return tmp_path


@pytest.fixture
def api(root: Path) -> Iterator[TestClient]:
    with open_app(root) as app, TestClient(_served(app), base_url="http://127.0.0.1:5000") as client:
        yield client


def _served(app: App) -> Any:
    return control.build(app, routes)


def instar(root: Path, *arguments: str) -> str:
    result = CliRunner().invoke(commands[arguments[0]], arguments[1:], obj=str(root), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_models_on_the_command_line(root: Path, tmp_path: Path) -> None:
    first, second = json.loads(instar(root, "models", "ls", "--json"))
    assert (first["version"], first["state"], first["aliases"]) == ("delay@1", "approved", ["champion"])
    assert (second["version"], second["state"], second["aliases"]) == ("delay@2", "approved", ["challenger"])
    listed = instar(root, "models", "ls", "delay")
    assert "delay@1" in listed
    assert "champion" in listed

    facts = json.loads(instar(root, "models", "show", "delay@challenger", "--json"))
    assert (facts["version"], facts["evaluation"]["verdict"]) == ("delay@2", "passed")
    assert facts["intended_use"]["objective"] == "Warn passengers"
    shown = instar(root, "models", "show", "delay@2")
    for text in ("passed: all gates passed", "slice carrier=OO", "approved by policy automatic", "auc"):
        assert text in shown
    assert instar(root, "models", "card", "delay@2").startswith("# Model card: delay@2\n")
    instar(root, "models", "report", "delay@2", str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    instar(root, "models", "report", "delay@2", str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "passed"

    instar(root, "models", "alias", "delay", "stable", "1")
    assert json.loads(instar(root, "models", "show", "delay@stable", "--json"))["version"] == "delay@1"
    instar(root, "models", "alias", "delay", "stable")
    assert json.loads(instar(root, "models", "show", "delay@1", "--json"))["aliases"] == []


def test_judging_and_approving_again_on_the_command_line(root: Path) -> None:
    found = json.loads(instar(root, "evaluate", "delay@2", "--json"))
    assert (found["verdict"]["state"], found["relation"]) == ("passed", "recipe")
    assert "passed: all gates passed" in instar(root, "evaluate", "delay@2")
    alone = json.loads(instar(root, "evaluate", "delay@1", "--json"))
    assert (alone["relation"], alone["opponent"]) == ("first", None)
    assert "is approved by policy automatic" in instar(root, "approve", "delay@2")


def test_four_eyes_are_asked_for_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instar.core.errors import Blocked

    monkeypatch.delenv("INSTAR_STORE", raising=False)
    monkeypatch.delenv("INSTAR_DATABASE", raising=False)
    project(tmp_path, "four-eyes")
    assert [one["state"] for one in json.loads(instar(tmp_path, "models", "ls", "--json"))] == ["registered"] * 2
    for _ in range(2):
        with pytest.raises(Blocked, match="the one who proposed it"):
            instar(tmp_path, "approve", "delay@1")
    facts = json.loads(instar(tmp_path, "models", "show", "delay@1", "--json"))
    assert [one["state"] for one in facts["approvals"]] == ["asked"]


def test_models_over_http(api: TestClient) -> None:
    base = "/api/projects/trips"
    assert [one["version"] for one in api.get(f"{base}/models").json()["models"]] == ["delay@1", "delay@2"]
    assert api.put(f"{base}/models/delay/aliases/stable", json={"version": 2}).json()["aliases"] == {"stable": 2}
    assert api.get(f"{base}/models/delay").json()["aliases"] == {"stable": 2}
    assert api.get(f"{base}/models/delay/versions/stable").json()["version"] == "delay@2"
    assert api.get(f"{base}/models/delay/versions/champion").json()["version"] == "delay@1"
    assert api.put(f"{base}/models/delay/versions/2/stage", json={"stage": "Staging"}).json()["stage"] == "Staging"
    given = api.post(f"{base}/models/delay/versions/2/approve", json={"note": "again"})
    assert (given.status_code, given.json()["approved_by"]) == (201, "policy automatic")
    judged = api.post(f"{base}/models/delay/versions/2/evaluate")
    assert (judged.status_code, judged.json()["verdict"]["state"]) == (201, "passed")


def test_evaluations_over_http(api: TestClient) -> None:
    base = "/api/projects/trips/evaluations"
    found = api.get(base).json()["evaluations"]
    assert len(found) == 2
    one = api.get(f"{base}/{found[0]['id']}").json()
    assert (one["verdict"]["state"], one["effective"]) == ("passed", "passed")
    page = api.get(f"{base}/{found[0]['id']}/report")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in page.headers["content-security-policy"]
    assert page.text.startswith("<!doctype html>")
    assert api.get(f"{base}/{found[0]['id']}/report?format=json").json()["evaluation"] == found[0]["id"]
    assert api.get(f"{base}?bundle=b3:none").json() == {"evaluations": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/models/other", None, 404),
        ("GET", "/models/delay/versions/9", None, 404),
        ("GET", "/evaluations/eval_none", None, 404),
        ("PUT", "/models/delay/aliases/champion", {"version": 2}, 403),
        ("PUT", "/models/delay/aliases/stable", {"version": "two"}, 400),
        ("PUT", "/models/delay/aliases/stable", {"version": 9}, 404),
        ("POST", "/models/delay/versions/2/approve", {"nota": ""}, 400),
        ("POST", "/models/delay/versions/2/approve", {"expires_at": "2026-01-01T00:00:00"}, 400),
    ],
)
def test_bad_requests_say_why(api: TestClient, method: str, path: str, body: object, status: int) -> None:
    answer = api.request(method, f"/api/projects/trips{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]


def test_another_projects_evidence_is_not_told(api: TestClient) -> None:
    found = api.get("/api/projects/trips/evaluations").json()["evaluations"][0]["id"]
    assert api.get(f"/api/projects/elsewhere/evaluations/{found}").status_code == 404


def test_every_route_names_its_permission() -> None:
    asked = {(route.method, route.path): route.permission.value for route in routes}
    assert all(permission == "read" for (method, _), permission in asked.items() if method == "GET")
    assert all(permission in ("release", "approve") for (method, _), permission in asked.items() if method != "GET")
