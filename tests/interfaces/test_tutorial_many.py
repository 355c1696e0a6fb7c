"""The tutorial on a thousand models is run as it is written, with fewer of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interfaces.as_written import TUTORIALS, run


@pytest.mark.timeout(240)
def test_a_thousand_models_are_served_as_the_tutorial_says(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    text = (
        (TUTORIALS / "07-a-thousand-models.md").read_text("utf-8").replace("INSTAR_MEMORY=64MiB instar up", "instar up")
    )
    waiting = 'until instar cost | grep "shop-0001@1"; do sleep 0.2; done'  # instead of a while that is long enough
    text = text.replace("sleep 15", waiting)
    said = run(text, tmp_path, INSTAR_MEMORY="64MiB", SHOPS="4")
    assert "routes 1 are published" in said
    assert said.index('"state":"cold"') < said.index('"state":"warm"')
    assert said.count("version 1") >= 2
    assert "(gateway)" in said
    assert "shop-0001@1" in said
