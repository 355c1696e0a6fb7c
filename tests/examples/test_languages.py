"""The examples in R and Java: looked at, brought, approved, served and on the record, as their READMEs say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from instar.serve.process import ServerTree
from tests.conftest import need

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE = 100


def instar(place: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("INSTAR_DATABASE", "INSTAR_URL")}
    environment["INSTAR_STORE"] = str(place / ".instar")
    done = subprocess.run(
        [sys.executable, "-m", "instar.interfaces.cli.main", *arguments],
        cwd=place, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def served(place: Path, language: str, model: str, *row: str) -> tuple[str, str]:
    """What it answers to a row when it is served as its README says, and the trace of that answer."""
    checked = json.loads(instar(place, "check-runtime", str(EXAMPLES / language), "--json"))
    assert {one["state"] for one in checked["checks"] if one["name"] != "40 ms delay"} == {"passed"}, checked
    instar(place, "models", "import", str(EXAMPLES / language), "--name", model)
    instar(place, "approve", f"{model}@1", "--note", "looked at")
    instar(place, "promote", f"{model}@1", "--reason", "to see it answer")
    with ServerTree.start(place / ".instar"):
        said = instar(place, "predict", model, *row)
        trace = instar(place, "trace", said.split()[0])
        said += instar(place, "predict", model, *row)
    assert not [pid for pid in children_of(place) if pid], "a program outlived its server"
    return said, trace


def children_of(place: Path) -> list[str]:
    """Processes that run in a bundle of this store."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [one.parent.name] if str(place) in os.readlink(one) else []
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
    assert re.findall(r"version 1  score (\S+)  decision (\d)", said) == [("0.8423", "1")] * 2
    assert "mileage@1" in trace
    assert "as it was brought" in trace


@pytest.mark.timeout(240)
def test_a_model_in_java_is_served(tmp_path: Path) -> None:
    need(shutil.which("java"), "Java", "default-jdk-headless")
    said, trace = served(tmp_path, "java", "iris", "x=[5.1,3.5,1.4,0.2]")
    assert said.count('species ["setosa"]') == 2
    assert "distance [[0.141" in said
    assert "iris@1" in trace
