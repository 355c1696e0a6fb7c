"""The tutorial on proving a model is run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interfaces.test_tutorials import _blocks, _shell

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "04-prove-a-model.md"


@pytest.mark.timeout(420)
def test_a_model_is_proven_as_the_tutorial_says(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    script = "set -eu\n" + "".join(_shell(kind, text) for kind, text in _blocks(TUTORIAL.read_text("utf-8")))
    here = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(part for part in (here, str(TUTORIAL.parents[2])) if part)
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    verdicts = [line.partition(":")[0] for line in said.splitlines() if line.startswith(("identical", "different"))]
    assert verdicts == ["identical", "identical", "different", "different"]
    assert said.count("ended with status 1") == 2
    assert "first cause: the input booking_features was booking_features@1 and is booking_features@2" in said
    assert "\nthe input booking_features was booking_features@1 and is booking_features@2\n" in said
    assert "first cause: the input booking_features@1 was changed after it was recorded" in said
    assert re.search(r"reproduced +identical \(as it was\) as run_", said)
    asked = [line.split(" found by")[0] for line in said.splitlines() if line.startswith("asked ")]
    newest, changed = "asked newest inputs: different", "asked as it was: different"
    assert asked == [changed, newest, newest, "asked as it was: identical", "asked as it was: identical"]
    assert "0 would go" in said
