"""The tutorial on a thousand models is run as it is written, with fewer of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interfaces.test_tutorials import _blocks, _shell

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "07-a-thousand-models.md"


@pytest.mark.timeout(240)
def test_a_thousand_models_are_served_as_the_tutorial_says(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    text = TUTORIAL.read_text("utf-8").replace("INSTAR_MEMORY=64MiB instar up", "instar up")
    waiting = 'until instar cost | grep "shop-0001@1"; do sleep 0.2; done'  # instead of a while that is long enough
    text = text.replace("sleep 15", waiting)
    script = "set -eu\n" + "".join(_shell(kind, block) for kind, block in _blocks(text))
    here = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "SHOPS": "4"}
    environment["INSTAR_MEMORY"] = "64MiB"
    environment["PYTHONPATH"] = os.pathsep.join(part for part in (here, str(TUTORIAL.parents[2])) if part)
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "routes 1 are published" in said
    assert said.index('"state":"cold"') < said.index('"state":"warm"')
    assert said.count("version 1") >= 2
    assert "(gateway)" in said
    assert "shop-0001@1" in said
