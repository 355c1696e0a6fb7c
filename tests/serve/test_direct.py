"""HTTP on one connection, letter by letter: what waits for what, where a request ends, and what nobody may read in two ways."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from instar.serve.root.process import ServerTree
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start
from tests.serve.raw import BODY, URL, answers, connect, distance, request, to_the_end

SLOW = "/v2/models/delay/versions/2/infer"  # 50 ms a call
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
AWAY = b"GET /console HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"  # of the control process, which is not there
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTree]:
    folder = tmp_path_factory.mktemp("direct") / ".instar"
    number = fakes.route(folder, [fakes.version(folder, 1), fakes.version(folder, 2, quirk="slow")])
    patient = {"INSTAR_QUEUE_TIMEOUT": "600"}  # a machine that is busy turns nobody away here
    with start(folder, environment=patient) as running:
        acknowledged(folder, number)
        yield running
        assert "ASGI" not in running.log.read_text()  # what uvicorn says of an application that broke its word


@pytest.fixture
def raw(server: ServerTree) -> Iterator[socket.socket]:
    with connect(server) as raw:
        yield raw


def expecting(path: str = URL, version: str = "1.1") -> bytes:
    return request(b"", f"Content-Length: {len(BODY)}", "Expect: 100-continue", path=path, version=version)


def test_answers_leave_in_the_order_of_requests_whoever_gives_them(raw: socket.socket) -> None:
    numbered = [request(json.dumps(fakes.body(float(n))).encode(), path=SLOW if n % 3 else URL) for n in range(6)]
    raw.sendall(b"".join([numbered[0], LIVE, numbered[1], AWAY, numbered[2], numbered[3], LIVE, LIVE, *numbered[4:]]))
    found = answers(raw, 10)
    assert [status for status, _ in found] == [200, 200, 200, 503, 200, 200, 200, 200, 200, 200]
    assert [place for place, (_, body) in enumerate(found) if body == b'{"live":true}'] == [1, 6, 7]
    assert [distance(found[place][1]) for place in (0, 2, 4, 5, 8, 9)] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_however_much_is_sent_at_once_it_is_answered(raw: socket.socket) -> None:
    raw.sendall((request(path=SLOW) + LIVE + request() * 50 + AWAY) * 5)
    found = answers(raw, 53 * 5)
    assert [status for status, _ in found] == ([200] * 52 + [503]) * 5


def test_a_client_that_leaves_while_an_answer_waits_for_another_hurts_nobody(server: ServerTree) -> None:
    for _ in range(3):
        with connect(server) as raw:
            raw.sendall(request(path=SLOW) + LIVE + AWAY + request() + LIVE)
    with connect(server) as raw:
        raw.sendall(request(path=SLOW))
        assert [status for status, _ in answers(raw, 1)] == [200]


@pytest.mark.parametrize(
    "first", [request(), request(path=SLOW), LIVE, AWAY], ids=["known", "slow", "uvicorn", "relayed"]
)
def test_who_asks_before_sending_hears_so_when_all_before_it_is_answered(raw: socket.socket, first: bytes) -> None:
    raw.sendall(first + expecting())
    found = b""
    while not found.endswith(GO_ON):
        part = raw.recv(65536)
        assert part, found
        found += part
    assert found.count(b"HTTP/1.1 ") == 2  # an answer, and the word to go on behind it
    raw.sendall(BODY + request())
    assert [status for status, _ in answers(raw, 2)] == [200, 200]


def test_who_asks_and_sends_all_the_same_is_answered_once(raw: socket.socket) -> None:
    raw.sendall(request(path=SLOW) + expecting() + BODY + LIVE)
    assert [status for status, _ in answers(raw, 3)] == [200, 200, 200]


def test_who_asks_for_what_is_not_there_need_not_send_it(raw: socket.socket) -> None:
    raw.sendall(expecting("/v2/models/nothing/infer"))
    assert to_the_end(raw).startswith(b"HTTP/1.1 404 ")


def test_http_1_0_knows_no_word_to_go_on(raw: socket.socket) -> None:
    raw.sendall(expecting(version="1.0"))
    time.sleep(0.05)
    raw.sendall(BODY)
    assert to_the_end(raw).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("first", [request(BODY, "Connection: close"), request(version="1.0")], ids=["close", "1.0"])
@pytest.mark.parametrize("kind", ["prediction", "other"])
def test_nothing_behind_the_last_request_is_answered(raw: socket.socket, first: bytes, kind: str) -> None:
    if kind == "other":
        first = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    raw.sendall(first + request() + LIVE)
    found = to_the_end(raw)
    assert found.startswith(b"HTTP/1.1 200 ")
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in found


def test_nonsense_behind_requests_is_told_after_their_answers(raw: socket.socket) -> None:
    raw.sendall(request(path=SLOW) + LIVE + request() + b"nonsense\r\n\r\n")
    found = to_the_end(raw)
    assert [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]] == [200, 200, 200, 400]


def test_a_client_that_says_it_is_done_gets_the_answers_before_its_last_prediction(raw: socket.socket) -> None:
    raw.sendall(request(path=SLOW) + AWAY + request())
    raw.shutdown(socket.SHUT_WR)
    assert [int(part[:3]) for part in to_the_end(raw).split(b"HTTP/1.1 ")[1:]] == [200, 503, 200]


def test_a_client_that_is_done_in_the_middle_of_a_request_gets_what_it_asked_before(raw: socket.socket) -> None:
    raw.sendall(request(path=SLOW) + request()[:-3])
    raw.shutdown(socket.SHUT_WR)
    assert to_the_end(raw).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", [URL, "/endpoints/delay/invocations"])
def test_other_methods_are_told_which_one_is_meant(raw: socket.socket, method: str, path: str) -> None:
    raw.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    head, _, body = to_the_end(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"allow: POST" in head
    assert bool(body) is (method != "HEAD")


@pytest.mark.parametrize("start", ["http://127.0.0.1", "HTTPS://other.example:8443"])
def test_a_target_may_be_absolute(raw: socket.socket, start: str) -> None:
    raw.sendall(request(path=f"{start}{URL}?a=b") + request())
    assert [status for status, _ in answers(raw, 2)] == [200, 200]


def test_targets_that_are_none_are_refused(server: ServerTree) -> None:
    for target in ("*", "127.0.0.1:80", "v2/models/delay/infer", "http://"):
        with connect(server) as raw:
            raw.sendall(request(BODY, "Connection: close", path=target))
            assert int(to_the_end(raw)[9:12]) in (400, 404, 503), target  # 503: it is the control process's to refuse


# Requests that one reader would end here and another there, each with a request in what may be its body.
TWO_READINGS = {
    "one length twice": [f"Content-Length: {len(BODY)}"] * 2,
    "lengths in a list": [f"Content-Length: {len(BODY)}, {len(BODY)}"],
    "a signed length": [f"Content-Length: +{len(BODY)}"],
    "a length in other digits": [f"Content-Length: 0x{len(BODY):x}"],
    "a length with a space": [f"Content-Length: {len(BODY)} 1"],
    "chunks and a length": ["Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}"],
    "a length and chunks": [f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"],
    "chunks that are not last": ["Transfer-Encoding: chunked, identity"],
    "a coding that is none": ["Transfer-Encoding: xchunked"],
    "a space before the colon": ["Transfer-Encoding : chunked"],
    "a folded header": ["Transfer-Encoding:\r\n chunked"],
    "a letter that ends lines": ["X: a\rTransfer-Encoding: chunked", f"Content-Length: {len(BODY)}"],
}


@pytest.mark.parametrize("fields", TWO_READINGS.values(), ids=TWO_READINGS)
def test_a_request_of_two_readings_is_refused_and_nothing_behind_it_is_read(
    raw: socket.socket, fields: list[str]
) -> None:
    lines = [f"POST {URL} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *fields]
    raw.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + BODY + request() + LIVE)
    raw.shutdown(socket.SHUT_WR)
    found = to_the_end(raw)
    assert [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]] == [400]
