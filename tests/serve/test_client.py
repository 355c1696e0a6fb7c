from __future__ import annotations

import json
import socket
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from instar.core.errors import BadInput, NotAllowed, NotFound, Unavailable
from instar.serve.clients.client import Ask, InferClient
from instar.serve.clients.refusal import refused
from instar.serve.root.process import ServerTree

ROW = {"distance": 1000.0, "hour": 8, "carrier": "UA", "wind": None, "holiday": False}
INPUTS = {"distance": "FP64", "carrier": "BYTES"}


def test_it_asks_the_server_for_the_columns_and_sends_no_others(server: ServerTree) -> None:
    with InferClient(server.url, "delay") as client:
        assert list(client.inputs) == list(ROW)
        answer = client.infer(
            Ask({**ROW, "flight_id": "not an input"}, datetime(2013, 3, 1, tzinfo=UTC), "key", "UA 17")
        )
        assert (answer.status, answer.version, answer.score, answer.decision) == (200, 1, 0.2, 0)
        assert answer.prediction == f"{answer.call}/0"
        assert client.infer_all([]) == []


def test_a_refusal_is_an_answer(server: ServerTree) -> None:
    with InferClient(server.url, "delay") as client:
        bad, good = client.infer_all([Ask({"distance": 1.0}), Ask(ROW)])
        assert (bad.status, bad.score, good.status) == (400, None, 200)
        assert "hour" in (bad.error or "")
        assert bad.call


def test_an_endpoint_or_a_server_that_is_not_there(server: ServerTree) -> None:
    with pytest.raises(NotFound, match="unknown"):
        InferClient(server.url, "unknown")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(Unavailable, match="instar up"):
            InferClient(url, "delay")
    with pytest.raises(BadInput):
        InferClient("ftp://host", "delay")


@pytest.mark.parametrize(
    "ask",
    [Ask(ROW, event_time=datetime(2013, 3, 1)), Ask(ROW, key="a\r\nInstar-Call: b"), Ask(ROW, key="ü")],
    ids=["naive time", "line break", "no ASCII"],
)
def test_what_cannot_be_sent_is_the_callers_error(server: ServerTree, ask: Ask) -> None:
    with InferClient(server.url, "delay") as client, pytest.raises(BadInput):
        client.infer_all([ask])


def test_a_request_is_well_formed() -> None:
    client = InferClient("http://127.0.0.1:1", "delay", inputs=INPUTS)
    moment = datetime(2013, 3, 1, 8, tzinfo=timezone(timedelta(hours=-5)))
    data = client.encode(Ask({"distance": float("nan"), "carrier": 'U"A'}, moment, "k 1", "E1", "tver_1", "r"))
    client.close()
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"\r\nInstar-Event-Time: 2013-03-01T08:00:00-05:00\r\nInstar-Key: k 1" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {
        "inputs": [
            {"name": "distance", "shape": [1], "datatype": "FP64", "data": [None]},
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ['U"A']},
        ],
        "id": "r",
        "parameters": {"entity": "E1", "table_version": "tver_1"},
    }


def test_the_first_column_may_be_left_out() -> None:
    client = InferClient("http://127.0.0.1:1", "delay", inputs=INPUTS)
    data = client.encode(Ask({"carrier": "UA"}))
    client.close()
    assert [tensor["name"] for tensor in json.loads(data.partition(b"\r\n\r\n")[2])["inputs"]] == ["carrier"]


def test_a_connection_that_breaks_loses_its_own_call_only() -> None:
    """A server that hangs up on every third request: each call has an answer, broken ones say so."""
    count = 0

    def serve(listening: socket.socket) -> None:
        nonlocal count
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                while connection.recv(65536):
                    count += 1
                    if count % 3 == 0:
                        break
                    body = b'{"model_version":"1","outputs":[{"name":"score","data":[0.5]},{"name":"decision","data":[1]}]}'
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        with InferClient(f"http://127.0.0.1:{listening.getsockname()[1]}", "delay", 1, INPUTS) as client:
            answers = client.infer_all([Ask({"distance": 1.0, "carrier": "UA"})] * 8)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert [answer.status for answer in answers] == [200, 200, 0, 200, 200, 0, 200, 200]


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            404,
            b'{"error":"endpoint x: there is no such endpoint.\\nNext: GET /v2 lists the endpoints.","kind":"NotFound"}',
            NotFound,
            "endpoint x: there is no such endpoint.\nNext: GET /v2 lists the endpoints.",
        ),
        (403, b'{"error":"endpoint x: you may not"}', NotAllowed, "endpoint x: you may not."),
        (502, b"<html>bad gateway", Unavailable, "endpoint x: the server answers 502: <html>bad gateway."),
        (503, b"\xff", Unavailable, "endpoint x: the server answers 503: \ufffd."),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(status: int, body: bytes, kind: type[Exception], said: str) -> None:
    found = refused("x", status, body)
    assert type(found) is kind
    assert str(found) == said
