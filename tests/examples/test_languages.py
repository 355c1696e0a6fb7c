"""The examples in R and Java: looked at, brought, approved, served and on the record, as their READMEs say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from instar.interfaces.cli.main import cli
from instar.serve.root.process import ServerTree
from tests.conftest import need
from tests.serve.programs import folder

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAR_STORE", str(tmp_path / ".instar"))
    for name in ("INSTAR_DATABASE", "INSTAR_URL"):
        monkeypatch.delenv(name, raising=False)


def instar(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == status, f"{arguments}: {done.output}{done.exception!r}"
    return done.stdout


def brought(folder: Path, model: str) -> None:
    instar("models", "import", str(folder), "--name", model)
    assert "A program that somebody brought: `" in instar("models", "card", f"{model}@1")
    instar("approve", f"{model}@1", "--note", "looked at")
    instar("promote", f"{model}@1", "--reason", "to see it answer")


def served(place: Path, language: str, model: str, *row: str) -> tuple[str, str]:
    """What it answers to a row when it is served as its README says, and the trace of that answer."""
    checked = json.loads(instar("check-runtime", str(EXAMPLES / language), "--json"))
    assert {one["state"] for one in checked["checks"] if one["name"] != "40 ms delay"} == {"passed"}, checked
    brought(EXAMPLES / language, model)
    with ServerTree.start(place / ".instar") as server:
        said = instar("predict", model, *row)
        trace = instar("trace", said.split()[0])
        for page in (f"models/{model}/1", f"endpoints/{model}", f"predictions/{said.split()[0]}"):
            assert httpx2.get(f"{server.url}/console/default/{page}").status_code == 200, page
    assert not children_of(place), "a program outlived its server"
    return said, trace


def children_of(place: Path) -> list[str]:
    """Processes that run in a bundle of this store."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [one.parent.name] if str(place / ".instar/serve/bundles") in os.readlink(one) else []
        except OSError:
            continue
    return found


@pytest.mark.timeout(240)
def test_a_model_in_r_is_served(tmp_path: Path) -> None:
    rscript = need(shutil.which("Rscript"), "R", "r-cran-plumber")
    known = subprocess.run([rscript, "-e", "library(plumber)"], capture_output=True, check=False).returncode == 0
    need(rscript if known else None, "plumber", "r-cran-plumber")
    said, trace = served(tmp_path, "r", "mileage", "hp=110", "wt=2.62")
    # glm(am ~ hp + wt, data = mtcars, family = binomial) says 0.8423 of this car.
    assert re.findall(r"version 1  score (\S+)  decision (\d)", said) == [("0.8423", "1")]
    assert "mileage@1" in trace
    assert "as it was brought" in trace


@pytest.mark.timeout(240)
def test_a_model_in_java_is_served(tmp_path: Path) -> None:
    need(shutil.which("java"), "Java", "default-jdk-headless")
    said, trace = served(tmp_path, "java", "iris", "x=[5.1,3.5,1.4,0.2]")
    assert 'species "setosa"' in said
    assert "distance [0.141" in said
    assert "iris@1" in trace


@pytest.mark.timeout(120)
def test_a_program_that_dies_fails_that_call_and_is_there_for_the_next(tmp_path: Path) -> None:
    brought(folder(tmp_path / "m", more="threshold = 0.4"), "delay")
    with ServerTree.start(tmp_path / ".instar"):
        assert "score 0.5000  decision 1" in instar("predict", "delay", "distance=5000", "carrier=UA")
        before = children_of(tmp_path)
        said = CliRunner().invoke(cli, ["predict", "delay", "distance=5000", "carrier=dies"])
        assert said.exit_code
        assert "ended while it was asked" in f"{said.output}{said.exception}"
        assert "score 0.5000" in instar("predict", "delay", "distance=5000", "carrier=UA")
        after = children_of(tmp_path)
        assert len(before) == len(after) == 1
        assert before != after
    assert not children_of(tmp_path)
