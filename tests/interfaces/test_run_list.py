"""Lists of runs and experiments: readable in 80 columns whatever was logged, and complete for programs."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from instar.app import open_app
from instar.interfaces.cli import experiments as experiment_commands
from instar.interfaces.cli import run_list, tables
from instar.interfaces.cli.main import cli
from instar.plan import importing
from instar.train import runs
from tests.interfaces.test_notes import CONTRACT

LONG = "a long text\nof two lines " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    (folder / "instar.toml").write_text(CONTRACT)
    with open_app(folder) as app:
        for number in range(3):
            made = runs.start(
                app.store, "parcels", experiment="team/search/of/many/trees" if number else "late",
                name=f"trial {number} with a name that is longer than any column",
                parameters={f"p{at}": at for at in range(150)} | {"depth": number, "note": LONG}, tags={"t": "x"},
                capture=False,
            )  # fmt: skip
            values = {f"loss/{at}": 0.123456789 for at in range(30)} | {"auc": 0.5 + number, "system/cpu": 1.0}
            runs.log_metrics(app.store, made.id, values if number else values | {"cost": 2.0})
            runs.finish(app.store, made.id)
    return folder


def said(folder: Path, *words: str, status: int = 0) -> str:
    done = CliRunner().invoke(cli, ["--project", str(folder), *words])
    importing.forget()
    assert done.exit_code == status, done.output
    return done.stdout


def refused(folder: Path, *words: str) -> str:
    return str(CliRunner().invoke(cli, ["--project", str(folder), *words]).exception)


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_shows_one_line_a_run_with_what_fits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(run_list, "room", lambda: width)
    header, *lines = said(folder, "runs", "ls").splitlines()
    assert header.split()[:6] == ["run", "experiment", "name", "state", "started", "took"]
    assert header.split()[6:9] == (["cost", "auc", "loss/0"] if width == 160 else ["cost"])
    assert len(lines) == 3
    assert max(len(line.rstrip()) for line in lines) <= width
    for line in lines:  # what is shown of an id names the run
        assert line.split()[0] in said(folder, "runs", "show", line.split()[0])


def test_runs_of_one_experiment_show_the_parameters_in_which_they_differ(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_list, "room", lambda: 600)
    header = said(folder, "runs", "ls", "--experiment", "team/search/of/many/trees").splitlines()[0].split()
    assert header[:5] == ["run", "name", "state", "started", "took"]
    assert header[-2:] == ["system/cpu", "depth"]
    assert "p1" not in header


def test_csv_and_json_have_all_and_columns_choose(folder: Path) -> None:
    (first, *_) = rows = list(csv.DictReader(io.StringIO(said(folder, "runs", "ls", "--csv"))))
    assert len(rows) == 3
    assert (first["metrics.auc"], first["parameters.p149"], first["parameters.note"]) == ("2.5", "149", LONG)
    assert [row["metrics.cost"] for row in rows] == ["", "", "2.0"]
    (full, *_) = json.loads(said(folder, "runs", "ls", "--json"))
    assert (full["id"], full["parameters"]["note"]) == (first["run"], LONG)
    chosen = said(folder, "runs", "ls", "-c", "metrics.auc,params.depth", "--csv")
    assert chosen.splitlines()[0] == "run,auc,depth"
    assert chosen.splitlines()[1].endswith(",2.5,2")
    assert said(folder, "runs", "ls", "-c", "metrics.auc").splitlines()[0].split() == ["run", "auc"]
    assert "exclude each other" in CliRunner().invoke(cli, ["runs", "ls", "--csv", "--json"]).output


def test_long_lists_of_one_run_are_cut_and_shown_whole_when_asked(folder: Path) -> None:
    run = json.loads(said(folder, "runs", "ls", "--json"))[0]["id"]
    short, whole = said(folder, "runs", "show", run), said(folder, "runs", "show", run, "--all")
    assert "trial 2 with a name that is longer than any column" in short
    assert "parameters (152)" in short
    assert "… and 132 more: --all" in short
    assert len(short.splitlines()) < 80
    assert LONG not in short
    assert LONG in whole
    assert "p149" in whole


def test_experiments_keep_their_ids_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment_commands, "room", lambda: 70)
    lines = said(folder, "experiments", "ls").splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        one["id"] for one in json.loads(said(folder, "experiments", "ls", "--json"))
    ]
    assert "team/search/" in lines[1]
    assert max(len(line.rstrip()) for line in lines) <= 70
    assert " state " in said(folder, "experiments", "ls", "--view", "all").splitlines()[0]


def test_experiments_of_a_store_without_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a store is, experiments are those of its own project; where nothing is, nothing is made."""
    assert "neither a project nor a store" in refused(tmp_path, "experiments", "ls")
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("INSTAR_STORE", str(tmp_path / ".instar"))
    with open_app(tmp_path, need_project=False) as app:
        assert app.project_name == "default"
    monkeypatch.delenv("INSTAR_STORE")
    made = json.loads(said(tmp_path, "experiments", "create", "team/x", "--tag", "kind=a", "--json"))
    assert (made["project"], made["tags"]) == ("default", {"kind": "a"})
    assert made["id"] in said(tmp_path, "experiments", "ls", "--filter", "tags.kind = 'a'")
    said(tmp_path, "experiments", "rename", "team/x", "team/y")
    assert "team/y" in said(tmp_path, "experiments", "show", made["id"])
    assert "moved" in said(tmp_path, "experiments", "move", "team/y", "--to", "birds")
    assert "birds" in said(tmp_path, "experiments", "ls", "--all-projects")
    assert "there is no such experiment" in refused(tmp_path, "experiments", "delete", "nobody")
    assert "deleted" in said(tmp_path, "experiments", "delete", made["id"])
    assert "restored" in said(tmp_path, "experiments", "restore", made["id"])


@given(st.lists(st.lists(st.text("ab", max_size=9), min_size=4, max_size=4), min_size=1), st.integers(0, 60))
def test_what_is_said_to_fit_does_fit_and_one_column_more_does_not(rows: list[list[str]], width: int) -> None:
    header = ["a", "bb", "ccc", "dddd"]
    fits = tables.columns_that_fit(header, rows, width)
    sizes = [tables.line_width(header[:number], [row[:number] for row in rows]) for number in range(1, 5)]
    assert [size <= width for size in sizes] == [number <= fits for number in range(1, 5)]


@given(st.text(), st.integers(1, 40))
def test_a_cut_text_is_one_line_of_that_width(text: str, width: int) -> None:
    cut = tables.cut(text, width)
    assert len(cut) <= width
    assert len(cut.splitlines()) <= 1
