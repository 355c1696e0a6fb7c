"""The tutorial on proving a model is run as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interfaces.as_written import TUTORIALS, run


@pytest.mark.timeout(420)
def test_a_model_is_proven_as_the_tutorial_says(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = run((TUTORIALS / "04-prove-a-model.md").read_text("utf-8"), tmp_path, timeout=400)
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
