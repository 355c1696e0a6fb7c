"""A token of one endpoint, or of one project, sees and changes nothing else: on every route that shows several endpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core import tokens
from instar.core.identity import Role, local_caller
from instar.core.ids import call_id, new_id
from instar.core.settings import Settings
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.interfaces.all_routes import all_routes
from instar.interfaces.api import operate
from instar.interfaces.api.application import Application
from instar.interfaces.api.doorkeeper import Doorkeeper
from instar.interfaces.api.routes import Route
from instar.operate import actions, alerts
from instar.operate.measurement import BREACH, Measurement, keep
from instar.operate.rollout import rollout
from instar.operate.rollout_rule import Terms
from instar.release import registry
from instar.serve.access import granting
from instar.serve.log import erasing, holds
from instar.serve.root.costs import serving_usage
from instar.serve.traffic import routing
from instar.testing import NOON, memory_store
from instar.train.bundle import OUTPUTS, Column, Manifest, pack
from tests.operate.conftest import CONTRACT
from tests.serve.writing import Segment

P = "/api/projects/flights"
ROUTES = [route for route in all_routes() if "/projects/{project}" not in route.path or route.path.startswith("/api")]
LISTS = [route for route in ROUTES if route.narrows and route.method == "GET" and route.path.count("{") == 1]
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with a record of each kind about the endpoints `delay` and `fares`, and an endpoint `fraud` of another project."""
    store = memory_store(tmp_path_factory.mktemp("limited"))
    for boot, (project, endpoint) in enumerate([("flights", "delay"), ("flights", "fares"), ("money", "fraud")], 70):
        version = registry.register(store, project, endpoint, bundle=_bundle(store, endpoint), origin="recipe")
        routing.set_policy(store, project, endpoint, champion=1, bundles={1: version.bundle}, cause="first")
        segment = Segment(store.folder, endpoint, boot=boot)
        segment.schema()
        segment.call()
        selector = erasing.Selector("entity", "E1")
        erasing.ask(store, project, selector, "asked for", endpoint)
        holds.place(store, project, endpoint, "a claim")
        store.database.write(lambda tx, p=project, e=endpoint: _fill(tx, store, p, e))  # type: ignore[misc]
        actions.request(store, project, endpoint, actions.Wanted("retrain", "alert", f"retrain {endpoint}"))
    yield store
    store.database.close()


def _bundle(store: Store, model: str) -> str:
    return pack(store.blobs, Manifest(
        model=model, step="trees", kind="model", recipe="b3:r", parameters={}, target="late",
        inputs=(Column("hour", "FP64"),), outputs=OUTPUTS, threshold=0.5, native=store.blobs.put(model.encode()),
        form="polars", environment=store.blobs.put(b"lock"), run="run_0", fitted_on="tver_0", fitted_rows=10,
    ))  # fmt: skip


def _fill(tx: Any, store: Store, project: str, endpoint: str) -> None:
    look = Measurement(
        new_id("meas"), project, endpoint, "cost", f"{endpoint}@1", NOON, NOON, 1.0, 0.5, BREACH, 10, NOON,
        outcomes_share=1.0,
    )  # fmt: skip
    alerts.update(tx, store.clock, store.actor, project, keep(tx, [look]))
    span = timedelta(days=1)
    terms = Terms(
        shadow=1, steps=(100.0,), bake=span, patience=span, cool_down=span, cost=0.1, errors=0.1, no_worse=0.1,
        min_rows=1, min_outcomes=1, group=span, refit=False, lease=span, affected_by_answer=False,
    )  # fmt: skip
    tx.execute(rollout.insert().values(
        id=new_id("roll"), project=project, endpoint=endpoint, candidate=2, bundle="b3:x", incumbent=1, stage="promoted",
        step=0, since=NOON, terms=msgspec.to_builtins(terms), standing=[], cause="test", started_at=NOON, ended_at=NOON,
        reason="done", applied=True, recorded_at=NOON,
    ))  # fmt: skip
    tx.execute(serving_usage.insert().values(
        hour=NOON, what="version", endpoint=endpoint, version=1, bundle="b3:x", calls=1, rows=1, cpu_seconds=1.0,
        byte_seconds=1.0, busy_seconds=1.0, starts=1,
    ))  # fmt: skip


