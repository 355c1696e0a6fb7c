"""`instar tune` and `instar studies`, as a user calls them; interrupted, killed, in several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from instar.interfaces.charts import axes
from instar.interfaces.cli.main import cli

COMMAND = [sys.executable, "-m", "instar.interfaces.cli.main"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "shop"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
            patch.delenv(name, raising=False)
        made = CliRunner().invoke(cli, ["init", str(folder)], catch_exceptions=False)
        assert made.exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        monkeypatch.delenv(name, raising=False)


def instar(shop: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--project", str(shop), *arguments], catch_exceptions=True)


def tuned(shop: Path, *arguments: str) -> dict[str, Any]:
    done = instar(shop, "tune", "no_show_trees", *arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_study_ends_with_a_short_list_and_a_page(shop: Path, tmp_path: Path) -> None:
    page = tmp_path / "study.html"
    first = instar(shop, "tune", "no_show", "--trials", "3", "--sampler", "random", "--html", str(page))
    assert first.exit_code == 0, first.output
    assert "trial 0: done, cost" in first.output
    assert "short list by cost, EUR a row" in first.output
    assert "Next: instar run -S no_show_trees." in first.output
    assert page.read_text().count("<svg") >= 4
    assert "<script" not in page.read_text()
    report = tuned(shop, "--trials", "9", "--sampler", "random")
    assert [one["number"] for one in report["trials"]] == list(range(9))
    assert report["trials"][0]["parameters"] == {"learning_rate": 0.1, "leaves": 8, "iterations": 50}  # the defaults
    assert sum(report["importances"].values()) == pytest.approx(1.0)
    listed = json.loads(instar(shop, "studies", "ls", "--json").stdout)
    assert [one["id"] for one in listed] == [report["study"]["id"]]
    shown = json.loads(instar(shop, "studies", "show", report["study"]["id"][:-3], "--json").stdout)
    assert shown["shortlist"] == report["shortlist"]


def test_processes_share_a_study(shop: Path) -> None:
    report = tuned(shop, "--trials", "6", "-j", "2", "--seed", "11", "--objective", "log_loss", "--no-warm-start")
    assert len([one for one in report["trials"] if one["state"] == "done"]) == 6
    assert len({json.dumps(one["parameters"], sort_keys=True) for one in report["trials"]}) == 6


def test_parameters_that_are_set_are_not_searched(shop: Path) -> None:
    report = tuned(shop, "--trials", "2", "-S", "no_show_trees.leaves=4", "--space", "iterations=5..15")
    assert list(report["study"]["terms"]["space"]) == ["iterations"]
    assert all(5 <= one["parameters"]["iterations"] <= 15 for one in report["trials"])
    assert report["study"]["terms"]["fixed"] == {"leaves": 4}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_show_tree"], "Did you mean 'no_show_trees'"),
        (["no_show_trees", "--space", "leafs=1..2"], "Did you mean 'leaves'"),
        (["no_show_trees", "--objective", "cost:less"], "METRIC:min"),
        (["no_show_trees", "--objective", "profit", "--trials", "1", "--seed", "77"], "objective profit"),
        (["no_show_trees", "--shares", "0.5,0.2"], "shares of the rows grow"),
        (["no_show_trees", "--shares", "some"], "no list of shares"),
        (["no_show_trees", "-S", "clean_bookings.x=1"], "no step has that parameter"),
        ([], "name the step to tune"),
        (["--join", "stdy_none"], "there is no such study"),
    ],
)
def test_what_cannot_be_searched_is_said(shop: Path, arguments: list[str], said: str) -> None:
    done = instar(shop, "tune", *arguments)
    assert done.exit_code != 0
    assert said in done.output + str(done.exception)


def start(shop: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [*COMMAND, "--project", str(shop), "tune", "no_show_trees", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word!r}")


def test_an_interrupt_keeps_what_is_done(shop: Path) -> None:
    process = start(shop, "--trials", "5000", "--seed", "21", "--sampler", "random")
    wait_for(process, "trial 2: done")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped; what is done is kept" in rest
    assert "short list by cost" in rest
    (study, *_) = json.loads(instar(shop, "studies", "ls", "--json").stdout)
    assert study["state"] == "stopped"


def test_a_killed_study_goes_on(shop: Path) -> None:
    arguments = ["--trials", "8", "--seed", "22", "--sampler", "random", "-j", "2"]
    process = start(shop, *arguments)
    wait_for(process, "done, cost")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    report = tuned(shop, *arguments)
    done = [one for one in report["trials"] if one["state"] == "done"]
    assert len(done) == 8
    assert len({json.dumps(one["parameters"], sort_keys=True) for one in done}) == 8
    assert json.loads(instar(shop, "runs", "ls", "--state", "running", "--json").stdout) == []


def test_processes_of_a_killed_study_make_no_more_trials(shop: Path) -> None:
    process = start(shop, "--trials", "5000", "--seed", "23", "--sampler", "random", "-j", "2")
    wait_for(process, "done, cost")
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    process.kill()
    process.communicate()
    _, left = psutil.wait_procs(workers, timeout=60)
    for worker in left:
        worker.kill()
    assert left == []


def test_an_axis_has_room_for_one_value_and_for_none() -> None:
    for values in ([], [3.0], [0.0], [float("nan")], [-1.0, 1.0]):
        across = axes.horizontal(values)
        assert across.low < across.high
        assert all(axes.LEFT <= across.at(value) <= axes.WIDTH for value, _ in across.marks)
    down = axes.vertical([0.001, 1000.0], log=True)
    assert [text for _, text in down.marks] == ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]
