"""The API of operating, over real HTTP routes: the outcome cases with their statuses, listings, promotion, traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.ids import call_id
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import calls, operate
from instar.operate import promotion, rollout_walk
from instar.operate.outcomes import find
from instar.operate.rollout_walk import terms_of
from instar.plan.project import load_project
from instar.release.registry import ModelVersion
from instar.testing import NOON
from tests.operate.conftest import CONTRACT

P = "/api/projects/flights"


@pytest.fixture
def client(store: Store, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    monkeypatch.setattr(operate, "log_of", lambda _store: log)
    with TestClient(
        control.build(App(store, tmp_path), [*operate.routes, *calls.routes]), base_url="http://127.0.0.1"
    ) as client:
        yield client


def post(client: TestClient, *items: dict[str, Any]) -> Any:
    return client.post("/api/outcomes", json={"outcomes": list(items)})


def test_outcomes_are_recorded_and_the_same_again_has_no_effect(client: TestClient, store: Store, log: Any) -> None:
    name = log.add(NOON, {1: 0.9})
    first = post(client, {"prediction": name, "value": True, "observed_at": "2026-01-01T13:00:00Z"})
    assert (first.status_code, first.json()["recorded"]) == (200, 1)
    again = post(client, {"prediction": name, "value": 1})
    assert (again.status_code, again.json()["unchanged"], again.json()["recorded"]) == (200, 1, 0)
    (kept,) = find(store, name)
    assert kept["observed_at"].isoformat() == "2026-01-01T13:00:00+00:00"


def test_another_value_is_409_and_names_what_to_correct(client: TestClient, log: Any) -> None:
    name, other = log.add(NOON, {1: 0.9}), log.add(NOON, {1: 0.9})
    kept = post(client, {"prediction": name, "value": 1}).json()["outcomes"][0]["outcome"]
    refused = post(client, {"prediction": other, "value": 1}, {"prediction": name, "value": 0})
    assert refused.status_code == 409
    assert kept in refused.json()["next"]
    corrected = post(client, {"prediction": name, "value": 0, "corrects": kept})
    assert (corrected.status_code, corrected.json()["corrected"]) == (200, 1)
    # The refused posting left nothing: its other item is new.
    assert post(client, {"prediction": other, "value": 1}).json()["recorded"] == 1


def test_unseen_calls_are_202_and_parked(client: TestClient, log: Any) -> None:
    name = log.add(NOON, {1: 0.9})
    strange = f"{call_id(1_600_000_000_000, boot=9, sequence=1)}/0"
    reply = post(client, {"prediction": strange, "value": 1}, {"prediction": name, "value": 1})
    assert reply.status_code == 202
    assert [item["state"] for item in reply.json()["outcomes"]] == ["parked", "recorded"]


@pytest.mark.parametrize(
    "item",
    [
        {"prediction": "call_1/0", "value": 1},
        {"prediction": "pred_1", "value": 1},
        {"prediction": None, "value": 1},
        {"value": 1},
        {"prediction": f"{call_id(1, 2, 3)}/0"},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": 7},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": "late"},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": [1]},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": 1, "kind": "opinion"},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": 1, "valeu": 1},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": 1, "observed_at": "yesterday"},
        {"prediction": f"{call_id(1, 2, 3)}/0", "value": 1, "observed_at": "2013-03-01T12:00:00"},
    ],
)
def test_malformed_outcomes_are_400(client: TestClient, log: Any, item: dict[str, Any]) -> None:
    name = log.add(NOON, {1: 0.9})
    assert post(client, {"prediction": name, "value": 1}, item).status_code == 400
    assert post(client, {"prediction": name, "value": 0}).json()["recorded"] == 1  # nothing of it was kept


@pytest.mark.parametrize("body", [b"", b"[]", b'{"outcomes": NaN}', b"\xff", b'{"outcomes": [], "more": 1}'])
def test_bodies_that_are_no_posting_are_400(client: TestClient, body: bytes) -> None:
    assert client.post("/api/outcomes", content=body).status_code == 400


def test_a_reporter_is_on_the_record(client: TestClient, store: Store, log: Any) -> None:
    from instar.core import identity

    name = log.add(NOON, {1: 0.9})
    post(client, {"prediction": name, "value": 1})
    assert find(store, name)[0]["reporter"] == identity.local_user().name


def test_promotion_rollout_and_rollback(
    client: TestClient, store: Store, tmp_path: Path, make_version: Callable[..., ModelVersion]
) -> None:
    first, second = make_version("one"), make_version("two")
    assert client.post(f"{P}/endpoints/delay/promote", json={"reason": "first"}).status_code == 400
    unknown = {"reason": "first", "version": "delay@9"}
    assert client.post(f"{P}/endpoints/delay/promote", json=unknown).status_code == 404
    done = client.post(f"{P}/endpoints/delay/promote", json={"reason": "first", "version": "delay@1"})
    assert done.json() == {
            "endpoint": "delay", "policy": 1, "champion": "delay@1", "effect": {"routes": 1, "gateways": [], "building": []},
        }  # fmt: skip
    problem = load_project(tmp_path).contract.problem["delay"]
    started = rollout_walk.start(store, "flights", "delay", second, terms_of(problem, refit=False), "test")
    (listed,) = client.get(f"{P}/rollouts?endpoint=delay").json()
    assert (listed["id"], listed["stage"], listed["terms"]["shadow"]) == (started.id, "shadow", 2000)
    assert client.get(f"{P}/rollouts/{started.id}").json()["looks"] == []
    assert client.get(f"/api/projects/other/rollouts/{started.id}").status_code == 404
    back = client.post(f"{P}/endpoints/delay/rollback", json={"reason": "it smells"})
    assert back.json()["champion"] == "delay@1"
    assert client.get(f"{P}/rollouts/{started.id}").json()["stage"] == "superseded"
    refused = client.post(f"{P}/endpoints/delay/rollback", json={"reason": "again"})
    assert refused.status_code == 409
    (live,) = client.get(f"{P}/live").json()
    assert [one["version"] for one in live["answering"]] == ["delay@1"]
    assert client.get(f"{P}/live?at=2020-01-01").json() == []
    assert client.get(f"{P}/live?at=soon").status_code == 400
    assert first.name == "delay@1"


def test_traces_and_audits(
    client: TestClient, store: Store, log: Any, make_version: Callable[..., ModelVersion]
) -> None:
    promotion.promote(store, "flights", "delay", make_version("one"), "first", publish=lambda _store: None)
    name = log.add(NOON, {1: 0.9})
    traced = client.get(f"{P}/trace", params={"id": name}).json()
    assert (traced["kind"], traced["precision"]) == ("prediction", "row")
    touched = client.get(f"{P}/trace", params={"id": "delay@1", "forward": "1"}).json()
    assert "1 predictions of delay" in [hop["name"] for hop in touched["hops"]]
    assert client.get(f"{P}/trace", params={"id": "call_1/0"}).status_code == 400
    assert client.get(f"{P}/trace", params={"id": "nothing"}).status_code == 404
    # The fixture's approval stands outside the journal, and the audit says so.
    audited = client.get(f"{P}/audit").json()
    assert audited["words"] == "NOT consistent"
    assert "no entry of the journal announced it" in audited["checks"][1]["faults"][0]


def test_listings_answer_in_json(client: TestClient) -> None:
    for listing in ("alerts", "measurements", "rollouts", "actions", "live"):
        assert client.get(f"{P}/{listing}").json() == []
    assert client.get(f"{P}/measurements?limit=0").status_code == 400
    assert client.get(f"{P}/measurements?since=never").status_code == 400
