"""Searching runs and keeping experiments on the command line and over HTTP."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from instar.app import App, open_app
from instar.core.errors import BadInput, Conflict, MalformedRequest, NotFound
from instar.core.identity import Permission
from instar.interfaces.api import experiments as api
from instar.interfaces.api import tracking
from instar.interfaces.api.routes import Reply, Request
from instar.interfaces.cli.experiments import commands as experiment_commands
from instar.interfaces.cli.train import commands as run_commands
from instar.train import runs

COMMANDS = {**run_commands, **experiment_commands}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store without a project: three runs of project `default`, one of another."""
    monkeypatch.setenv("INSTAR_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("INSTAR_DATABASE", raising=False)
    with open_app(tmp_path, need_project=False) as app:
        for number in range(3):
            run = runs.start(
                app.store,
                "default",
                experiment="team/delay",
                name=f"r{number}",
                parameters={"depth": number},
                capture=False,
            )
            if number:
                runs.log_metrics(app.store, run.id, {"cost": number / 2, "other": 1.0})
        runs.start(app.store, "elsewhere", experiment="team/delay", name="far", capture=False)
    return tmp_path


def instar(root: Path, *words: str, good: bool = True) -> Result:
    result = CliRunner().invoke(COMMANDS[words[0]], words[1:], obj=str(root), catch_exceptions=not good)
    assert not good or result.exit_code == 0, result.output
    return result


def named(root: Path, *options: str) -> list[str]:
    return [run["name"] for run in json.loads(instar(root, "runs", "ls", "--json", *options).stdout)]


def test_runs_are_filtered_sorted_and_counted(root: Path) -> None:
    assert named(root) == ["r2", "r1", "r0"]
    assert named(root, "--filter", "metrics.cost < 1 OR params.depth = '2'", "--order-by", "metrics.cost") == [
        "r1",
        "r2",
    ]
    assert named(root, "--order-by", "metrics.cost DESC", "--limit", "2") == ["r2", "r1"]
    assert named(root, "--all-projects") == ["far", "r2", "r1", "r0"]
    assert named(root, "--experiment", "team/delay", "--state", "running", "--filter", "run_name != 'r1'") == [
        "r2",
        "r0",
    ]
    assert named(root, "--experiment", "none") == []
    assert instar(root, "runs", "ls", "--count", "--filter", "metrics.cost > 0").stdout == "2\n"
    assert json.loads(instar(root, "runs", "ls", "--count", "--json").stdout) == {"count": 3}


def test_the_list_shows_the_columns_asked_for_and_says_who_comes_last(root: Path) -> None:
    result = instar(root, "runs", "ls", "--columns", "metrics.cost, run_name, start_time", "--order-by", "metrics.cost")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["run", "cost", "run_name", "start_time"]
    assert [line.split()[1:3] for line in lines[:3]] == [["0.5", "r1"], ["1", "r2"], ["-", "r0"]]
    assert "1 of them have no metrics.cost and come last" in result.stderr
    assert "there are more than 2" in instar(root, "runs", "ls", "--limit", "2").stderr
    with pytest.raises(BadInput, match="character 16"):
        instar(root, "runs", "ls", "--filter", "metrics.cost < 'a'")


def test_experiments_are_made_moved_deleted_and_restored(root: Path) -> None:
    made = json.loads(instar(root, "experiments", "create", "a/b", "--tag", "owner=ada", "--json").stdout)
    assert made["tags"] == {"owner": "ada"}
    assert instar(root, "experiments", "create", "x", "--tag", "owner", good=False).exit_code == 2
    listed = json.loads(instar(root, "experiments", "ls", "--json").stdout)
    assert [(one["name"], one["runs"]) for one in listed] == [("a/b", 0), ("team/delay", 3)]
    assert "renamed" in instar(root, "experiments", "rename", "a/b", "a/c").stdout
    with pytest.raises(Conflict):
        instar(root, "experiments", "move", "team/delay", "--to", "elsewhere")
    instar(root, "experiments", "move", "team/delay", "--to", "elsewhere", "--name", "team/late")
    assert named(root) == []
    assert named(root, "--all-projects", "--filter", "experiment = 'team/late'") == ["r2", "r1", "r0"]
    instar(root, "experiments", "delete", "a/c")
    assert instar(root, "experiments", "ls", "--filter", "name LIKE 'a/%'").stdout.startswith("no experiments yet")
    assert "deleted" in instar(root, "experiments", "show", "a/c").stdout
    assert "a/c" in instar(root, "experiments", "ls", "--view", "deleted").stdout
    instar(root, "experiments", "restore", made["id"])
    shown = json.loads(instar(root, "experiments", "show", "a/c", "--json").stdout)
    assert (shown["state"], shown["id"], shown["runs"]) == ("active", made["id"], 0)
    assert "elsewhere" in instar(root, "experiments", "ls", "--all-projects").stdout
    with pytest.raises(NotFound):
        instar(root, "experiments", "show", "nobody")


def test_columns_that_cannot_be_read_are_called_so(root: Path) -> None:
    refused = instar(root, "runs", "ls", "--columns", "metrics.cost, nonsense.x", good=False)
    assert "the list of columns cannot be read at character 15" in str(refused.exception)


def test_a_deleted_experiment_whose_name_was_taken_is_restored_by_its_id(root: Path) -> None:
    made = json.loads(instar(root, "experiments", "create", "x/y", "--json").stdout)
    instar(root, "experiments", "delete", "x/y")
    instar(root, "experiments", "create", "x/y")
    refused = instar(root, "experiments", "restore", "x/y", good=False)
    assert "nothing was restored" in str(refused.exception)
    instar(root, "experiments", "rename", "x/y", "x/z")
    assert "restored" in instar(root, "experiments", "restore", made["id"]).stdout


def test_deleted_runs_have_a_view(root: Path) -> None:
    instar(root, "experiments", "delete", "team/delay")
    assert named(root) == []
    assert named(root, "--view", "deleted", "--experiment", "team/delay") == ["r2", "r1", "r0"]
    instar(root, "experiments", "restore", "team/delay")
    assert named(root) == ["r2", "r1", "r0"]


def ask(
    app: App,
    handler: Any,
    path: dict[str, str] | None = None,
    body: Any = None,
    lists: dict[str, list[str]] | None = None,
    **query: str,
) -> Reply:
    data = json.dumps(body).encode() if body is not None else b""
    request = Request(
        app, app.store.actor, {"project": "default", **(path or {})}, query, data, query_lists=lists or {}
    )
    reply: Reply = handler(request)
    return reply


def test_runs_are_searched_and_counted_over_the_api(root: Path) -> None:
    with open_app(root, need_project=False) as app:
        found = ask(app, tracking.search_runs, lists={"order_by": ["metrics.cost DESC"]}, columns="metrics.cost").value
        assert [run["name"] for run in found["runs"]] == ["r2", "r1", "r0"]
        assert [run["metrics"] for run in found["runs"]] == [{"cost": 1.0}, {"cost": 0.5}, {}]
        assert found["without"] == [found["runs"][-1]["id"]]
        assert all(run["parameters"] == {} for run in found["runs"])
        assert ask(app, tracking.count_runs, filter="metrics.cost > 0.6").value == {"count": 1}
        first = ask(app, tracking.search_runs, limit="2").value
        second = ask(app, tracking.search_runs, limit="2", token=first["next"]).value
        assert [run["name"] for run in (*first["runs"], *second["runs"])] == ["r2", "r1", "r0"]
        with pytest.raises(BadInput):
            ask(app, tracking.search_runs, filter="metrics.")


def test_a_curve_comes_in_buckets(root: Path) -> None:
    with open_app(root, need_project=False) as app:
        run = runs.list_runs(app.store, "default")[0]
        points = [("loss", [1.0, math.inf, math.nan, 4.0][step % 4], step, step) for step in range(100)]
        runs.log(app.store, run.id, points=points)
        path = {"run": run.id, "metric": "loss"}
        found = ask(app, tracking.curve, path, buckets="5").value["buckets"]
        assert [bucket["count"] for bucket in found] == [20] * 5
        assert (found[0]["minimum"], found[0]["maximum"], found[0]["mean"], found[0]["nans"]) == (1.0, None, None, 5)
        assert (found[0]["step_from"], found[-1]["step_to"], found[0]["first"], found[0]["last"]) == (0, 99, 1.0, 4.0)
        part = ask(app, tracking.curve, path, buckets="5", **{"from": "90", "to": "94"}).value["buckets"]
        assert [bucket["step_from"] for bucket in part] == [90, 91, 92, 93, 94]
        json.loads(ask(app, tracking.curve, path).content())
        for wrong in ({"buckets": "many"}, {"from": "x"}, {"buckets": "0"}):
            with pytest.raises(BadInput):
                ask(app, tracking.curve, path, **wrong)


def test_experiments_over_the_api_stay_within_their_project(root: Path) -> None:
    with open_app(root, need_project=False) as app:
        made = ask(app, api.create_experiment, body={"name": "new", "tags": {"a": "1"}})
        assert made.status == 201
        path = {"experiment": made.value["id"]}
        assert ask(app, api.rename_experiment, path, {"name": "newer"}).value["name"] == "newer"
        assert ask(app, api.tag_experiment, {**path, "tag": "b"}, {"value": "2"}).value["tags"] == {"a": "1", "b": "2"}
        assert ask(app, api.untag_experiment, {**path, "tag": "a"}).value["tags"] == {"b": "2"}
        assert ask(app, api.delete_experiment, path).value["state"] == "deleted"
        assert ask(app, api.restore_experiment, path).value["state"] == "active"
        assert ask(app, api.show_experiment, path).value["runs"] == 0
        with pytest.raises(NotFound):
            ask(app, api.show_experiment, {**path, "project": "elsewhere"})
        with pytest.raises(MalformedRequest):
            ask(app, api.create_experiment, body={"nam": "x"})
        with pytest.raises(Conflict):
            ask(app, api.create_experiment, body={"name": "newer"})
    assert {route.permission for route in api.routes if route.method != "GET"} == {Permission.TRAIN}
