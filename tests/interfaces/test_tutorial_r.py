"""The tutorial on a model in R is run as it is written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need
from tests.interfaces.as_written import TUTORIALS, run


@pytest.mark.timeout(240)
def test_an_r_model_is_served_as_the_tutorial_says(tmp_path: Path) -> None:
    rscript = need(shutil.which("Rscript"), "R", "r-cran-plumber")
    known = subprocess.run([rscript, "-e", "library(plumber)"], capture_output=True, check=False).returncode == 0
    need(rscript if known else None, "plumber", "r-cran-plumber")
    said = run((TUTORIALS / "06-an-r-model.md").read_text("utf-8"), tmp_path)
    assert re.findall(r"checks: (\d) failed", said) == ["3", "0"]
    assert "something is missing" in said
    assert re.findall(r"score (\S+)  decision (\d)", said) == [("0.8423", "1"), ("0.2480", "0")]
    assert "refused" in said
    assert "gearbox as it was brought" in said
    assert "order 12" in said
