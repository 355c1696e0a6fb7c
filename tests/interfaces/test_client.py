"""The client: rows as columns, headers and ids, errors as their own classes; a transport in memory plays the server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import polars as pl
import pytest

import instar
from instar.core import errors
from instar.interfaces.api.status import body_of, status_of
from instar.interfaces.wire import columns_of, datatype_of, error_of
from instar.serve.protocol import replies

CALL = "call_01J9ZZZZZZ000001000000000A"
Handler = Callable[[httpx2.Request], httpx2.Response]


class Played:
    """A server in memory: answers by method and path, and keeps what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[httpx2.Request] = []
        self.answers: dict[str, Any] = {
            "GET /api/projects": {"projects": ["parcels"], "own": "parcels"},
            "GET /v2/models/delay": {"inputs": [{"name": "weight", "datatype": "FP64"}]},
            **answers,
        }

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers[f"{request.method} {request.url.path}"]
        return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)

    @property
    def body(self) -> Any:
        return json.loads(self.asked[-1].content)

    def client(self) -> Any:
        return instar.connect("http://127.0.0.1:1", transport=httpx2.MockTransport(self))


def _infer(scores: list[float]) -> httpx2.Response:
    outputs = [
        {"name": "score", "datatype": "FP64", "shape": [len(scores)], "data": scores},
        {"name": "decision", "datatype": "INT64", "shape": [len(scores)], "data": [int(s >= 0.5) for s in scores]},
    ]
    body = {"model_name": "delay", "model_version": "3", "outputs": outputs}
    return httpx2.Response(200, json=body, headers={"Instar-Call": CALL})


def test_predictions_carry_their_ids_and_the_version_that_answered() -> None:
    server = Played(**{"POST /v2/models/delay/infer": _infer([0.2, 0.9])})
    found = server.client().predict(
        "delay",
        [{"weight": 3, "fragile": True}, {"weight": math.nan, "fragile": None}],
        key="p1",
        event_time=datetime(2026, 3, 1, 8, tzinfo=UTC),
        entities=["p1", "p2"],
        table_version="tver_x",
        request_id="mine",
    )
    assert [(one.id, one.score, one.decision, one.version) for one in found] == [
        (f"{CALL}/0", 0.2, False, 3),
        (f"{CALL}/1", 0.9, True, 3),
    ]
    assert server.body == {
        "id": "mine",
        "inputs": [
            {"name": "weight", "shape": [2], "datatype": "FP64", "data": [3, None]},
            {"name": "fragile", "shape": [2], "datatype": "BOOL", "data": [True, None]},
        ],
        "parameters": {"entity": ["p1", "p2"], "table_version": "tver_x"},
    }
    assert server.asked[-1].headers["instar-key"] == "p1"
    assert server.asked[-1].headers["instar-event-time"] == "2026-03-01T08:00:00+00:00"


def test_rows_columns_and_frames_say_the_same() -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    frame = pl.DataFrame(rows)
    wanted = {"a": [1, 2], "b": ["x", None]}
    assert columns_of(rows) == columns_of(frame) == columns_of(wanted) == columns_of(frame.to_pandas()) == wanted


@pytest.mark.parametrize("rows", [[], {}, {"a": []}, [{"a": 1}, {"b": 1}], {"a": [1], "b": [1, 2]}])
def test_rows_that_are_no_table_are_refused_before_anything_is_sent(rows: Any) -> None:
    with pytest.raises(errors.WrongShape):
        columns_of(rows)


def test_datatypes_follow_the_values() -> None:
    assert datatype_of("c", [True, None]) == "BOOL"
    assert datatype_of("c", [1, 2]) == "INT64"
    assert datatype_of("c", [1, 2.5]) == "FP64"
    assert datatype_of("c", ["x"]) == "BYTES"
    with pytest.raises(errors.MalformedRequest, match="column c"):
        datatype_of("c", [[1]])


