"""The tutorials are run as they are written: shell blocks in one shell, a server beside it, Python blocks as programs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

import instar
from instar.core import errors

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "01-first-project.md"
THIS = f'"{sys.executable}" -m tests.interfaces.test_tutorials'
# The server goes to the background, on any free port, and the shell waits until it is ready to answer.
SERVER = f"""\
instar up --port 0 > up.log 2>&1 &
echo $! > up.pid
trap 'kill "$(cat up.pid)"; wait' EXIT
{THIS} ready
"""
# Its last word: what this file's own checks need, while the server still runs.
LOOK = f'{THIS} look "$prediction"\n'


@pytest.mark.timeout(240)
def test_the_first_project_is_as_the_tutorial_says(tmp_path: Path) -> None:
    script = "set -eu\n" + "".join(_shell(kind, text) for kind, text in _blocks(TUTORIAL.read_text("utf-8"))) + LOOK
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "code pipeline.MOST_GUESTS changed" in said
    assert "1 of 5 steps ran: clean_bookings" in said
    assert "answers on the record only" in said
    assert "consistent, not anchored" in said
    assert "looked at the running server" in said


@pytest.mark.timeout(240)
def test_from_notebook_to_pipeline_is_as_the_tutorial_says(tmp_path: Path) -> None:
    text = (TUTORIAL.parent / "03-from-notebook-to-pipeline.md").read_text("utf-8")
    whole = importlib.util.find_spec("nbclient") is not None  # of the extra `notebook`, which its third part needs
    if not whole:
        text = text.partition("\n## 3.")[0]
    script = "set -eu\n" + "".join(_shell(kind, block) for kind, block in _blocks(text))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "1 of 6 steps would run; nothing was done" in said
    assert "code analysis.LARGE changed" in said
    assert "1 of 1 steps ran: large_parties" in said
    if whole:
        assert re.search(r"\d+ parties of 4 or more\n", said)
        assert re.search(r"\d+ parties of 6 or more\n", said)
        assert "parties.csv" in said, "what it wrote is kept"


def _blocks(text: str) -> list[tuple[str, str]]:
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


def look(prediction: str) -> None:
    """The client and the console on the server of the tutorial, from its folder."""
    with instar.connect() as server:
        assert server.project == "bookings"
        (policy,) = server.live()
        assert policy["answering"][0]["version"] == "no_show@1"
        assert {"bookings", "booking_features"} <= {table["table"] for table in server.tables()}
        assert server.runs()
        assert len(server.models()) == 3
        with pytest.raises(errors.WrongDatatype, match="guests"):
            server.predict("no_show", {"guests": ["two"]})
        with pytest.raises(errors.NotFound):
            server.predict("nothing", {"guests": [2]})
        server.post_outcomes([{"prediction": prediction, "value": False}])
        with pytest.raises(errors.Conflict, match="another outcome"):
            server.post_outcomes([{"prediction": prediction, "value": True}])
        kinds = [hop["kind"] for hop in server.trace(prediction)["hops"]]
        assert kinds == ["outcome", "call", "model version", "features"]
        for page in (
            "",
            "/tables/booking_features",
            "/models/no_show/3",
            "/endpoints/no_show",
            f"/predictions/{prediction}",
        ):
            address = f"{server.url}/console/bookings{page}"
            assert httpx2.get(address).status_code == 200, page
            assert httpx2.get(f"{address}.json").json()["project"] == "bookings"
    print("looked at the running server")


if __name__ == "__main__":
    {"ready": ready, "look": look}[sys.argv[1]](*sys.argv[2:])
