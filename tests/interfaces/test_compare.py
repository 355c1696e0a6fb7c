"""`instar runs compare`: terminal, page and JSON; and the charts on the page."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from instar.app import open_app
from instar.interfaces.charts.curves import Curve, curves
from instar.interfaces.charts.parallel import Across, parallel
from instar.interfaces.charts.points import Point, scatter
from instar.interfaces.cli.main import cli
from instar.interfaces.comparison import plots, terminal
from instar.train import runs


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("INSTAR_DATABASE", "INSTAR_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INSTAR_STORE", str(tmp_path / ".instar"))
    monkeypatch.chdir(tmp_path)
    found = []
    with open_app(tmp_path, need_project=False) as app:
        for number in range(4):
            parameters = {"rate": 0.1 * (number + 1), "loss": "log" if number % 2 else "exp", "<b>": "&"}
            run = runs.start(
                app.store,
                app.project_name,
                experiment="churn",
                name=f"<run {number}>",
                parameters=parameters,
                capture=False,
            )
            for step in range(300):
                runs.log_metrics(app.store, run.id, {"loss": math.sin(step) / (number + 1)}, step)
            runs.log_metrics(app.store, run.id, {"cost": 1.0 / (number + 1), "odd": math.nan})
            runs.finish(app.store, run.id)
            found.append(run.id)
    return found


def instar(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["runs", "compare", *arguments])


def test_three_ways_to_see_what_differs(made: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    told = instar(*made, "--html", str(page))
    assert told.exit_code == 0, told.output
    assert "parameter rate" in told.output
    assert "<run 3>" in told.output
    assert "parameter <b>" not in told.output  # the same in all
    document = json.loads(instar(*made, "--json", "--metric", "cost").stdout)
    assert [run["id"] for run in document["runs"]] == made[::-1]
    assert document["metrics"]["cost"] == [0.25, pytest.approx(1 / 3), 0.5, 1.0]
    assert document["same"]["parameters"] == {"<b>": "&"}
    (first, *_) = document["curves"]["loss"]
    assert len(first["points"]) == 200
    assert all(low - 1e-12 <= mean <= high + 1e-12 for _, mean, low, high in first["points"])
    text = page.read_text()
    assert text.count("<svg") >= 3  # parallel, curves, scatter
    assert "&lt;run 3&gt;" in text
    assert "<run" not in text
    assert "<script" not in text


def test_parameters_that_clients_send_as_texts_are_drawn_as_numbers(made: list[str]) -> None:
    document = json.loads(instar(*made, "--json", "--metric", "cost").stdout)
    document["parameters"] = {"rate": ["0.1", "0.2", "1e-3", None], "kind": ["1", "two", "3", "4"]}
    assert list(plots.scatters(document, "cost")) == ["rate"]
    assert drawn(plots.scatters(document, "cost")["rate"], "dot") == 3
    across = plots.across(document)
    assert ">1e-3<" not in across  # no name of a value: an axis of numbers
    assert ">two<" in across


def test_a_value_of_any_length_fits_a_cell() -> None:
    assert terminal.said("x" * 5000) == "x" * 200 + "… and 4800 characters more"
    assert [terminal.said(value) for value in ("x" * 200, 0.1234567, None)] == ["x" * 200, "0.123457", "-"]


def test_runs_are_chosen_by_a_search(made: list[str]) -> None:
    document = json.loads(instar("--filter", "metrics.cost < 0.6 AND params.loss = 'log'", "--json").stdout)
    assert {run["id"] for run in document["runs"]} == {made[1], made[3]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the runs to compare"),
        (["run_none"], "there is no such run"),
        (["--filter", "metrics.cost <"], "at character 15"),
        (["--filter", "metrics.cost > 99"], "1 to 50 runs"),
    ],
)
def test_what_cannot_be_compared_is_said(made: list[str], arguments: list[str], said: str) -> None:
    done = instar(*arguments)
    assert done.exit_code != 0
    assert said in done.output + str(done.exception)


def drawn(chart: str, kind: str) -> int:
    root = ElementTree.fromstring(chart)
    return sum(kind in element.get("class", "").split() for element in root.iter())


def test_charts_hold_what_cannot_be_drawn() -> None:
    gap = [(0.0, 1.0, 0.5, 1.5), (1.0, math.nan, math.nan, math.nan), (2.0, 3.0, 3.0, 3.0)]
    chart = curves([Curve("a<b", gap), Curve("one", [(1.0, 2.0, 2.0, 2.0)]), Curve("none", [])], "t", "x", "y")
    assert (drawn(chart, "curve"), drawn(chart, "band"), drawn(chart, "dot")) == (1, 1, 1)
    assert curves([Curve("a", [])], "t", "x", "y") == ""
    infinite = curves([Curve("a", [(0.0, 1.0, -math.inf, math.inf), (1.0, 2.0, 2.0, 2.0)])], "t", "x", "y")
    assert "inf" not in infinite
    assert scatter([], "t", "x", "y") == ""
    assert drawn(scatter([Point(1.0, 2.0, "a & b", link="/x?a=1&b=2")], "t", "x", "y"), "dot") == 1


def test_parallel_coordinates_need_two_axes_and_mix_words_with_numbers() -> None:
    given = [Across("a", {"x": 1, "word": "log", "none": None}), Across("b", {"x": 1000.0, "word": "exp"})]
    chart = parallel(given, ["x", "word", "none", "absent"], "t")
    assert drawn(chart, "curve") == 2
    assert drawn(chart, "level") == 2
    assert parallel(given, ["x"], "t") == ""
    assert parallel([], ["x", "word"], "t") == ""
