"""The port of a running server: what answers, what is refused and how, and what is on the record of it."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import polars as pl
import pyarrow as pa
import pytest

from instar.core.store import Store
from instar.serve.log.calls import CallLog
from instar.serve.protocol.v2_json import BODY_LIMIT_BYTES
from instar.serve.root.process import ServerTree
from instar.testing import memory_store
from tests.serve import fakes
from tests.serve.conftest import wait_for

URL = "/v2/models/delay/infer"
MARCH = "2013-03-01T08:15:00+00:00"


@pytest.fixture
def client(server: ServerTree) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def log(folder: Path, tmp_path: Path) -> Iterator[CallLog]:
    """The log of the running server's calls, over a catalogue of its own."""
    store = memory_store(tmp_path)
    yield CallLog(Store(folder, store.database, store.blobs, store.clock, store.actor))
    store.database.close()


def test_a_call_is_answered_and_on_the_record(client: httpx2.Client, log: CallLog) -> None:
    request = {**fakes.body(1500), "id": "mine", "parameters": {"entity": "UA 17", "table_version": "tver_1"}}
    reply = client.post(URL, json=request, headers={"Instar-Event-Time": MARCH, "Instar-Key": "UA 17"})
    assert reply.status_code == 200
    answer = reply.json()
    assert answer["outputs"][0]["data"] == [0.25]
    assert answer["outputs"][1]["data"] == [0]
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("delay", "1", "mine")
    assert answer["parameters"] == {"policy": 1, "reason": "champion"}
    found = wait_for(lambda: (row := log.find(reply.headers["instar-call"])) and len(row["answers"]) == 2 and row)
    assert found["at"] == datetime(2013, 3, 1, 8, 15, tzinfo=UTC)
    assert (found["entity"], found["key"], found["table_version"], found["request_id"]) == (
        "UA 17",
        "UA 17",
        "tver_1",
        "mine",
    )
    assert found["inputs"] == {"distance": 1500.0, "hour": 8, "carrier": "UA", "wind": None, "holiday": False}
    assert [(a["version"], a["role"], round(a["score"], 9)) for a in found["answers"]] == [
        (1, "champion", 0.25),
        (3, "rule", 0.45),
    ]
    assert 0 < found["latency_us"] < 30_000_000


def test_without_an_event_time_it_is_now(client: httpx2.Client, log: CallLog) -> None:
    row = log.find(client.post(URL, json=fakes.body()).headers["instar-call"])
    assert row["at"] == row["recorded_at"]
    assert abs((row["at"] - datetime.now(UTC)).total_seconds()) < 120


def test_a_version_can_be_named(client: httpx2.Client, log: CallLog) -> None:
    reply = client.post("/v2/models/delay/versions/3/infer", json=fakes.body(1000))
    assert reply.json()["model_version"] == "3"
    row = log.find(reply.headers["instar-call"])
    assert (row["reason"], row["version"], len(row["answers"])) == ("pinned", 3, 1)


