"""The fence around workers, where the kernel has one: a model that runs code reaches neither the store nor others' files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from instar.core.store import Store
from instar.serve.processes import fence
from instar.serve.publishing import trial
from instar.serve.traffic import routes
from instar.train.command_bundle import pack_command
from tests.serve import fakes
from tests.serve.conftest import ROOT, acknowledged, start, wait_for
from tests.serve.programs import folder as program
from tests.serve.test_crash import gone

needs_fence = pytest.mark.skipif(fence.abi() == 0, reason="this kernel has no Landlock")

PROGRAM = """
import os, sys
from pathlib import Path
from instar.serve.publishing import trial
from instar.serve.processes import fence
mine, scratch, other, store = map(Path, sys.argv[1:])
assert fence.enclose([*fence.readable(store), mine], [scratch])
def tried(do):
    try:
        do()
        return "done"
    except PermissionError:
        return "refused"
print(tried(lambda: (mine / "model").read_bytes()), tried(lambda: (scratch / "new").write_text("x")), tried(os.getcwd),
      tried(lambda: (store / "instar.db").read_bytes()), tried(lambda: (other / "secret").read_text()),
      tried(lambda: (mine / "model").write_text("x")), tried(lambda: os.kill(os.getppid(), 0)),
      __import__("subprocess").run(["cat", str(other / "secret")], capture_output=True).returncode)
import numpy, polars
"""


@needs_fence
def test_it_lets_read_what_is_its_own_and_nothing_else(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("mine", "scratch", "other", "store")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "model").write_text("weights")
    (folders[2] / "secret").write_text("of somebody")
    (folders[3] / "instar.db").write_text("the record")
    command = [sys.executable, "-c", PROGRAM, *map(str, folders)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT / "src")}
    )
    said = done.stdout.split()
    assert said[:3] == ["done", "done", "done"], done.stderr
    assert said[3:6] == ["refused"] * 3
    if fence.abi() >= 6:
        assert said[6] == "refused"
    assert said[7] == "1"  # a child is fenced, too


def test_where_there_is_none_nothing_is_done_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "abi", lambda: 0)
    assert fence.enclose([], []) == 0
    assert fence.standing().startswith("not fenced: this system has no Landlock")
    monkeypatch.setattr(fence, "abi", lambda: 3)
    assert fence.standing() == "fenced by Landlock (ABI 3)"
    monkeypatch.setenv("INSTAR_FENCE", "off")
    assert fence.standing() == "not fenced: INSTAR_FENCE is off"


def test_a_folder_that_holds_the_store_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    store = tmp_path / ".instar"
    store.mkdir()
    assert tmp_path.resolve() not in fence.readable(store)
    assert Path(sys.prefix).resolve() in fence.readable(store)


@needs_fence
@pytest.mark.parametrize("native", [True, False])
def test_a_model_that_looks_around_finds_the_store_closed(store: Store, native: bool) -> None:
    version = fakes.version(store.folder, 1, quirk="looks around", native=native)
    fakes.route(store.folder, [version])
    (routes.serve_folder(store.folder) / "secret").write_text("of the server")
    with start(store.folder) as server:
        acknowledged(store.folder, 1)
        reply = httpx2.post(f"{server.url}/v2/models/delay/infer", json=fakes.body(), timeout=30)
    answer: Any = reply.json()
    assert reply.status_code == 500
    assert "PermissionError" in answer["error"]


@needs_fence
@pytest.mark.parametrize(("wanted", "score"), [("on", 0.25), ("off", 1.0)])
def test_a_trial_is_behind_it_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, score: float
) -> None:
    monkeypatch.setenv("INSTAR_FENCE", wanted)
    (tmp_path / "secret").write_text("of somebody")
    digest = pack_command(store, program(tmp_path / "m", f"reads {tmp_path / 'secret'}"), name="m")
    assert trial.try_out(store, digest).facts["score"] == score


def test_a_trial_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    digest = pack_command(store, program(tmp_path / "m", "leaves a child"), name="m")
    left = int(trial.try_out(store, digest).facts["score"])
    wait_for(lambda: gone(left))
