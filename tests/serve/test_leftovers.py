"""Models' processes beside workers: what hangs or leaks is replaced, what is killed leaves nothing behind, all is billed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from instar.core.store import Store
from instar.serve.processes.children import Process
from instar.serve.processes.leftovers import MARK
from instar.serve.root import costs
from instar.serve.root.accounts import VERSION
from instar.serve.traffic import routing
from instar.train.command_bundle import pack_command
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.lamps import lamp_bundle, published
from tests.serve.lamps import links as links
from tests.serve.programs import folder
from tests.serve.test_crash import gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sessions and marks are found in /proc")

# It leaves a child, one in a session of its own, and one that was forked without a program of its own.
LEADER = """
import os, subprocess, sys, time
sleep = ["sleep", "600"]
if not (pid := os.fork()):
    time.sleep(600)
print(pid, subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


def test_all_that_a_process_started_ends_with_it_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    marked = {**os.environ, MARK: "/run/7.sock"}
    other = subprocess.Popen(["sleep", "600"], start_new_session=True, env=marked | {MARK: "/run/77.sock"})
    command = [sys.executable, "-c", LEADER.replace("flush=True", f"file=open({writing}, 'w')")]
    process = Process.start(command, (writing,), marked, "/run/7.sock")
    os.close(writing)
    children = list(map(int, os.read(reading, 100).split()))
    os.close(reading)
    try:
        assert len(children) == 3
        assert process.poll() is None
        process.signal(signal.SIGKILL)
        wait_for(lambda: process.poll() == -signal.SIGKILL)
        for pid in children:
            wait_for(lambda pid=pid: gone(pid))
        assert stranger.poll() is None
        assert other.poll() is None
    finally:
        for one in (stranger, other):
            one.kill()
            one.wait()


def body(carrier: str, rows: int) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "distance", "shape": [rows], "datatype": "FP64", "data": [1000.0] * rows},
            {"name": "carrier", "shape": [rows], "datatype": "BYTES", "data": [carrier] * rows},
        ]
    }


def holders(root: int, shims: bool) -> list[int]:
    """Workers of versions of their own, and models' processes where these are forked: by their names."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and int((place / "stat").read_text().rpartition(")")[2].split()[1]) == root:
                name = (place / "comm").read_text()
                found += [int(place.name)] if name.startswith("native-") or (shims and "shim" in name) else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("fork", ["on", "off"])
def test_a_killed_worker_leaves_nothing_and_its_bill_has_all(
    store: Store, links: Path, tmp_path: Path, fork: str
) -> None:
    lamp = lamp_bundle(store, links, "1.0")
    program = pack_command(store, folder(tmp_path / "m"), name="program")
    routing.set_policy(store, "flights", "lamp", champion=1, bundles={1: lamp}, cause="test")
    routing.set_policy(store, "flights", "program", champion=1, bundles={1: program}, cause="test")
    number = published(store)
    loader = "instar.serve.worker.loading:load"
    with (
        start(store.folder, loader=loader, environment={"INSTAR_FORK": fork}) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        acknowledged(store.folder, number)

        def ask(endpoint: str, carrier: str, rows: int = 1) -> list[float]:
            reply = client.post(f"/v2/models/{endpoint}/infer", json=body(carrier, rows))
            assert reply.status_code == 200, reply.text
            data: list[float] = reply.json()["outputs"][0]["data"]
            return data

        left = [int(one) for name in ("lamp", "program") for one in (*ask(name, "children", 4), *ask(name, "burn"))]
        left = [one for one in left if one > 2]  # those of `burn` are scores
        assert len(left) == 8
        workers = holders(server.pid, shims=fork == "on")
        assert len(workers) == (3 if fork == "on" else 2)
        for pid in holders(server.pid, shims=False):
            os.kill(pid, signal.SIGKILL)
        for pid in (*workers, *left):
            wait_for(lambda pid=pid: gone(pid))
        assert ask("lamp", "UA") == pytest.approx([0.2])
        assert ask("program", "UA") == [0.1]
    costs.take_in(store)
    used = {one.endpoint: one for one in costs.costs(store) if one.what == VERSION}
    for name in ("lamp", "program"):
        assert used[name].cpu_seconds > 1.5, name
        assert used[name].calls >= 1


def test_a_process_of_another_environment_that_hangs_or_leaks_is_replaced(store: Store, links: Path) -> None:
    routing.set_policy(
        store, "flights", "lamp", champion=1, bundles={1: lamp_bundle(store, links, "1.0")}, cause="test"
    )
    number = published(store)
    environment = {"INSTAR_HANG": "6", "INSTAR_WORKER_MEMORY": "250MiB"}
    with (
        start(store.folder, loader="instar.serve.worker.loading:load", environment=environment) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        acknowledged(store.folder, number)

        def ask(carrier: str) -> httpx2.Response:
            return client.post("/v2/models/lamp/infer", json=body(carrier, 1))

        assert ask("UA").status_code == 200
        (shim,) = set(holders(server.pid, shims=True)) - set(holders(server.pid, shims=False))
        os.kill(shim, signal.SIGSTOP)  # it sees nothing, as a library that holds the interpreter would have it
        hung = ask("UA")
        assert (hung.status_code, "did not answer within 4.5 s" in hung.json()["error"]) == (503, True)
        assert "retry-after" in hung.headers
        wait_for(lambda: gone(shim))
        assert ask("UA").json()["outputs"][0]["data"] == pytest.approx([0.2])
        (worker,) = holders(server.pid, shims=False)
        statuses = [ask("leak").status_code]

        def replaced() -> bool:
            statuses.append(ask("UA").status_code)
            return gone(worker)

        wait_for(replaced, 30)
        assert set(statuses) == {200}
