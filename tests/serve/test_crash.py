"""Processes that are killed, swapped and drained under load: nothing that was answered is missing from the log."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from instar.core.store import Store
from instar.serve.clients.client import Answer, Ask, InferClient
from instar.serve.log import record, segments
from instar.serve.log.calls import CallLog
from instar.serve.root.process import ServerTree, running
from instar.serve.traffic.policy import Canary, Shadow
from instar.serve.traffic.routes import VersionRoute, bundle_folder, run_folder
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for

ROW = {"hour": 8, "carrier": "UA", "wind": 1.5, "holiday": False}


class Load:
    """Calls without pause from another thread, until told to stop or the server is gone."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url,), daemon=True)
        self._thread.start()

    def _run(self, url: str) -> None:
        from instar.core.errors import InstarError

        sent = 0
        try:
            with InferClient(url, "delay", connections=8, inputs={c.name: c.datatype for c in fakes.COLUMNS}) as client:
                while not self._stop.is_set():
                    asks = [Ask({**ROW, "distance": float(sent + n)}, key=str(sent + n)) for n in range(40)]
                    sent += len(asks)
                    self.answers += client.infer_all(asks)
        except InstarError:
            return

    def wait(self, count: int) -> None:
        """Until that many calls were answered well."""
        wait_for(lambda: sum(answer.status == 200 for answer in self.answers) >= count, 60)

    def stop(self) -> list[Answer]:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.answers


@contextmanager
def loaded(server: ServerTree) -> Iterator[Load]:
    load = Load(server.url)
    try:
        yield load
    finally:
        load.stop()


