"""Runs on the command line and over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from instar.app import App, open_app
from instar.core.errors import BadInput, MalformedRequest, NotFound
from instar.interfaces.api import train as api
from instar.interfaces.api.routes import Reply, Request
from instar.interfaces.cli.train import commands
from instar.train import runs

CONTRACT = """
[project]
name = "trains"
objective = "Warn of late trains"
owner = "ada"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0 }
split = { decide = "10d", judge = "10d" }
outcome = { due = "1d" }
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("INSTAR_STORE", raising=False)
    monkeypatch.delenv("INSTAR_DATABASE", raising=False)
    (tmp_path / "instar.toml").write_text(CONTRACT)
    (tmp_path / "pipeline.py").write_text("")
    with open_app(tmp_path) as app:
        good = runs.start(app.store, "trains", experiment="delay", step="trees", parameters={"depth": 3}, root=tmp_path)
        runs.log_metrics(app.store, good.id, {"cost": 0.5, "odd": float("nan")})
        runs.finish(app.store, good.id)
        bad = runs.start(app.store, "trains", experiment="delay", step="trees", parameters={"depth": 4})
        runs.fail(app.store, bad.id, ValueError("the rails are wet"))
    return tmp_path


def instar(root: Path, *arguments: str) -> str:
    result = CliRunner().invoke(commands["runs"], arguments, obj=str(root), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_is_one_json_document_newest_first(root: Path) -> None:
    bad, good = json.loads(instar(root, "ls", "--json"))
    assert (bad["state"], bad["error"]) == ("failed", "ValueError: the rails are wet")
    assert (good["state"], good["parameters"], good["metrics"]) == (
        "finished",
        {"depth": 3},
        {"cost": 0.5, "odd": None},
    )
    assert [run["id"] for run in json.loads(instar(root, "ls", "--json", "--state", "failed"))] == [bad["id"]]
    assert json.loads(instar(root, "ls", "--json", "--experiment", "other")) == []


def test_the_list_for_people_shows_each_run_on_one_line(root: Path) -> None:
    lines = instar(root, "ls").splitlines()
    assert len(lines) == 3
    assert "depth=4" in lines[1]
    assert "failed" in lines[1]
    assert "0.5" in lines[2]
    for narrow in (
        ("--step", "other"),
        ("--experiment", "other"),
        ("--filter", "metrics.cost < 0"),
        ("--view", "deleted"),
    ):
        assert instar(root, "ls", *narrow) == "no run is what was asked for\n"


def test_one_run_is_shown_with_all_that_it_was_made_of(root: Path) -> None:
    good = json.loads(instar(root, "ls", "--json"))[1]
    shown = json.loads(instar(root, "show", good["id"][:-3], "--json"))
    around = shown.pop("surroundings")
    assert shown == {**good, "bundles": [], "reproductions": []}
    assert around["libraries"]["numpy"]
    text = instar(root, "show", good["id"])
    assert "processor" in text
    assert "libraries" in text
    for expected in (good["id"], good["environment"], good["code"]["content"], "depth", "0.5"):
        assert expected in text
    with pytest.raises(NotFound):
        CliRunner().invoke(commands["runs"], ["show", "run_none"], obj=str(root), catch_exceptions=False)


def test_comparing_shows_only_what_differs(root: Path) -> None:
    bad, good = (run["id"] for run in json.loads(instar(root, "ls", "--json")))
    found = json.loads(instar(root, "compare", good, bad, "--json"))
    assert found["parameters"] == {"depth": [3, 4]}
    assert found["metrics"] == {"cost": [0.5, None], "odd": ["nan", None]}
    assert json.loads(instar(root, "compare", good, good, "--json"))["parameters"] == {}
    assert "parameter depth" in instar(root, "compare", good, bad)


def ask(app: App, handler: Any, path: dict[str, str], body: Any = None, **query: str) -> Reply:
    data = json.dumps(body).encode() if body is not None else b""
    reply: Reply = handler(Request(app, app.store.actor, {"project": "trains", **path}, query, data))
    return reply


def test_a_run_is_logged_and_read_over_the_api(root: Path) -> None:
    with open_app(root) as app:
        made = ask(app, api.start_run, {}, {"experiment": "mine", "parameters": {"a": 1}})
        assert made.status == 201
        path = {"run": made.value["id"]}
        assert ask(app, api.log_metrics, path, {"metrics": {"loss": 2.0}, "step": 4}).value == {"logged": 1}
        history = ask(app, api.metric_history, {**path, "metric": "loss"}).value["values"]
        assert [(value["step"], value["value"]) for value in history] == [(4, 2.0)]
        assert ask(app, api.end_run, path, {"error": "gave up"}).value["state"] == "failed"
        assert ask(app, api.show_run, path).value["error"] == "gave up"
        listed = ask(app, api.list_runs, {}, experiment="mine").value["runs"]
        assert [run["id"] for run in listed] == [made.value["id"]]
        assert json.loads(ask(app, api.list_runs, {}).content())["runs"]


def test_wrong_requests_are_refused(root: Path) -> None:
    with open_app(root) as app:
        run = runs.list_runs(app.store, "trains")[0].id
        with pytest.raises(NotFound):
            ask(app, api.show_run, {"project": "other", "run": run})
        with pytest.raises(MalformedRequest, match="experimnt"):
            ask(app, api.start_run, {}, {"experimnt": "x"})
        with pytest.raises(BadInput):
            ask(app, api.list_runs, {}, limit="all")
        with pytest.raises(NotFound):
            ask(app, api.show_bundle, {"digest": "b3:" + "0" * 64})
    assert {route.permission.value for route in api.routes if route.method == "POST"} == {"train"}
