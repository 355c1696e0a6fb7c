"""What is not inference reaches the control process as it was sent, and its answers come back as they were given."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from instar.serve.root.process import ServerTree
from instar.serve.traffic.routes import control_socket, make_run_folder
from tests.serve.conftest import start, wait_for
from tests.serve.played import HOST, OK, Played, always, ask, read_all, read_head


async def control(scope: Any, receive: Any, send: Any) -> None:
    """Says what it received; sends a stream in parts when asked for one."""
    if scope["type"] != "http":
        return
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    place = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}"
    said = f"{scope['method']} {place} {size} {headers.get('x-mine')} {headers['host']}"
    fields = [(b"x-said", said.encode()), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    status = 418 if scope["path"] == "/teapot" else 200
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for _ in range(5 if scope["path"] == "/stream" else 0):
        await send({"type": "http.response.body", "body": b"p" * 1000, "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("relay") / ".instar"
    with start(folder) as tree:
        path = control_socket(make_run_folder(folder).parents[1])
        config = uvicorn.Config(control, uds=str(path), log_level="error", lifespan="off", server_header=False)
        behind = uvicorn.Server(config)
        thread = threading.Thread(target=behind.run, daemon=True)
        thread.start()
        wait_for(lambda: behind.started)
        yield tree
        behind.should_exit = True
        thread.join(10)
        Path(path).unlink(missing_ok=True)


def test_method_path_query_headers_and_body_reach_it(server: ServerTree) -> None:
    reply = httpx2.put(f"{server.url}/api/a%20b/%2F?x=1&y=%26", content=b"12345", headers={"x-mine": "yes"}, timeout=30)
    host = server.url.removeprefix("http://")
    assert reply.headers["x-said"] == f"PUT /api/a%20b/%2F?x=1&y=%26 5 yes {host}"
    assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert reply.content == b"end"


def test_statuses_and_empty_bodies_pass(server: ServerTree) -> None:
    assert httpx2.get(f"{server.url}/teapot", timeout=30).status_code == 418
    assert httpx2.head(f"{server.url}/", timeout=30).headers["x-said"].startswith("HEAD /? 0")


def test_bodies_stream_both_ways(server: ServerTree) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    with httpx2.stream("POST", f"{server.url}/stream", content=parts(), timeout=30) as reply:
        sizes = [len(part) for part in reply.iter_raw()]
    assert " 20000000 " in reply.headers["x-said"]
    assert sum(sizes) == 5003
    assert len(sizes) > 2


# What follows speaks to the gateway through a control process that is played line by line.


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    """A server whose control process each test plays itself."""
    with start(tmp_path_factory.mktemp("played") / ".instar") as tree:
        yield tree


def test_lines_are_kept_alive_and_used_again(alone: ServerTree) -> None:
    with Played(alone, always(OK)) as played, httpx2.Client(base_url=alone.url) as client:
        assert {client.get("/api/x").text for _ in range(20)} == {"ok"}
        assert played.accepted == 1


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\netag: a\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\netag: a\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: a\r\n\r\n", 304),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\netag: a\r\n\r\n", 201),
        ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\netag: a\r\n\r\n0\r\n\r\n", 200),
    ],
)
def test_answers_without_a_body_leave_the_line_clean(
    alone: ServerTree, method: str, answer: bytes, status: int
) -> None:
    with Played(alone, always(answer)) as played, httpx2.Client(base_url=alone.url) as client:
        for _ in range(3):
            reply = client.request(method, "/api/x", content=b"12345" if method == "POST" else None)
            assert (reply.status_code, reply.content, reply.headers["etag"]) == (status, b"", "a")
        assert played.accepted == 1


def test_an_answer_that_ends_with_its_connection_is_whole(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it")

    with Played(alone, part):
        assert httpx2.get(f"{alone.url}/api/x").text == "all of it"


def test_chunks_come_in_and_go_out_as_chunks(alone: ServerTree) -> None:
    heard: list[bytes] = []

    def part(connection: socket.socket) -> None:
        head = read_head(connection)
        heard.append(head)
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(1000)
        heard.append(body)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        connection.sendall(b"2;x=y\r\nde\r\n0\r\n\r\n")

    with Played(alone, part):
        reply = httpx2.post(f"{alone.url}/api/x", content=iter([b"first", b"second"]))
    assert reply.content == b"abcde"
    assert b"transfer-encoding: chunked" in heard[0]
    assert b"content-length" not in heard[0]
    assert b"first" in heard[1]


def test_an_answer_before_the_end_of_the_body_reaches_the_caller(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!")
        read_all(connection)

    with Played(alone, part) as played:
        head = b"PUT /api/x HTTP/1.1\r\n" + HOST + b"Content-Length: 10000000\r\n\r\n"
        with ask(alone, head + b"x" * 100_000) as raw:
            answer = b""
            while not answer.endswith(b"no!"):
                answer += raw.recv(1000)
            assert answer.startswith(b"HTTP/1.1 413")
            # What is left of the body goes nowhere, and the connection serves the next request.
            raw.sendall(b"x" * 9_900_000)
            played.part = always(OK)
            raw.sendall(b"GET /api/y HTTP/1.1\r\n" + HOST + b"\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                answer += raw.recv(1000)
        assert played.accepted == 2


def test_who_expects_to_be_asked_is_asked_by_the_control_process(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        head = read_head(connection)
        assert b"expect: 100-continue" in head
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = connection.recv(5)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + body)

    with (
        Played(alone, part),
        ask(alone, b"PUT /api/x HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") as raw,
    ):
        assert read_head(raw) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"12345")
        assert read_head(raw).startswith(b"HTTP/1.1 200")
        assert raw.recv(5) == b"12345"


def test_who_expects_to_be_asked_and_is_refused_need_not_send(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        read_all(connection)

    with (
        Played(alone, part),
        ask(alone, b"PUT /api/x HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n") as raw,
    ):
        answer = read_all(raw)  # the connection ends: nobody knows whether the body would still come
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"100 Continue" not in answer


def test_a_caller_that_leaves_in_the_middle_of_its_body_breaks_the_line(alone: ServerTree) -> None:
    begun, over = threading.Event(), threading.Event()
    got: list[bytes] = []

    def part(connection: socket.socket) -> None:
        read_head(connection)
        got.append(connection.recv(10, socket.MSG_WAITALL))
        begun.set()
        got.append(read_all(connection))
        over.set()

    with Played(alone, part):
        raw = ask(alone, b"PUT /api/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        assert begun.wait(20)
        raw.close()
        assert over.wait(20)
    assert got == [b"5\r\nabcde\r\n", b""]  # no last chunk: half a body must not look like a whole one


def test_a_caller_that_leaves_while_it_waits_is_noticed(alone: ServerTree) -> None:
    over, asked = threading.Event(), threading.Event()

    def part(connection: socket.socket) -> None:
        read_head(connection)
        asked.set()
        read_all(connection)
        over.set()

    with Played(alone, part):
        raw = ask(alone, b"GET /api/slow HTTP/1.1\r\n" + HOST + b"\r\n")
        assert asked.wait(20)
        raw.close()
        assert over.wait(20)


def test_a_line_that_died_while_it_rested_is_replaced(alone: ServerTree) -> None:
    def once(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(OK)
        read_head(connection)  # the next request is taken, and never answered

    with Played(alone, once) as played, httpx2.Client(base_url=alone.url) as client:
        assert client.get("/api/x").text == "ok"
        assert client.get("/api/x").text == "ok"
        assert played.accepted == 2


def test_what_may_have_been_done_is_not_sent_again(alone: ServerTree) -> None:
    def once(connection: socket.socket) -> None:
        head = read_head(connection)
        connection.recv(5) if head.startswith(b"POST") else None
        if head.startswith(b"GET"):
            connection.sendall(OK)
            read_head(connection)

    with Played(alone, once) as played, httpx2.Client(base_url=alone.url) as client:
        assert client.get("/api/x").text == "ok"
        reply = client.post("/api/x", content=b"12345")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert played.accepted == 1


def test_an_answer_that_breaks_off_breaks_the_callers_connection(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    with Played(alone, part), pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{alone.url}/api/x")


def test_what_is_no_http_is_a_fault_of_the_control_process(alone: ServerTree) -> None:
    def part(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    with Played(alone, part):
        assert httpx2.get(f"{alone.url}/api/x").status_code == 503


def test_without_a_control_process_clients_of_mlflow_are_told_in_their_words(alone: ServerTree) -> None:
    reply = httpx2.get(f"{alone.url}/api/2.0/mlflow/experiments/search")
    assert reply.status_code == 503
    assert reply.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert "does not answer" in reply.json()["message"]
