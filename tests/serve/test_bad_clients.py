"""Clients that are slow, lie, or send nonsense: each is told so or hung up on, and the next caller is answered."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest

from instar.serve.root.process import ServerTree
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.raw import BODY, URL, answers, connect, distance, request, to_the_end


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("bad") / ".instar"
    number = fakes.route(folder, [fakes.version(folder, 1), fakes.version(folder, 2, quirk="slow")])
    limits = {"INSTAR_HEAD_TIMEOUT": "0.2", "INSTAR_BODY_TIMEOUT": "0.2", "INSTAR_MOST_CONNECTIONS": "40"}
    with start(folder, environment=limits) as running:
        acknowledged(folder, number)
        yield running


@pytest.fixture(autouse=True)
def others_are_answered(server: ServerTree) -> Iterator[None]:
    yield
    wait_for(lambda: httpx2.post(server.url + URL, content=BODY, timeout=30).status_code == 200)


@pytest.fixture
def raw(server: ServerTree) -> Iterator[socket.socket]:
    with connect(server) as raw:
        yield raw


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"P",
        b"POST " + URL.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        request()[:-5],
        request(b"4\r\nabcd\r\n", "Transfer-Encoding: chunked"),
        b"GET /v2/health/live HTTP/1.1\r\nHost: 127",
    ],
    ids=["nothing", "a letter", "half a head", "half a body", "half of its chunks", "half a head of another path"],
)
def test_who_takes_too_long_is_hung_up_on(raw: socket.socket, sent: bytes) -> None:
    raw.sendall(sent)
    found = to_the_end(raw)
    assert found.startswith(b"HTTP/1.1 408 ") if sent else not found


def test_a_letter_now_and_then_does_not_keep_a_connection(raw: socket.socket) -> None:
    raw.settimeout(0.05)
    found = b""
    for letter in request(b"{}", "X: " + "x" * 1000):
        try:
            raw.sendall(bytes([letter]))
            found += raw.recv(1000)
        except TimeoutError:
            continue
        except OSError:
            break
        if found:
            break
    assert found.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(BODY, "X: " + "x" * 100_000), 431),
        (b"POST " + URL.encode() + b" HTTP/1.1\r\nX: " + b"x" * 1_000_000, 431),
        (request(BODY, *[f"X{n}: y" for n in range(300)]), 431),
        (request(BODY, path="/" + "a" * 20_000), 414),
        (b"POST /" + b"a" * 1_000_000, 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (request(BODY, "Content-Length: -5"), 400),
        (request(BODY, "Content-Length: 5", "Content-Length: 6"), 400),
        (request(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
        (request(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 2"), 400),
        (request(b"", "Content-Length: 1000000000"), 413),
    ],
    ids=[
        "a huge header", "a header without end", "many headers", "a long target", "a target without end", "another protocol",
        "nonsense", "a negative length", "two lengths", "a bad chunk", "length and chunks", "a body of 1 GB",
    ],
)  # fmt: skip
def test_what_is_too_much_or_nonsense_is_refused_and_said(raw: socket.socket, sent: bytes, status: int) -> None:
    raw.sendall(sent)
    found = to_the_end(raw)
    assert found.startswith(b"HTTP/1.1 %d " % status), found[:200]
    assert b"connection: close" in found.lower()
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]


def test_a_client_that_goes_on_sending_hears_the_refusal(raw: socket.socket) -> None:
    raw.sendall(request(b"", "Content-Length: 1000000000"))
    try:
        for _ in range(100):
            raw.sendall(b"x" * 1_000_000)
    except OSError:
        pass
    assert to_the_end(raw).startswith(b"HTTP/1.1 413 ")


def test_what_is_behind_a_length_that_lies_is_not_taken_for_the_body(raw: socket.socket) -> None:
    raw.sendall(request(BODY, f"Content-Length: {len(BODY) - 3}"))
    found = to_the_end(raw)
    assert found.startswith(b"HTTP/1.1 400 ")  # of the body that is cut; what is left of it is no request
    assert found.count(b"HTTP/1.1 400 ") == 2


def test_requests_sent_at_once_are_answered_in_order(raw: socket.socket) -> None:
    asked = [float(n) for n in range(200)]
    raw.sendall(b"".join(request(json.dumps(fakes.body(n)).encode()) for n in asked))
    found = answers(raw, len(asked))
    assert [status for status, _ in found] == [200] * len(asked)
    assert [distance(body) for _, body in found] == asked


def test_kinds_of_requests_may_mix_on_a_connection(raw: socket.socket) -> None:
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"
    raw.sendall(request() + live + request(chunked, "Transfer-Encoding: chunked") + live + live + request() + request())
    found = answers(raw, 7)
    assert [status for status, _ in found] == [200] * 7
    assert [body == b'{"live":true}' for _, body in found] == [False, True, False, True, True, False, False]


def test_a_request_may_come_in_any_pieces(raw: socket.socket) -> None:
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole = request() * 3
    for cut in (1, len(request()) - len(BODY) - 2, len(request()) - len(BODY), len(request()) - 1, len(request()) + 1):
        raw.sendall(whole[:cut])
        time.sleep(0.005)
        raw.sendall(whole[cut:])
        assert [status for status, _ in answers(raw, 3)] == [200] * 3


def test_bytes_that_look_like_a_request_inside_a_body_are_none(raw: socket.socket) -> None:
    raw.sendall(request())
    assert [status for status, _ in answers(raw, 1)] == [200]  # its head is known now
    inner = request()
    raw.sendall(request(b"", f"Content-Length: {len(inner)}"))
    time.sleep(0.02)
    raw.sendall(inner)
    ((status, body),) = answers(raw, 1)
    assert (status, json.loads(body)["kind"]) == (400, "MalformedRequest")


def test_a_client_that_says_it_is_done_still_gets_its_answers(raw: socket.socket) -> None:
    raw.sendall(request() * 5)
    raw.shutdown(socket.SHUT_WR)
    assert to_the_end(raw).count(b"HTTP/1.1 200 ") == 5


def test_one_that_asks_to_close_or_speaks_http_1_0_is_hung_up_on_after_the_answer(server: ServerTree) -> None:
    for sent in (request(BODY, "Connection: close"), request(version="1.0")):
        with connect(server) as raw:
            raw.sendall(sent)
            found = to_the_end(raw)
            assert found.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in found


def test_who_asks_before_sending_is_told_to_go_on(raw: socket.socket) -> None:
    raw.sendall(request(b"", f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
    assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.sendall(BODY)
    assert [status for status, _ in answers(raw, 1)] == [200]


def test_connections_are_bounded(server: ServerTree) -> None:
    crowd = [connect(server) for _ in range(60)]
    told = []
    for one in crowd:
        one.settimeout(0.01)
        try:
            told.append(one.recv(100))
        except TimeoutError:
            continue
        except ConnectionResetError:
            told.append(b"")
    for one in crowd:
        one.close()
    assert len(told) >= 20
    assert any(part.startswith(b"HTTP/1.1 503 ") for part in told)


@pytest.mark.parametrize(
    ("timeout", "status"), [("1us", 400), ("soon", 400), ("0", 400), ("1e9", 400), ("30s", 200), ("5000ms", 200)]
)
def test_a_callers_time_is_read(server: ServerTree, timeout: str, status: int) -> None:
    reply = httpx2.post(server.url + URL, content=BODY, headers={"Instar-Timeout": timeout}, timeout=30)
    assert reply.status_code == status


def test_a_call_that_is_not_answered_in_its_time_is_refused_and_on_the_record(server: ServerTree) -> None:
    url = server.url + "/v2/models/delay/versions/2/infer"  # takes 50 ms a call
    reply = httpx2.post(url, content=BODY, headers={"Instar-Timeout": "5ms"}, timeout=30)
    assert (reply.status_code, reply.json()["kind"]) == (504, "DeadlineExceeded")
    assert reply.headers["instar-call"]
