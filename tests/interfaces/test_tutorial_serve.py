"""The tutorial on serving a first model is run as it is written: an ONNX file becomes answers on the record."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest

import instar
from instar.core import errors
from tests.interfaces.as_written import TUTORIALS, run

# Its last word, while the server still runs.
LOOK = f'"{sys.executable}" -m tests.interfaces.test_tutorial_serve "$call/1"\n'


@pytest.mark.timeout(240)
def test_a_first_model_is_served_as_the_tutorial_says(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    said = run((TUTORIALS / "05-serve-your-first-model.md").read_text("utf-8"), tmp_path, LOOK)
    assert "with answers equal to the last bit" in said
    assert "calls are answered one by one" in said
    wanted = [float(number) for number in re.search(r"^\[(.*)\]$", said, re.MULTILINE)[1].split()]  # type: ignore[index]
    given = re.findall(r"version (\d)  label \d  probabilities \[[^,]+, ([^\]]+)\]", said)
    assert [version for version, _ in given] == ["1"] * 3 + ["2"] * 3
    assert [float(number) for _, number in given] == pytest.approx(wanted * 2, abs=1e-4)
    assert "row,prediction,version,label,probabilities[0],probabilities[1],error" in said
    assert '"id":"from the ward"' in said
    assert "refused" in said
    assert "answered by model version tumour@1" in said
    assert "tumour as it was brought" in said
    assert "looked at the running server" in said


def look(prediction: str) -> None:
    """The console on the server of the tutorial, from its folder."""
    with instar.connect() as server:
        hop = server.trace(prediction)
        assert len(hop["facts"]["inputs"]["X"]["data"]) == 30
        assert hop["facts"]["score"] is None
        assert hop["facts"]["outputs"]["probabilities"]["shape"] == [2]
        rows = np.zeros((2, 30), np.float32)
        said = server.infer("tumour", {"X": rows}, outputs=["probabilities"], entities=["a", "b"])
        assert (list(said.outputs), len(said.outputs["probabilities"]), said.version) == (["probabilities"], 2, 2)
        assert server.trace(f"{said.call}/1")["facts"]["entity"] == "b"
        assert server.infer("tumour", {"X": rows[0]}).outputs["label"] in ([0], [1])
        with pytest.raises(errors.WrongShape, match="another shape"):
            server.infer("tumour", {"X": [[1.0]]})
        with pytest.raises(errors.BadInput, match="no such tensor"):
            server.infer("tumour", {"Y": rows})
        with pytest.raises(errors.BadInput, match="Ask it with `infer`"):
            server.predict("tumour", {"X": [[0.0] * 30]})
        texts = {}
        for page in ("models/tumour/1", "endpoints/tumour", f"predictions/{prediction}", "models"):
            answer = httpx2.get(f"{server.url}/console/default/{page}")
            assert answer.status_code == 200, page
            assert httpx2.get(f"{server.url}/console/default/{page}.json").status_code == 200, page
            texts[page] = answer.text
        assert "probabilities" in texts[f"predictions/{prediction}"]
        assert "with a score" not in texts[f"predictions/{prediction}"]
        assert "[-1, 30]" in texts["models/tumour/1"]
    print("looked at the running server")


if __name__ == "__main__":
    look(sys.argv[1])
