"""The page on tracking is run as it is written: its Python as a script, its commands in a shell, a server beside them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from instar.app import open_app
from instar.core import notes
from instar.train import runs
from tests.journeys.driving import environment, instar, up

PAGE = Path(__file__).parents[2] / "docs" / "tracking-runs.md"


def test_the_page_on_tracking_is_as_it_says(tmp_path: Path) -> None:
    instar(tmp_path, "init", "cafe")
    cafe = tmp_path / "cafe"
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh", "python"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    alone = environment(PATH=path, XDG_STATE_HOME=str(tmp_path / "state"))  # what else this user left is not asked for
    said = []
    with up(cafe):
        for kind, text in blocks:
            # The last block is of the same notebook as the first.
            program = ["sh", "-euc", text] if kind == "sh" else [sys.executable, "-c", f"import instar\n{text}"]
            done = subprocess.run(
                program, cwd=cafe, env=alone, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            said.append(done.stdout)
    run = said[0].strip()
    assert run in said[1] or "1 delivered already" in said[1]  # by the script itself, if it had the time
    assert said[2].split() == [run, "finished", "0.3333333333333333"]
    with open_app(cafe) as app:
        found = runs.get_run(app.store, run)
        assert (found.name, found.tags["author"], found.parameters) == ("by hand", "ada", {"depth": 6})
        assert "rows by channel.parquet" in found.artifacts
        assert [note.text for note in notes.of(app.store, "cafe", run)] == ["a first try, without the holidays"]