@pytest.fixture(scope="module")
def secrets(kept: Store) -> dict[str, str]:
    wishes = [
        Wish("whole", {"flights": [Role.OPERATOR]}),
        Wish("fares", {"flights": [Role.OPERATOR]}, endpoints=["fares"]),
        Wish("money", {"money": [Role.OPERATOR], "flights": [Role.CALLER]}),
    ]
    found = {wish.name: tokens.create(kept, "flights", wish, local_caller())[1] for wish in wishes}
    granting.publish(kept)
    return found


@pytest.fixture(scope="module")
def client(kept: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    keeper = Doorkeeper(kept, Settings(loopback="token"))
    folder: Path = tmp_path_factory.mktemp("flights")
    (folder / "instar.toml").write_text(CONTRACT)
    with TestClient(Application(App(kept, folder), ROUTES, doorkeeper=keeper), base_url="http://127.0.0.1") as made:
        yield made


@pytest.fixture
def ask(client: TestClient, secrets: dict[str, str]) -> Ask:
    def asked(name: str, method: str, path: str, **options: Any) -> Any:
        return client.request(method, path, headers={"authorization": f"Bearer {secrets[name]}"}, **options)

    return asked


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.path)
def test_a_listing_shows_a_token_of_one_endpoint_this_one_alone(ask: Ask, route: Route) -> None:
    path = route.path.replace("{project}", "flights")
    whole = ask("whole", "GET", path)
    assert whole.status_code == 200
    assert "delay" in whole.text
    assert "fares" in whole.text
    assert "fraud" not in whole.text
    limited = ask("fares", "GET", path)
    assert limited.status_code == 200
    assert "fares" in limited.text
    assert "delay" not in limited.text
    if route.path.startswith("/api") and not route.path.endswith(("/models", "/erasures", "/holds")):
        named = ask("fares", "GET", path, params={"endpoint": "delay"})
        assert named.status_code == 404 or "b3:delay" not in named.text
        assert named.status_code == 404 or "delay@1" not in named.text


def test_single_records_of_other_endpoints_are_not_there(ask: Ask) -> None:
    for kind, one in (("rollouts", "id"), ("calls", "prediction")):
        found = ask("whole", "GET", f"{P}/{kind}").json()
        for row in found["calls"] if kind == "calls" else found:
            status = ask("fares", "GET", f"{P}/{kind}/{row[one]}").status_code
            assert status == (200 if row["endpoint"] == "fares" else 404)


def test_holds_and_erasures_of_other_endpoints_can_be_neither_made_nor_ended(ask: Ask) -> None:
    standing = {one["endpoint"]: one["id"] for one in ask("whole", "GET", f"{P}/holds").json()}
    assert ask("fares", "POST", f"{P}/holds/{standing['delay']}/release", json={"why": "x"}).status_code == 403
    assert ask("fares", "POST", f"{P}/holds", json={"endpoint": "delay", "why": "x"}).status_code == 403
    for endpoint in ({}, {"endpoint": "delay"}):
        body = {"why": "x", "entity": "E1", **endpoint}
        assert ask("fares", "POST", f"{P}/erasures", json=body).status_code == 403
    assert ask("fares", "POST", f"{P}/holds/{standing['fares']}/release", json={"why": "x"}).status_code == 200
    assert (
        ask("fares", "POST", f"{P}/erasures", json={"why": "x", "entity": "E1", "endpoint": "fares"}).status_code == 202
    )


def test_outcomes_are_taken_of_calls_of_endpoints_that_one_may_ask(ask: Ask, kept: Store) -> None:
    log = operate.log_of(kept)
    names = {one: str(log.read(one)["prediction"][0]) for one in ("delay", "fares", "fraud")}
    unknown = f"{call_id(1_600_000_000_000, boot=9, sequence=1)}/0"

    def status(who: str, name: str) -> int:
        body = {"outcomes": [{"prediction": name, "value": 1, "observed_at": "2026-01-01T13:00:00Z"}]}
        return int(ask(who, "POST", "/api/outcomes", json=body).status_code)

    assert [status("fares", names[one]) for one in names] == [403, 200, 403]
    assert [status("whole", names[one]) for one in names] == [200, 200, 403]
    assert [status("money", names[one]) for one in names] == [200, 200, 200]
    # What is not on the record yet would be joined whosever it is: it waits for those who may ask all endpoints.
    assert [status(who, unknown) for who in ("fares", "whole", "money")] == [404, 404, 202]


def test_the_refusal_says_that_the_token_is_limited(ask: Ask) -> None:
    refused = ask("fares", "GET", f"{P}/runs")
    assert refused.status_code == 403
    assert "for some endpoints alone" in json.loads(refused.text)["error"]