def children(pid: int, text: str) -> list[int]:
    """Children of a process whose command line has a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):
            continue
        if parent == pid and text in command:
            found.append(int(entry.name))
    return found


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def setup(folder: Path, **options: Any) -> list[VersionRoute]:
    versions = [
        fakes.version(folder, 1, bias=0.1),
        fakes.version(folder, 2, bias=0.2),
        fakes.version(folder, 3, bias=0.3, native=True),
    ]
    fakes.route(folder, versions, **{"champion": 1, "shadows": [Shadow(3, "rule")], **options})
    return versions


@pytest.fixture
def folder(store: Store) -> Path:
    return store.folder


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "prompt"])
def test_after_kill_9_every_answered_call_is_in_the_log(store: Store, folder: Path, durable: bool) -> None:
    setup(folder, canary=Canary(2, 30))
    server = start(folder, durable=durable)
    acknowledged(folder, 1)
    tree = [server.pid, *children(server.pid, "instar.serve")]
    assert len(tree) == 4
    with loaded(server) as load:
        load.wait(300)
        for pid in tree:
            os.kill(pid, signal.SIGKILL)
        answers = load.stop()
    server.stop()
    wait_for(lambda: all(map(gone, tree)))
    answered = {answer.call: answer for answer in answers if answer.status == 200}
    assert len(answered) >= 300
    rows = {row["call"]: row for row in CallLog(store).read("delay").iter_rows(named=True)}
    assert not answered.keys() - rows.keys()
    for call, answer in answered.items():
        assert (rows[call]["score"], rows[call]["version"]) == (answer.score, answer.version)
    assert running(folder) is None
    # The store opens and goes on.
    with start(folder) as again:
        acknowledged(folder, 1)
        with InferClient(again.url, "delay") as client:
            more = client.infer(Ask({**ROW, "distance": 1.0}))
        assert more.status == 200
    assert {more.call, *answered} <= set(CallLog(store).read("delay")["call"])


def test_the_tree_dies_with_its_root(folder: Path) -> None:
    setup(folder)
    server = start(folder)
    acknowledged(folder, 1)
    below = children(server.pid, "instar.serve")
    assert below
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: all(map(gone, below)))
    server.stop()


def test_a_killed_gateway_is_replaced_on_the_same_port(store: Store, folder: Path) -> None:
    setup(folder)
    with start(folder) as server:
        acknowledged(folder, 1)
        (gateway,) = children(server.pid, "instar.serve.gateway.gateway")
        os.kill(gateway, signal.SIGKILL)

        def answers() -> bool:
            try:
                return (
                    httpx2.post(f"{server.url}/v2/models/delay/infer", json=fakes.body(), timeout=5).status_code == 200
                )
            except httpx2.HTTPError:
                return False

        wait_for(answers)


def test_a_request_that_ends_its_worker_twice_is_refused_and_takes_nobody_along(store: Store, folder: Path) -> None:
    versions = [fakes.version(folder, 1, quirk="dies on -1"), fakes.version(folder, 3, bias=0.3, native=True)]
    fakes.route(folder, versions, shadows=[Shadow(3, "rule")])
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        with loaded(server) as load:
            load.wait(50)
            reply = client.post("/v2/models/delay/infer", json=fakes.body(-1))
            load.wait(len(load.answers) + 50)
            answers = load.stop()
        assert reply.status_code == 500
        assert "ended the process that holds the model twice" in reply.json()["error"]
        assert "status 3" in reply.json()["error"]
        row = CallLog(store).find(reply.headers["instar-call"])
        assert (row["status"], row["version"], row["decision"]) == (500, 1, None)
        # It is known now, and ends no third one.
        workers = children(server.pid, "instar.serve.worker.worker")
        assert client.post("/v2/models/delay/infer", json=fakes.body(-1)).status_code == 500
        assert children(server.pid, "instar.serve.worker.worker") == workers
    # Its neighbours were asked once more.
    assert {(answer.status, answer.error) for answer in answers} == {(200, None)}


def test_a_hot_swap_under_load_loses_no_call(store: Store, folder: Path) -> None:
    versions = setup(folder)
    with start(folder) as server:
        acknowledged(folder, 1)
        with loaded(server) as load:
            load.wait(100)
            swaps: list[dict[str, Any]] = [
                {"champion": 1, "canary": Canary(2, 50), "shadows": [Shadow(3, "rule")]},
                {"champion": 2, "shadows": [Shadow(1, "before"), Shadow(3, "rule")]},
                {"champion": 3, "shadows": [Shadow(2, "before")]},
                {"champion": 1},
            ]
            for number, swap in enumerate(swaps, 2):
                assert fakes.route(folder, versions, **swap) == number
                for ack in acknowledged(folder, number):
                    assert (ack.failed, ack.error) == ({}, None)
                load.wait(len(load.answers) + 80)
            answers = load.stop()
    assert {answer.status for answer in answers} == {200}
    rows = {row["call"]: row for row in CallLog(store).read("delay").iter_rows(named=True)}
    assert rows.keys() == {answer.call for answer in answers}
    assert {answer.version for answer in answers} == {1, 2, 3}
    # Each call was answered by a version which its policy revision names so.
    expected = {1: {1}, 2: {1, 2}, 3: {2}, 4: {3}, 5: {1}}
    assert all(row["version"] in expected[row["policy"]] for row in rows.values())
    # Drained: every shadow's answer is there, and the segments are closed in good order.
    counts = {1: 2, 2: 3, 3: 3, 4: 2, 5: 1}
    assert all(len(row["answers"]) == counts[row["policy"]] for row in rows.values())
    for name in segments.list_segments(folder / "calls"):
        payloads, _ = segments.read(name.path(folder / "calls"))
        assert isinstance(record.decode_entry(record.decode_frame(payloads[-1]).metadata), record.End)


def test_a_champion_that_does_not_load_never_replaces_one_that_answers(folder: Path) -> None:
    broken = fakes.version(folder, 4, quirk="does not load")
    versions = [*setup(folder), broken]
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        number = fakes.route(folder, versions, champion=4)
        (ack,) = acknowledged(folder, number)
        assert "package lightgbm is not installed" in ack.error
        assert client.post("/v2/models/delay/infer", json=fakes.body()).json()["model_version"] == "1"
        # As a shadow it is left out, and everything else goes on.
        number = fakes.route(folder, versions, champion=2, shadows=[Shadow(4, "candidate")])
        (ack,) = acknowledged(folder, number)
        assert ack.error is None
        assert list(ack.failed) == ["delay@4"]
        assert client.post("/v2/models/delay/infer", json=fakes.body()).json()["model_version"] == "2"


def test_a_bundle_that_is_gone_is_a_reason_not_a_crash(folder: Path) -> None:
    versions = setup(folder)
    import shutil

    shutil.rmtree(bundle_folder(folder, versions[0].bundle))
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        reply = client.post("/v2/models/delay/infer", json=fakes.body())
        assert (reply.status_code, reply.json()["kind"]) == (503, "NotLoaded")
        assert "version 1 cannot answer now: its model cannot be loaded" in reply.json()["error"]


def test_calls_in_flight_are_answered_when_the_server_stops(store: Store, folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, quirk="slow")])
    server = start(folder)
    acknowledged(folder, 1)
    with loaded(server) as load:
        load.wait(20)
        server.stop()
        answers = load.stop()
    answered = {answer.call for answer in answers if answer.status == 200}
    assert answered <= set(CallLog(store).read("delay")["call"])
    # Calls that were taken are answered; only connections without a call on them are closed.
    assert sum(answer.status == 0 for answer in answers) <= 8
    assert running(folder) is None


def test_one_server_a_store(folder: Path) -> None:
    from instar.core.errors import Unavailable

    setup(folder)
    with start(folder) as server:
        assert running(folder) == server.state
        with pytest.raises(Unavailable, match="runs on this store already"):
            start(folder)
        assert httpx2.get(server.url + "/v2/health/live").status_code == 200


def test_it_listens_beyond_loopback_for_nobody(folder: Path) -> None:
    from instar.core.errors import NotAllowed
    from instar.serve.root.supervisor import Root

    with pytest.raises(NotAllowed, match="loopback"):
        Root(folder, host="0.0.0.0").run()


def test_several_gateways_share_a_port_and_a_log(store: Store, folder: Path) -> None:
    setup(folder)
    with start(folder, gateways=2) as server:
        assert len(wait_for(lambda: len(acks := acknowledged(folder, 1)) == 2 and acks)) == 2
        calls = set()
        for _ in range(40):
            calls.add(
                httpx2.post(f"{server.url}/v2/models/delay/infer", json=fakes.body(), timeout=30).headers["instar-call"]
            )
    assert set(CallLog(store).read("delay")["call"]) == calls


def test_a_left_socket_is_no_worker(folder: Path) -> None:
    setup(folder)
    left = run_folder(folder) / "worker-1.sock"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    with start(folder) as server:
        acknowledged(folder, 1)
        reply = httpx2.post(f"{server.url}/v2/models/delay/infer", json=fakes.body(), timeout=30)
        assert json.loads(reply.content)["model_version"] == "1"
    assert not left.exists()


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    from instar.core.errors import Unavailable

    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not come up"):
        start(folder, port=1 if os.getuid() else 70_000)
    assert time.monotonic() - began < 60
