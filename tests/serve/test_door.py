"""Connections of clients that track runs belong to the control process; the others stay at the gateway."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from instar.serve.gateway.door import is_tracking
from instar.serve.root.process import ServerTree
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for

HOST = b"Host: 127.0.0.1\r\n"
TRACKING = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=none"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    """A server with its control process, and the endpoint `delay`."""
    folder = tmp_path_factory.mktemp("door") / ".instar"
    with start(folder, control=True) as running:
        # Afterwards: the control process publishes what the store knows, and this store knows no endpoint.
        acknowledged(folder, fakes.route(folder, [fakes.version(folder, 1, bias=0.1)], champion=1))
        yield running


def process_of(server: ServerTree, module: str) -> int:
    """The child of a server that runs a module."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.pid and module.encode() in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise AssertionError(f"no child runs {module}")


def holders(server: ServerTree, raw: socket.socket) -> list[str]:
    """Which processes of a server hold the other end of a connection; each must send at once (no Nagle)."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    for module in ("instar.serve.gateway.gateway", "instar.interfaces.control"):
        pid = process_of(server, module)
        handle = os.pidfd_open(pid)
        for name in os.listdir(f"/proc/{pid}/fd"):
            borrowed = libc.syscall(438, handle, int(name), 0)  # pidfd_getfd
            if borrowed < 0:
                continue  # closed meanwhile
            if not os.readlink(f"/proc/self/fd/{borrowed}").startswith("socket:"):
                os.close(borrowed)
                continue
            with socket.socket(fileno=borrowed) as one, contextlib.suppress(OSError):
                if one.family == socket.AF_INET and one.getpeername() == raw.getsockname():
                    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                    found.append(module)
        os.close(handle)
    return found


def ask(raw: socket.socket, path: str) -> bytes:
    """One request on an open connection; the whole answer."""
    raw.sendall(f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = raw.recv(65536)
        assert part, answer
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length")))
    while len(body) < length:
        body += raw.recv(65536)
    return head + b"\r\n\r\n" + body


def connect(server: ServerTree) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        (b"GET /api/2.0/mlflow/runs/get HTTP/1.1\r\n", True),
        (b"POST /projects/p/api/2.0/mlflow/runs/create HTTP/1.1\r\n", True),
        (b"PUT /api/2.0/mlflow-artifacts/artifacts/a HTTP/1.1\r\n", True),
        (b"POST /v2/models/delay/infer HTTP/1.1\r\nx: /mlflow\r\n", False),
        (b"GET /api/projects HTTP/1.1\r\n", False),
        (b"GET /api/2.0/ml", False),
        (b"\x16\x03\x01 /mlflow", False),
        (b"", False),
    ],
)
def test_a_connection_is_known_by_its_first_words(seen: bytes, answer: bool) -> None:
    assert is_tracking(seen) is answer


def test_connections_that_track_belong_to_the_control_process(whole: ServerTree) -> None:
    with connect(whole) as raw:
        assert b"RESOURCE_DOES_NOT_EXIST" in ask(raw, TRACKING)
        assert holders(whole, raw) == ["instar.interfaces.control"]
        assert b"RESOURCE_DOES_NOT_EXIST" in ask(raw, TRACKING)


def test_all_others_stay_at_the_gateway_also_when_they_come_word_by_word(whole: ServerTree) -> None:
    with connect(whole) as raw:
        assert ask(raw, "/api/projects").startswith(b"HTTP/1.1 200")
        assert holders(whole, raw) == ["instar.serve.gateway.gateway"]
        assert b"RESOURCE_DOES_NOT_EXIST" in ask(raw, TRACKING)  # relayed
    with connect(whole) as raw:
        raw.sendall(b"GE")
        wait_for(lambda: holders(whole, raw) == ["instar.serve.gateway.gateway"])
        raw.sendall(b"T " + TRACKING.encode() + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b"404" in raw.recv(1000)


def test_predictions_on_a_connection_that_tracks_are_answered_and_on_the_record(whole: ServerTree) -> None:
    with httpx2.Client(base_url=whole.url, timeout=30) as client:
        assert client.get(TRACKING).status_code == 404
        reply = client.post("/v2/models/delay/infer", json=fakes.body(1500))
        assert (reply.status_code, reply.json()["model_version"]) == (200, "1")
        assert reply.headers["instar-call"].startswith("call_")
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert b"instar_calls_total" in client.get("/metrics").content


def test_who_connects_and_says_nothing_costs_nothing(whole: ServerTree) -> None:
    silent = [connect(whole) for _ in range(50)]
    assert httpx2.get(f"{whole.url}/v2/health/live").status_code == 200
    for one in silent:
        one.close()
    assert httpx2.get(f"{whole.url}/v2/health/live").status_code == 200


def test_a_control_process_that_is_replaced_takes_connections_again(whole: ServerTree) -> None:
    first = process_of(whole, "instar.interfaces.control")
    with connect(whole) as raw:
        ask(raw, TRACKING)
        os.kill(first, signal.SIGKILL)
        assert raw.recv(1000) == b""  # what it held ends with it
    statuses = set()

    def again() -> bool:
        statuses.add(reply := httpx2.get(whole.url + TRACKING, timeout=30).status_code)
        return reply == 404

    wait_for(again)
    assert statuses <= {404, 503}
    with connect(whole) as raw:
        ask(raw, TRACKING)
        assert holders(whole, raw) == ["instar.interfaces.control"]


def test_a_gateway_that_may_open_no_more_files_goes_on_when_some_are_closed(tmp_path: Path) -> None:
    with start(tmp_path / ".instar") as tree:
        gateway = process_of(tree, "instar.serve.gateway.gateway")
        open_now = len(os.listdir(f"/proc/{gateway}/fd"))
        resource.prlimit(gateway, resource.RLIMIT_NOFILE, (open_now + 10, open_now + 10))
        crowd = [connect(tree) for _ in range(40)]
        wait_for(lambda: "no more connections" in tree.log.read_text())
        for one in crowd:
            one.close()
        with connect(tree) as raw:
            assert ask(raw, "/v2/health/live").startswith(b"HTTP/1.1 200")


def test_the_end_of_a_server_lets_calls_finish(tmp_path: Path) -> None:
    with start(tmp_path / ".instar", control=True) as tree, connect(tree) as raw:
        ask(raw, TRACKING)
        tree.stop()
        assert raw.recv(1000) == b""
