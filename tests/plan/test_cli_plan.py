"""The commands of planning, on the project that `instar init` makes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from instar.core.errors import Conflict, ContractError, UnknownTable
from instar.interfaces.cli.main import cli
from instar.plan import importing

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was made and run once; tests which edit take a copy."""
    folder = tmp_path_factory.mktemp("made") / "cafe"
    assert instar(folder.parent, "init", "cafe").exit_code == 0
    first = instar(folder, "run")
    assert first.exit_code == 0, first.output
    assert "5 of 5 steps ran" in first.output
    assert "no_show@1 promoted" in first.output
    return folder


@pytest.fixture
def cafe(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "cafe")
    return tmp_path / "cafe"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    importing.forget()


def instar(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--project", str(folder), *words])


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_what_init_makes_is_an_ordinary_project_and_works(made: Path) -> None:
    assert {file.name for file in made.iterdir()} == {
        "instar.toml", "pipeline.py", "make_bookings.py", ".gitignore", "data", ".instar",
    }  # fmt: skip
    record = json.loads(instar(made, "status", "--json").output)
    assert record["project"] == "cafe"
    assert {step["step"]: step["state"] for step in record["steps"]} == dict.fromkeys(
        ["bookings", "clean_bookings", "booking_features", "no_show_by_channel", "no_show_trees"], "current"
    )
    tables = json.loads(instar(made, "data", "ls", "--json").output)
    assert {table["table"]: table["rows"] for table in tables}["clean_bookings__quarantine"] == 8


def test_init_overwrites_nothing(made: Path) -> None:
    before = (made / "instar.toml").read_text()
    refused = instar(made.parent, "init", "cafe")
    assert isinstance(refused.exception, Conflict)
    assert "instar.toml" in str(refused.exception)
    assert (made / "instar.toml").read_text() == before


def test_init_refuses_a_name_that_cannot_be(tmp_path: Path) -> None:
    refused = instar(tmp_path, "init", "x", "--name", "Not A Name")
    assert isinstance(refused.exception, ContractError)
    assert not (tmp_path / "x").exists()


def test_a_second_run_runs_nothing_and_an_edit_runs_what_depends_on_it(cafe: Path) -> None:
    again = json.loads(instar(cafe, "run", "--target", "booking_features", "--json").output)
    assert {step["state"] for step in again["steps"]} == {"cached"}
    edit(cafe / "pipeline.py", "MOST_GUESTS = 30", "MOST_GUESTS = 7  # the largest table")
    why = instar(cafe, "why", "clean_bookings").output
    assert why.startswith("clean_bookings would run, because:\n  code pipeline.MOST_GUESTS changed")
    assert "its input clean_bookings will run first" in instar(cafe, "why", "booking_features").output
    status = instar(cafe, "status").output
    assert "clean_bookings      silver    stale" in status
    ran = instar(cafe, "run", "--target", "booking_features")
    assert "2 of 3 steps ran: clean_bookings, booking_features" in ran.output
    assert "[2/3] clean_bookings runs: code pipeline.MOST_GUESTS changed" in ran.output
    edit(cafe / "pipeline.py", "# the largest table", "# the largest table there is")
    assert "0 of 3 steps ran" in instar(cafe, "run", "--target", "booking_features").output


def test_a_parameter_is_set_and_a_wrong_one_refused(cafe: Path) -> None:
    assert "would run" not in instar(cafe, "why", "no_show_trees").output
    wrong = instar(cafe, "run", "-S", "no_show_trees.learning_rat=0.2")
    assert "Did you mean 'no_show_trees.learning_rate'?" in str(wrong.exception)
    assert instar(cafe, "run", "-S", "learning_rate").exit_code == 2
    unknown = instar(cafe, "why", "no_show_tree")
    assert isinstance(unknown.exception, UnknownTable)


def test_a_failure_says_where_and_keeps_nothing(cafe: Path) -> None:
    edit(
        cafe / "pipeline.py",
        "    rows = bookings.select(",
        '    raise RuntimeError("out of paper")\n    rows = bookings.select(',
    )
    failed = instar(cafe, "run", "--target", "clean_bookings")
    assert "RuntimeError: out of paper" in str(failed.exception)
    assert "pipeline.py:" in str(failed.exception)
    found = json.loads(instar(cafe, "why", "clean_bookings", "--json").output)
    assert (found["state"], found["last"]["state"], found["last"]["ref"]) == ("failed", "failed", None)
    tables = json.loads(instar(cafe, "data", "ls", "clean_bookings", "--json").output)
    assert len(tables) == 1


def test_a_run_killed_at_a_random_moment_ends_in_the_same_contents(cafe: Path, tmp_path: Path) -> None:
    def run(store: str, kill_after: float | None = None) -> None:
        command = [sys.executable, "-m", "instar.interfaces.cli.main", "--project", str(cafe)]
        command += ["run", "--target", "booking_features"]
        environment = {**os.environ, "INSTAR_STORE": str(tmp_path / store)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            if kill_after is not None:
                assert process.stdout is not None
                process.stdout.readline()  # it has begun
                time.sleep(kill_after)
                process.send_signal(signal.SIGKILL)
            output, _ = process.communicate()
        assert kill_after is not None or process.returncode == 0, output.decode()

    def contents(store: str) -> dict[str, str]:
        result = CliRunner(env={"INSTAR_STORE": str(tmp_path / store)}).invoke(
            cli, ["--project", str(cafe), "data", "ls", "--json"]
        )
        return {table["table"]: table["content"] for table in json.loads(result.output)}

    chance = random.Random(3)
    run("killed", chance.random() / 2)
    run("killed", chance.random() / 2)
    run("killed")
    run("whole")
    assert contents("killed") == contents("whole")
    assert set(contents("whole")) == {"bookings", "clean_bookings", "clean_bookings__quarantine", "booking_features"}
