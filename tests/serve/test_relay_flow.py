"""Many callers and slow ones: what the gateway relays waits, or holds the sender back, and predictions go on beside it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from instar.serve.root.process import ServerTree
from tests.serve.conftest import start, wait_for
from tests.serve.played import HOST, OK, Played, ask, read_all, read_head


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    """A server whose control process each test plays itself."""
    with start(tmp_path_factory.mktemp("played") / ".instar") as tree:
        yield tree


def test_more_requests_than_lines_wait_for_their_turn(alone: ServerTree) -> None:
    let_go = threading.Event()

    def part(connection: socket.socket) -> None:
        while True:
            read_head(connection)
            let_go.wait(20)
            connection.sendall(OK)

    with Played(alone, part) as played:
        callers = [ask(alone, b"GET /api/x HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n") for _ in range(100)]
        wait_for(lambda: played.accepted == 64)
        let_go.set()
        assert all(read_all(caller).endswith(b"ok") for caller in callers)
        assert played.accepted == 64
        for caller in callers:
            caller.close()


def test_a_slow_reader_holds_the_sender_back(alone: ServerTree) -> None:
    sent = 0

    def part(connection: socket.socket) -> None:
        nonlocal sent
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        connection.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += connection.send(b"x" * 100_000)

    with Played(alone, part), ask(alone, b"GET /api/x HTTP/1.1\r\n" + HOST + b"\r\n") as raw:
        raw.recv(1000)
        wait_for(lambda: sent > 0)
        time.sleep(0.3)
        held = sent
    assert held < 50_000_000  # what sockets hold, and no more


def test_a_slow_control_process_holds_the_caller_back(alone: ServerTree) -> None:
    over = threading.Event()

    def part(connection: socket.socket) -> None:
        read_head(connection)
        over.wait(20)

    with Played(alone, part):
        head = b"PUT /api/x HTTP/1.1\r\n" + HOST + b"Content-Length: 100000000\r\n\r\n"
        with ask(alone, head) as raw:
            raw.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 100_000_000:
                    sent += raw.send(b"x" * 100_000)
        over.set()
    assert sent < 50_000_000


def test_predictions_go_on_beside_an_upload(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        read_head(connection)
        while connection.recv(1_000_000):
            pass

    with Played(alone, part):
        raw = ask(alone, b"PUT /api/x HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000000\r\n\r\n")
        stop = threading.Event()

        def upload() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    raw.sendall(b"x" * 1_000_000)

        sender = threading.Thread(target=upload)
        sender.start()
        with httpx2.Client(base_url=alone.url) as client:
            assert all(client.get("/v2/health/live").status_code == 200 for _ in range(50))
        stop.set()
        raw.close()
        sender.join()


def test_every_socket_sends_at_once(alone: ServerTree) -> None:
    """Nagle's algorithm is off on what the gateway accepted, asked of the kernel by the gateway's own descriptor."""
    with ask(alone, b"GET /v2/health/live HTTP/1.1\r\n" + HOST + b"\r\n") as raw:
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        accepted = accepted_socket(alone, raw)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        accepted.close()


def accepted_socket(server: ServerTree, raw: socket.socket) -> socket.socket:
    """The other end of a connection, borrowed from the process of the server that accepted it."""
    libc = ctypes.CDLL(None, use_errno=True)
    for process in Path("/proc").glob("[0-9]*"):
        status = process / "stat"
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) != server.pid:
                continue
            handle = os.pidfd_open(int(process.name))
            for name in os.listdir(process / "fd"):
                borrowed = libc.syscall(438, handle, int(name), 0)  # pidfd_getfd
                if borrowed < 0:
                    raise OSError(ctypes.get_errno(), "pidfd_getfd")
                if os.readlink(f"/proc/self/fd/{borrowed}").startswith("socket:"):
                    found = socket.socket(fileno=borrowed)
                    with contextlib.suppress(OSError):
                        if found.family == socket.AF_INET and found.getpeername() == raw.getsockname():
                            os.close(handle)
                            return found
                    found.close()
                else:
                    os.close(borrowed)
            os.close(handle)
    raise AssertionError("no process of the server has the other end")
