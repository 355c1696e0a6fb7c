"""Runs a tutorial as it is written: shell blocks in one shell, a server beside it, Python blocks as programs."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx2

import instar
from instar.core import errors

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
# The server goes to the background, on any free port, and the shell waits until it is ready to answer.
SERVER = f"""\
instar up --port 0 > up.log 2>&1 &
echo $! > up.pid
trap 'kill "$(cat up.pid)"; wait' EXIT
"{sys.executable}" -m tests.interfaces.as_written
"""


def run(text: str, folder: Path, ending: str = "", *, timeout: float = 220, **more: str) -> str:
    """What its blocks print, run one after the other in a folder.

    Args:
        ending: Shell that is run after them, while the server still runs.
        more: Variables of its environment.
    """
    script = "set -eu\n" + "".join(_shell(kind, block) for kind, block in blocks(text)) + ending
    here = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(part for part in (here, str(ROOT)) if part),
        **more,
    }
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(text: str) -> list[tuple[str, str]]:
    """The blocks of a tutorial that are run, each with its kind, in their order."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _shell(kind: str, text: str) -> str:
    if kind == "python":
        return f"\"{sys.executable}\" - <<'END'\n{text}END\n"
    return SERVER if text.strip() == "instar up" else text


def ready() -> None:
    """Wait until the server of this folder's store answers calls, and its control process everything else."""
    for _ in range(600):
        with contextlib.suppress(errors.Unavailable), instar.connect() as server:
            doors = [httpx2.get(f"{server.url}{path}") for path in ("/v2/health/ready", "/api/projects")]
            if all(door.status_code == 200 for door in doors):
                return
        time.sleep(0.1)
    raise SystemExit("the server did not become ready in a minute")


if __name__ == "__main__":
    ready()
