"""How a call of MLflow's protocol is read and answered, whatever the operation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from msgspec import Meta
from starlette.testclient import TestClient

from instar.app import App
from instar.core import errors
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.api.application import Application
from instar.interfaces.mlflow import routes
from instar.interfaces.mlflow.errors import STATUS, code_of, refuse
from instar.interfaces.mlflow.frame import Call, Message, Operation, required


class Asked(Message):
    name: str | None = None
    step: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    value: float | None = None
    keys: list[str] | None = None


def _echo(call: Call, asked: Asked) -> dict[str, Any]:
    """Say again what was asked."""
    required(asked.name, "name")
    return {
        "project": call.project,
        "name": asked.name,
        "step": asked.step,
        "value": repr(asked.value),
        "keys": asked.keys,
    }


def _failing(call: Call, asked: None) -> None:
    """Fail."""
    raise {"conflict": errors.Conflict, "missing": errors.NotFound, "ours": RuntimeError}[call.path["how"]](
        "it went wrong"
    )


OPERATIONS = [
    Operation("GET", "things/get", Permission.READ, _echo, Asked),
    Operation("POST", "things/log", Permission.TRAIN, _echo, Asked),
    Operation("DELETE", "things/{how}", Permission.TRAIN, _failing),
]


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    table = [route for operation in OPERATIONS for route in operation.routes()]
    application = Application(App(store, None), table)
    with TestClient(application, base_url="http://127.0.0.1:5000", raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("root", ["api/2.0", "api/3.0", "ajax-api/2.0", "ajax-api/3.0"])
@pytest.mark.parametrize("project", ["", "trains"])
def test_an_operation_is_at_all_its_addresses(client: TestClient, root: str, project: str) -> None:
    prefix = f"/projects/{project}" if project else ""
    reply = client.post(f"{prefix}/{root}/mlflow/things/log", json={"name": "a"})
    assert reply.status_code == 200
    assert reply.json()["project"] == (project or "default")


def test_the_workspace_header_names_the_project_and_the_address_comes_first(client: TestClient) -> None:
    named = {"X-MLFLOW-WORKSPACE": "ships"}
    assert client.post("/api/2.0/mlflow/things/log", json={"name": "a"}, headers=named).json()["project"] == "ships"
    both = client.post("/projects/trains/api/2.0/mlflow/things/log", json={"name": "a"}, headers=named)
    assert both.json()["project"] == "trains"
    odd = client.post("/api/2.0/mlflow/things/log", json={"name": "a"}, headers={"X-MLFLOW-WORKSPACE": "../x"})
    assert odd.status_code == 400
    assert odd.json()["error_code"] == "INVALID_PARAMETER_VALUE"


def test_numbers_come_as_numbers_or_as_texts_and_no_number_is_one_too(client: TestClient) -> None:
    for step in (7, "7", 7.0):
        assert client.post("/api/2.0/mlflow/things/log", json={"name": "a", "step": step}).json()["step"] == 7
    for value, read in (("NaN", "nan"), ("-Infinity", "-inf"), ("Infinity", "inf"), ("0.5", "0.5"), (1, "1.0")):
        assert client.post("/api/2.0/mlflow/things/log", json={"name": "a", "value": value}).json()["value"] == read


def test_unknown_fields_are_passed_over_and_null_is_absent(client: TestClient) -> None:
    reply = client.post("/api/2.0/mlflow/things/log", json={"name": "a", "step": None, "later": {"more": 1}})
    assert (reply.status_code, reply.json()["step"]) == (200, None)


def test_a_query_string_is_a_message_with_lists_of_repeated_keys(client: TestClient) -> None:
    one = client.get("/api/2.0/mlflow/things/get?name=a%20b&step=3&keys=x").json()
    assert (one["name"], one["step"], one["keys"]) == ("a b", 3, ["x"])
    assert client.get("/api/2.0/mlflow/things/get?name=a&keys=x&keys=y").json()["keys"] == ["x", "y"]


def test_json_within_json_is_read_as_old_clients_send_it(client: TestClient) -> None:
    body = json.dumps(json.dumps({"name": "a"})).encode()
    assert client.post("/api/2.0/mlflow/things/log", content=body).json()["name"] == "a"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"{", "BAD_REQUEST", "cannot be read"),
        (b"\xff\xfe", "BAD_REQUEST", "cannot be read"),
        (b'{"name": "a", "value": NaN}', "BAD_REQUEST", "cannot be read"),
        (b"[]", "INVALID_PARAMETER_VALUE", "Expected `object`"),
        (b'"text"', "BAD_REQUEST", "cannot be read"),
        (b'{"name": 5}', "INVALID_PARAMETER_VALUE", "parameter 'name'"),
        (b'{"name": "a", "step": "one"}', "INVALID_PARAMETER_VALUE", "parameter 'step'"),
        (b'{"name": "a", "step": 1.5}', "INVALID_PARAMETER_VALUE", "parameter 'step'"),
        (b'{"name": "a", "step": 9223372036854775808}', "INVALID_PARAMETER_VALUE", "parameter 'step'"),
        (b'{"name": "a", "keys": "x"}', "INVALID_PARAMETER_VALUE", "parameter 'keys'"),
        (b'{"name": "a", "keys": [1]}', "INVALID_PARAMETER_VALUE", "parameter 'keys[0]'"),
        (b'{"name": ""}', "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'name'"),
        (b"", "INVALID_PARAMETER_VALUE", "Missing value for required parameter 'name'"),
    ],
)
def test_wrong_bodies_are_refused_with_the_place(client: TestClient, body: bytes, code: str, words: str) -> None:
    reply = client.post("/api/2.0/mlflow/things/log", content=body)
    assert (reply.status_code, reply.json()["error_code"]) == (400, code)
    assert words in reply.json()["message"]


def test_errors_have_codes_and_their_statuses(client: TestClient) -> None:
    conflict = client.delete("/api/2.0/mlflow/things/conflict")
    assert (conflict.status_code, conflict.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    absent = client.delete("/api/2.0/mlflow/things/missing")
    assert (absent.status_code, absent.json()) == (
        404,
        {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "it went wrong."},
    )
    ours = client.delete("/api/2.0/mlflow/things/ours")
    assert (ours.status_code, ours.json()["error_code"]) == (500, "INTERNAL_ERROR")


def test_every_error_of_ours_has_a_code_and_every_code_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.InstarError)]
    for kind in kinds:
        reply = refuse(kind("x"))
        assert reply.status == STATUS[reply.value["error_code"]]
    assert code_of(errors.NotAllowed("x")) == "PERMISSION_DENIED"
    assert code_of(errors.StoreBusy("x")) == "TEMPORARILY_UNAVAILABLE"
    assert code_of(errors.Damaged("x")) == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/3.0/mlflow/traces", "Traces are not kept"),
        ("/projects/trains/api/2.0/mlflow/traces/tr-1/info", "Traces are not kept"),
        ("/api/3.0/mlflow/gateway/secrets/list", "gateway to language models"),
        ("/ajax-api/3.0/mlflow/scorers/list", "Scorers"),
        ("/api/2.0/mlflow/runs/fly", "no such address"),
        ("/v1/traces", "Traces are not kept"),
        ("/graphql", "console"),
    ],
)
def test_what_is_not_offered_says_so_in_the_clients_form(client: TestClient, path: str, words: str) -> None:
    for reply in (client.get(path), client.post(path, json={})):
        assert (reply.status_code, reply.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
        assert words in reply.json()["message"]


def test_a_client_learns_what_the_server_is(store: Store) -> None:
    application = Application(App(store, None), routes.all_routes())
    with TestClient(application, base_url="http://127.0.0.1:5000") as client:
        assert (client.get("/health").text, client.get("/projects/a/health").text) == ("OK", "OK")
        major, minor, patch = client.get("/version").text.split(".")
        assert (major + minor + patch).isdigit()
        told = client.get("/api/3.0/mlflow/server-info").json()
        assert told["workspaces_enabled"] is True
        assert told["multipart_uploads_enabled"] is False
