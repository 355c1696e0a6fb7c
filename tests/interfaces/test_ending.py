"""How runs end that nobody ends: by the script's end, an exception, an exit with a status, Ctrl-C, and in children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instar.app import open_app
from instar.train import runs
from tests.interfaces.test_notes import CONTRACT

INTERRUPTED = (1, 130, -2)  # as the shell has set the signal
BEGIN = "import instar, os, sys\nrun = instar.run('late', resources=False, wait_seconds=60)\nrun.log(a=1)\n"


@pytest.mark.parametrize(
    ("rest", "status", "ended"),
    [
        ("", 0, ("finished", None)),
        ("sys.exit(0)", 0, ("finished", None)),
        ("sys.exit(3)", 3, ("failed", "SystemExit: 3")),
        ("sys.exit('no rows')", 1, ("failed", "SystemExit: no rows")),
        ("raise ValueError('no rows')", 1, ("failed", "ValueError: no rows")),
        ("raise KeyboardInterrupt", INTERRUPTED, ("killed", "KeyboardInterrupt")),
        ("os._exit(9)", 9, ("abandoned", "its process ended before the run did")),
        (
            "child = os.fork()\nif not child:\n    run.log(b=2)\n    sys.exit(5)\nos.waitpid(child, 0)\n",
            0,
            ("finished", None),
        ),
    ],
    ids=["end", "exit 0", "exit 3", "exit text", "exception", "interrupt", "sudden", "child"],
)
def test_a_run_that_nobody_ends_ends_as_its_process_did(
    tmp_path: Path, rest: str, status: int | tuple[int, ...], ended: tuple[str, str | None]
) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    (tmp_path / "train.py").write_text(BEGIN + rest + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INSTAR_")}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (status if isinstance(status, tuple) else (status,)), done.stderr
    with open_app(tmp_path) as app:
        from instar.interfaces.sdk import place
        from instar.train import syncing

        here = place.find(start=tmp_path)
        sinks = place.Sinks(here=here)
        syncing.sync(here.spool, lambda about: sinks.find(about, at_home=True))
        sinks.close()
        (run,) = runs.list_runs(app.store, "parcels")
    assert (run.state, run.error) == ended
    assert run.metrics == ({"a": 1.0, "b": 2.0} if "fork" in rest else {"a": 1.0})