SAMPLES = [
    errors.WrongDatatype(
        "it is a text", subject="$.inputs[0].data[1]", found="'x'", asked="FP64", next_step="Mend it."
    ),
    errors.NotFound("there is no such endpoint", subject="endpoint x"),
    errors.Conflict("another outcome is on the record", subject="truth", found="0", asked="1"),
    errors.Unavailable("try again"),
    errors.UnsafeModel("no"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_the_server_s_errors_come_back_as_they_were(error: errors.InstarError) -> None:
    from_control = error_of(status_of(error), json.dumps(body_of(error)).encode())
    assert type(from_control) is type(error)
    assert str(from_control) == str(error)
    assert (from_control.what, from_control.found, from_control.next_step) == (error.what, error.found, error.next_step)
    from_gateway = error_of(replies.status_of(error), replies.encode_error(error))
    assert type(from_gateway) is type(error)
    assert str(from_gateway) == str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"<html>proxy</html>", errors.NotFound),
        (503, b"", errors.Unavailable),
        (400, b'{"error": "x", "type": "os"}', errors.BadInput),
        (500, b"[]", errors.InstarError),
    ],
)
def test_a_refusal_of_somebody_else_is_an_error_of_its_status(status: int, body: bytes, kind: type) -> None:
    assert type(error_of(status, body)) is kind


def test_a_server_that_is_away_is_unavailable() -> None:
    def away(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    client = instar.connect("http://127.0.0.1:1", transport=httpx2.MockTransport(away))
    with pytest.raises(errors.Unavailable, match="instar up"):
        client.tables()


def test_listings_are_of_the_server_s_own_project_unless_another_is_named() -> None:
    rows = {"tables": [{"table": "parcels"}]}
    server = Played(**{"GET /api/projects/parcels/tables": rows, "GET /api/projects/other/tables": rows})
    assert server.client().tables() == rows["tables"]
    other = instar.connect("http://127.0.0.1:1", project="other", transport=httpx2.MockTransport(server))
    assert other.tables() == rows["tables"]
    assert server.asked[-1].url.path == "/api/projects/other/tables"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(errors.BadInput, match="zone"):
        Played().client().live(at=datetime(2026, 1, 1))


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTAR_URL", "http://127.0.0.1:7/")
    assert instar.connect().url == "http://127.0.0.1:7"
    with pytest.raises(errors.BadInput, match="http"):
        instar.connect("localhost")


def test_traffic_is_changed_by_the_policy_that_was_read() -> None:
    place = "/api/projects/parcels/endpoints/delay"
    read = httpx2.Response(200, json={"document": {"champion": 3}}, headers={"etag": '"7"'})
    done = httpx2.Response(200, json={"ends": None}, headers={"etag": '"8"'})
    server = Played(**{
        f"GET {place}/policy": read, f"PUT {place}/policy": done, f"POST {place}/back": done,
        f"GET {place}/compare": {"note": ""},
    })  # fmt: skip
    traffic = server.client().traffic("delay")
    assert traffic.set({"champion": 4}, "why") == {"ends": None}  # it reads first what it would change
    assert [one.method for one in server.asked[-2:]] == ["GET", "PUT"]
    assert server.asked[-1].headers["if-match"] == '"7"'
    assert server.body == {"policy": {"champion": 4}, "reason": "why", "dry_run": False}
    traffic.set({"champion": 5}, "why", dry_run=True)
    assert server.asked[-1].headers["if-match"] == '"8"'
    traffic.set({"champion": 5}, "why", expected=0)
    assert server.asked[-1].headers["if-match"] == '"0"'
    assert traffic.policy() == {"champion": 3}
    traffic.back("enough", to=2)
    assert server.body == {"reason": "enough", "to": 2}
    assert traffic.compare([3, 4], by=["hour"]) == {"note": ""}
    assert server.asked[-1].url.params.get_list("versions") == ["3", "4"]
    stale = errors.Conflict("its policy has changed", found="revision 9")
    server.answers[f"PUT {place}/policy"] = httpx2.Response(412, json=body_of(stale))
    with pytest.raises(errors.Conflict, match="revision 9"):
        traffic.set({"champion": 5}, "why")
