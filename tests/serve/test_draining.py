"""A server that ends, and a disk that is full, under load: calls are counted, and none is lost."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from instar.core.store import Store
from instar.serve.log import record, segments
from instar.serve.log.calls import CallLog
from instar.serve.log.segments import alive_boots
from instar.serve.root import condition
from instar.serve.root.process import ServerTree
from instar.serve.traffic import routes
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.test_crash import children

BODY = json.dumps(fakes.body(1000)).encode()
REQUEST = (
    b"POST /v2/models/delay/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class Caller(threading.Thread):
    """Calls on one connection, one after the other, until it is told that the connection ends."""

    def __init__(self, server: ServerTree) -> None:
        super().__init__(daemon=True)
        self.raw = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.calls: list[str] = []
        self.told = False
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        with self.raw:
            self._call()

    def _call(self) -> None:
        while not self.told:
            self.raw.sendall(REQUEST)
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                part = self.raw.recv(65536)
                if not part:
                    return
                head += part
            head, _, body = head.partition(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
            while len(body) < int(fields[b"content-length"]):
                body += self.raw.recv(65536)
            self.statuses[int(head.split()[1])] += 1
            self.calls.append(fields[b"instar-call"].decode().upper().replace("CALL_", "call_"))
            self.told = fields.get(b"connection") == b"close"


def test_a_server_that_ends_answers_all_it_was_asked_and_says_so(store: Store) -> None:
    folder = store.folder
    fakes.route(folder, [fakes.version(folder, 1)])
    server = start(folder)
    acknowledged(folder, 1)
    callers = [Caller(server) for _ in range(8)]
    for caller in callers:
        caller.start()
    wait_for(lambda: sum(len(caller.calls) for caller in callers) >= 200)
    server.stop()
    for caller in callers:
        caller.join(30)
    # Each heard that its connection ends: none saw it break, and what was answered is what is on the record.
    assert all(caller.told for caller in callers)
    assert sum((caller.statuses for caller in callers), Counter()).keys() == {200}
    assert {call for caller in callers for call in caller.calls} == set(CallLog(store).read("delay")["call"])


@pytest.mark.parametrize("policy", ["stop", "answer"])
def test_a_full_disk_stops_answers_or_is_said_with_each(store: Store, policy: str) -> None:
    folder = store.folder
    fakes.route(folder, [fakes.version(folder, 1)])
    with start(folder, environment={"INSTAR_RECORD_FAILURE": policy}) as server, httpx2.Client(timeout=30) as client:
        acknowledged(folder, 1)
        (gateway,) = children(server.pid, "instar.serve.gateway.gateway")

        def ask() -> httpx2.Response:
            return client.post(f"{server.url}/v2/models/delay/infer", content=BODY)

        kept = [ask().headers["instar-call"] for _ in range(5)]
        (segment,) = segments.list_segments(folder / "calls")
        room = segment.path(folder / "calls").stat().st_size + 10
        _, most = resource.prlimit(gateway, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, (room, most))
        failed = [ask() for _ in range(20)]
        if policy == "stop":
            assert {reply.status_code for reply in failed} <= {200, 503}
            refused = [reply for reply in failed if reply.status_code == 503]
            assert refused
            assert all("on the record" in reply.json()["error"] and reply.headers["retry-after"] for reply in refused)
            missing = len(refused)
        else:
            assert {reply.status_code for reply in failed} == {200}
            missing = sum(reply.headers.get("instar-record") == "missing" for reply in failed)
            assert missing
            assert f"instar_unrecorded_answers_total {missing}.0" in client.get(f"{server.url}/metrics").text
        kept += [
            reply.headers["instar-call"]
            for reply in failed
            if reply.status_code == 200 and "instar-record" not in reply.headers
        ]
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, (most, most))
        good = wait_for(lambda: (reply := ask()).status_code == 200 and "instar-record" not in reply.headers and reply)
        kept.append(good.headers["instar-call"])
    said = server.log.read_text()
    # Loudly, and not with each call: a new segment may take some before the disk is full again.
    assert 0 < said.count("endpoint delay: records of calls cannot be kept") < 5
    assert "endpoint delay: records of calls are kept again" in said
    rows = CallLog(store).read("delay")
    assert set(kept) <= set(rows["call"])
    gaps = skipped(folder)
    answered, refusals = sum(gap.answered for gap in gaps), sum(gap.refused for gap in gaps)
    assert (answered >= missing, refusals >= missing) == ((policy == "answer"), (policy == "stop"))


def skipped(folder: Path) -> list[record.Skipped]:
    """What the log says of calls without an entry."""
    found = []
    for name in segments.list_segments(folder / "calls"):
        for payload in segments.read(name.path(folder / "calls"))[0]:
            entry = record.decode_entry(record.decode_frame(payload).metadata)
            if isinstance(entry, record.Skipped):
                found.append(entry)
    return found


def test_a_disk_that_takes_nothing_ends_no_process_and_stops_no_change(store: Store) -> None:
    """The root and the gateway cannot write down what they say: answers and routes change all the same, and it is told after."""
    folder = store.folder
    fakes.route(folder, [fakes.version(folder, 1)])
    with start(folder) as server, httpx2.Client(timeout=30) as client:
        acknowledged(folder, 1)
        (gateway,) = children(server.pid, "instar.serve.gateway.gateway")
        conditions, (boot,) = condition.read(folder), alive_boots(folder / "calls")
        (said,) = routes.serve_folder(folder).rglob(f"*{boot}*.json")
        # A folder where each of them makes its new file: the system refuses, as a full disk does.
        blocks = [
            routes.serve_folder(folder) / f".conditions.json.{server.pid}",
            said.with_name(f".{said.name}.{gateway}"),
        ]
        for block in blocks:
            block.mkdir()
        given = [fakes.version(folder, 1), fakes.version(folder, 2, bias=0.5, native=True)]
        number = fakes.route(folder, given, champion=2)

        def answering() -> str:
            found: str = client.post(f"{server.url}/v2/models/delay/infer", content=BODY).json()["model_version"]
            return found

        wait_for(lambda: answering() == "2")
        for words in ("cannot be written down", "not acknowledged"):
            wait_for(lambda words=words: words in server.log.read_text())
        assert answering() == "2"
        assert children(server.pid, "instar.serve.gateway.gateway") == [gateway]
        ack = routes.read_ack(folder, boot)
        assert ack is not None
        assert ack.number < number
        for block in blocks:
            block.rmdir()
        acknowledged(folder, number)
        wait_for(lambda: condition.read(folder) != conditions)