def test_health_and_metadata(client: httpx2.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["endpoints"] == ["delay"]
    about = client.get("/v2/models/delay").json()
    assert about["versions"] == ["1", "3"]
    assert [column["name"] for column in about["inputs"]] == [column.name for column in fakes.COLUMNS]
    assert client.get("/v2/models/delay/versions/3").json()["versions"] == ["3"]
    assert client.get("/v2/models/delay/ready").status_code == 200
    assert client.get("/v2/models/delay/versions/3/ready").status_code == 200


def test_metrics_count_calls(client: httpx2.Client) -> None:
    client.post(URL, json=fakes.body())
    text = client.get("/metrics").text
    assert 'instar_calls_total{endpoint="delay",status="200"}' in text
    assert "instar_call_seconds_bucket" in text


REFUSED: list[tuple[str, Any, int, str]] = [
    ("missing column", {"inputs": fakes.body()["inputs"][1:]}, 400, "MissingInput"),
    (
        "wrong shape",
        {"inputs": [{**fakes.body()["inputs"][0], "shape": [2]}, *fakes.body()["inputs"][1:]]},
        400,
        "WrongShape",
    ),
    ("wrong type", fakes.body("far"), 400, "WrongDatatype"),  # type: ignore[arg-type]
    ("null", fakes.body(hour=None), 400, "WrongDatatype"),
    ("no protocol", {"rows": []}, 400, "MalformedRequest"),
]


@pytest.mark.parametrize(
    ("request_body", "status", "kind"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_bad_request_is_refused_and_on_the_record(
    client: httpx2.Client, log: CallLog, request_body: Any, status: int, kind: str
) -> None:
    reply = client.post(URL, json=request_body)
    assert reply.status_code == status
    assert reply.json()["kind"] == kind
    row = log.find(reply.headers["instar-call"])
    assert (row["status"], row["decision"], row["answers"]) == (status, None, [])
    assert row["error"].startswith(kind)


def test_nan_is_refused(client: httpx2.Client) -> None:
    text = json.dumps(fakes.body()).replace("1000.0", "NaN")
    reply = client.post(URL, content=text)
    assert reply.status_code == 400
    assert reply.json()["kind"] == "MalformedRequest"


def test_a_body_of_50_mb_is_refused_and_the_connection_lives(client: httpx2.Client, log: CallLog) -> None:
    reply = client.post(URL, content=b"x" * 50_000_000)
    assert reply.status_code == 413
    assert log.find(reply.headers["instar-call"])["status"] == 413
    assert client.post(URL, json=fakes.body()).status_code == 200


def test_a_large_body_without_a_length_is_refused(client: httpx2.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(BODY_LIMIT_BYTES // 1_000_000 + 2):
            yield b" " * 1_000_000

    assert client.post(URL, content=parts()).status_code == 413


def test_who_asks_before_sending_a_large_body_need_not_send_it(server: ServerTree) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(200).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/unknown/infer", 404),
        ("GET", "/v2/models/unknown", 404),
        ("GET", "/v2/models/unknown/ready", 404),
        ("POST", "/v2/models/delay/versions/2/infer", 404),
        ("POST", "/v2/models/delay/versions/x/infer", 404),
        ("POST", "/v2/models/delay/versions/٣/infer", 404),
        ("GET", "/v2/models/delay/infer", 405),
        ("DELETE", "/v2/models/delay", 405),
        ("GET", "/v2/models/delay/nothing", 404),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_so(client: httpx2.Client, method: str, path: str, status: int) -> None:
    reply = client.request(method, path, content=b"{}" if method == "POST" else None)
    assert reply.status_code == status
    assert reply.json()["error"]


@pytest.mark.parametrize("moment", ["yesterday", "2013-03-01T08:15:00", "", "2013-13-01T00:00:00Z"])
def test_an_event_time_that_is_none_is_refused(client: httpx2.Client, moment: str) -> None:
    reply = client.post(URL, json=fakes.body(), headers={"Instar-Event-Time": moment})
    assert reply.status_code == 400
    assert "Instar-Event-Time" in reply.json()["error"]


def test_inference_goes_on_while_the_control_process_is_away(client: httpx2.Client) -> None:
    away = client.get("/api/projects")
    assert away.status_code == 503
    assert away.headers["retry-after"] == "1"
    assert client.post(URL, json=fakes.body()).status_code == 200


def test_a_hundred_rows_in_one_call(client: httpx2.Client, log: CallLog) -> None:
    request = fakes.body()
    for tensor in request["inputs"]:
        tensor.update(shape=[100], data=tensor["data"] * 100)
    request["inputs"][0]["data"] = [float(n) for n in range(100)]
    reply = client.post(URL, json=request)
    assert reply.json()["outputs"][0]["data"] == [0.1 + n / 10_000 for n in range(100)]
    call = reply.headers["instar-call"]
    rows = log.read("delay").filter(pl.col("call") == call)
    assert rows["row"].to_list() == list(range(100))


def test_requests_on_one_connection_do_not_mix(client: httpx2.Client, server: ServerTree) -> None:
    from instar.serve.clients.client import Ask, InferClient

    base = {"hour": 8, "carrier": None, "wind": float("nan"), "holiday": True}
    asks = [Ask({**base, "distance": float(n)}, request_id=str(n)) for n in range(300)]
    with InferClient(server.url, "delay", connections=7) as thin:
        answers = thin.infer_all(asks)
    assert [answer.score for answer in answers] == [0.1 + n / 10_000 for n in range(300)]
    assert len({answer.call for answer in answers}) == 300


def test_every_form_comes_through_the_port_and_is_on_the_record(client: httpx2.Client, log: CallLog) -> None:
    row = {"distance": 1500.0, "hour": 8, "carrier": "UA", "wind": None, "holiday": False}
    split = {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
    csv = "distance,hour,carrier,wind,holiday\n1500,8,UA,,false\n"
    asked = [
        client.post("/v2/models/delay/records", json={"records": [row]}),
        client.post("/v2/models/delay/versions/1/records", json=row),
        client.post("/endpoints/delay/invocations", json=split),
        client.post("/invocations", json={"instances": [row]}),
        client.post("/invocations", content=csv, headers={"content-type": "text/csv; charset=utf-8"}),
    ]
    for reply in asked:
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert (body.get("records") or body["predictions"]) == [{"score": 0.25, "decision": 0}]
        found = wait_for(lambda reply=reply: log.find(reply.headers["instar-call"]))
        assert found["inputs"] == row


def test_what_is_not_read_is_refused_by_its_kind(client: httpx2.Client) -> None:
    xml = client.post(URL, content=b"<a/>", headers={"content-type": "application/xml"})
    assert (xml.status_code, xml.json()["kind"]) == (415, "UnsupportedMedia")
    packed = client.post(URL, json=fakes.body(), headers={"content-encoding": "br"})
    assert (packed.status_code, packed.json()["kind"]) == (415, "UnsupportedMedia")
    image = client.post(URL, json=fakes.body(), headers={"accept": "image/png"})
    assert (image.status_code, image.json()["kind"]) == (406, "NotAcceptable")
    assert "text/csv" in image.json()["error"]
    headless = client.post(URL, content=b"{}", headers={"content-type": "application/octet-stream"})
    assert headless.status_code == 400
    assert client.get("/invocations").status_code == 405


def test_a_caller_says_how_long_it_waits(client: httpx2.Client, log: CallLog) -> None:
    for wrong in ("soon", "0", "-1", "1e9", "601s"):
        assert client.post(URL, json=fakes.body(), headers={"instar-timeout": wrong}).status_code == 400
    assert client.post(URL, json=fakes.body(), headers={"instar-timeout": "5s"}).status_code == 200
    late = client.post(URL, json=fakes.body(), headers={"instar-timeout": "0.001ms"})
    assert (late.status_code, late.json()["kind"]) == (504, "DeadlineExceeded")
    found = wait_for(lambda: log.find(late.headers["instar-call"]))
    assert found["status"] == 504


def test_packed_bodies_are_taken_and_large_answers_packed(client: httpx2.Client, log: CallLog) -> None:
    request = fakes.body(1500)
    for tensor in request["inputs"]:
        tensor.update(shape=[2000], data=tensor["data"] * 2000)
    body = gzip.compress(json.dumps(request).encode())
    reply = client.post(URL, content=body, headers={"content-encoding": "gzip", "accept-encoding": "gzip"})
    assert (reply.status_code, reply.headers["content-encoding"]) == (200, "gzip")
    assert reply.json()["outputs"][0]["data"] == [0.25] * 2000
    plain = client.post(URL, content=body, headers={"content-encoding": "gzip", "accept-encoding": "identity"})
    assert ("content-encoding" in plain.headers, plain.json()["outputs"]) == (False, reply.json()["outputs"])
    bomb = client.post(URL, content=gzip.compress(bytes(64 << 20)), headers={"content-encoding": "gzip"})
    assert (bomb.status_code, bomb.json()["kind"]) == (413, "TooLarge")
    found = wait_for(lambda: log.find(bomb.headers["instar-call"]))
    assert found["status"] == 413
    twice = httpx2.Headers([("content-encoding", "gzip"), ("content-encoding", "gzip")])
    assert client.post(URL, content=body, headers=twice).status_code == 415


def test_a_caller_takes_another_form_than_it_sends(client: httpx2.Client) -> None:
    reply = client.post(URL, json=fakes.body(1500), headers={"accept": "text/csv"})
    assert (reply.headers["content-type"], reply.text) == ("text/csv; charset=utf-8", "score,decision\r\n0.25,0\r\n")
    arrow = {"accept": "application/vnd.apache.arrow.stream"}
    reply = client.post(
        "/v2/models/delay/records", json={"distance": 1500.0, "hour": 8, "holiday": False}, headers=arrow
    )
    assert reply.headers["content-type"] == arrow["accept"]
    assert pa.ipc.open_stream(reply.content).read_all().to_pydict() == {"score": [0.25], "decision": [0]}


def test_an_endpoint_has_what_mlflows_scoring_server_has(client: httpx2.Client) -> None:
    for path in ("/ping", "/endpoints/delay/ping", "/endpoints/delay/health"):
        reply = client.get(path)
        assert (reply.status_code, reply.text, reply.headers["content-type"]) == (200, "\n", "application/json")
    assert client.get("/endpoints/delay/version").text[:2] == "3."
    assert client.get("/endpoints/nothing/ping").status_code == 404
    assert client.post("/endpoints/delay/ping").status_code == 400


def test_models_are_not_loaded_by_hand(client: httpx2.Client) -> None:
    for what in ("load", "unload"):
        reply = client.post(f"/v2/repository/models/delay/{what}", json={})
        assert (reply.status_code, "instar promote" in reply.json()["error"]) == (400, True)
        assert client.get(f"/v2/repository/models/delay/{what}").status_code == 405
    assert client.post("/v2/repository/models/nothing/load").status_code == 404
    index = client.post("/v2/repository/index").json()
    assert {(one["name"], one["state"]) for one in index} == {("delay", "READY")}
