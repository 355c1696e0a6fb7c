"""The tutorial on a model in R is run as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need
from tests.interfaces.test_tutorials import _blocks, _shell

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "06-an-r-model.md"


@pytest.mark.timeout(240)
def test_an_r_model_is_served_as_the_tutorial_says(tmp_path: Path) -> None:
    rscript = need(shutil.which("Rscript"), "R", "r-cran-plumber")
    known = subprocess.run([rscript, "-e", "library(plumber)"], capture_output=True, check=False).returncode == 0
    need(rscript if known else None, "plumber", "r-cran-plumber")
    script = "set -eu\n" + "".join(_shell(kind, text) for kind, text in _blocks(TUTORIAL.read_text("utf-8")))
    here = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(part for part in (here, str(TUTORIAL.parents[2])) if part)
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert re.findall(r"checks: (\d) failed", said) == ["3", "0"]
    assert "something is missing" in said
    assert re.findall(r"score (\S+)  decision (\d)", said) == [("0.8423", "1"), ("0.2480", "0")]
    assert "refused" in said
    assert "gearbox as it was brought" in said
    assert "order 12" in said
