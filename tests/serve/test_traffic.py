"""Policies at work in real gateways: rules, arms, shadows that misbehave, canaries that nobody watches, two gateways at once."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from instar.core.store import Store
from instar.serve.clients.client import Ask, InferClient
from instar.serve.log.calls import CallLog
from instar.serve.log.segments import alive_boots
from instar.serve.traffic import leases, routes
from instar.serve.traffic.policy import Arm, Canary, Condition, Rule, Shadow
from instar.serve.traffic.resolving import Resolver, sampled
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for

ROW = {"hour": 8, "carrier": "UA", "wind": 1.5, "holiday": False, "distance": 100.0}
PATH = "/v2/models/delay/infer"


@pytest.fixture
def folder(store: Store) -> Path:
    return store.folder


def versions(folder: Path) -> list[routes.VersionRoute]:
    """Versions 1 and 2 in the common process, 3 in its own."""
    return [
        fakes.version(folder, 1, bias=0.1), fakes.version(folder, 2, bias=0.2),
        fakes.version(folder, 3, bias=0.3, native=True),
    ]  # fmt: skip


def infer(url: str, count: int) -> list[Any]:
    with InferClient(url, "delay", connections=8) as client:
        return client.infer_all([Ask(ROW, key=f"key {n}") for n in range(count)])


def logged(store: Store, answers: list[Any]) -> dict[str, dict[str, Any]]:
    """Rows of these calls by key, when all that was asked has spoken."""
    log = CallLog(store)
    calls = {answer.call for answer in answers}
    rows = wait_for(lambda: (rows := log.read("delay").to_dicts()) and calls <= {row["call"] for row in rows} and rows)
    return {row["key"]: row for row in rows if row["call"] in calls}


def test_arms_and_rules_answer_as_the_policy_says_and_the_record_says_why(store: Store, folder: Path) -> None:
    given = versions(folder)
    policy: dict[str, Any] = {
        "champion": 1,
        "arms": (Arm("b", 2, 50),),
        "rules": (
            Rule("beta", (Condition(header="x-beta", equals="yes"), Condition(tag="site", prefix="eu")), 3),
            Rule("to b", (Condition(header="x-arm"),), arm="b"),
        ),
    }
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, fakes.route(folder, given, **policy))
        answers = infer(server.url, 60)
        beta = client.post(PATH, json=fakes.body(), headers={"X-Beta": "yes", "Instar-Tag": "team=a, site=eu-1"})
        other = client.post(PATH, json=fakes.body(), headers={"X-Beta": "yes", "Instar-Key": "other"})
        arm = client.post(PATH, json=fakes.body(), headers={"X-Arm": ""})
        assert (beta.json()["model_version"], beta.json()["parameters"]["reason"]) == ("3", "rule beta")
        assert (arm.json()["model_version"], arm.json()["parameters"]["reason"]) == ("2", "rule to b")
        assert other.json()["parameters"]["reason"] in ("champion", "arm b")
        resolver = Resolver(routes.read_snapshot(folder).endpoints["delay"].policy)
        rows = logged(store, answers)
    assert {answer.status for answer in answers} == {200}
    assert {row["reason"] for row in rows.values()} == {"champion", "arm b"}
    for key, row in rows.items():
        route = resolver.route(key, row["call"], row["caller"], ())
        assert route is not None
        assert (row["version"], row["reason"], row["policy"]) == (route.version, route.reason, 1)
        assert [answer["version"] for answer in row["answers"]] == [route.version]  # arms are not paired


def test_a_sampled_shadow_hears_its_share_and_nothing_else(store: Store, folder: Path) -> None:
    shadows = [Shadow(2, "quarter", 25), Shadow(3, "half", 50)]
    with start(folder) as server:
        acknowledged(folder, fakes.route(folder, versions(folder), shadows=shadows))
        answers = infer(server.url, 80)

        def heard() -> bool:
            return all(
                {answer["version"] for answer in row["answers"]}
                == {1, *(one.version for one in shadows if sampled("delay", one.version, one.share, row["call"]))}
                for row in logged(store, answers).values()
            )

        wait_for(heard)
        assert {row["version"] for row in logged(store, answers).values()} == {1}


def test_shadows_that_fail_or_hang_touch_no_answer(store: Store, folder: Path) -> None:
    given = [
        fakes.version(folder, 1, bias=0.1), fakes.version(folder, 2, quirk="raises", native=True),
        fakes.version(folder, 3, quirk="dies", native=True), fakes.version(folder, 4, quirk="hangs", native=True),
    ]  # fmt: skip
    with start(folder) as server:
        acknowledged(folder, fakes.route(folder, given, shadows=[Shadow(2, "a"), Shadow(3, "b"), Shadow(4, "c")]))
        answers = infer(server.url, 500)
        assert {answer.status for answer in answers} == {200}
        assert {answer.version for answer in answers} == {1}
        text = httpx2.get(f"{server.url}/metrics").text
        left_out = re.search(r'instar_shadows_left_out_total\{endpoint="delay"\} ([0-9.]+)', text)
        # One that hangs has 256 calls at most, all the others it never hears of.
        assert left_out is not None
        assert float(left_out[1]) >= 500 - 256 - 10
    rows = logged(store, answers)
    assert len(rows) == 500
    said = Counter(answer["version"] for row in rows.values() for answer in row["answers"])
    assert said[1] == 500
    assert said[4] <= 256 + 10


def test_a_canary_that_nobody_watches_gives_its_share_back(store: Store, folder: Path) -> None:
    """No controller runs here: what the gateway does, it does by itself."""
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        leases.begin(folder, {"delay": 1}, _wall())
        acknowledged(folder, fakes.route(folder, versions(folder), canary=Canary(2, 100, lease=1.5)))

        def reason() -> str:
            found: str = client.post(PATH, json=fakes.body()).json()["parameters"]["reason"]
            return found

        def lapsed() -> bool:
            return 'instar_canary_lapsed{endpoint="delay"} 1.0' in client.get("/metrics").text

        assert reason() == "canary"
        assert not lapsed()
        wait_for(lambda: reason() == "champion, lease lapsed")
        answer = client.post(PATH, json=fakes.body(), headers={"Instar-Key": "late"})
        assert (answer.json()["model_version"], lapsed()) == ("1", True)
        row = wait_for(lambda: (found := CallLog(store).find(answer.headers["instar-call"])) and found)
        assert (row["reason"], row["version"], row["policy"]) == ("champion, lease lapsed", 1, 1)
        # Both still answer, so that the rollout has its evidence when somebody looks again.
        assert {one["version"] for one in row["answers"]} == {1, 2}
        # A change of another endpoint is no word about this one.
        acknowledged(folder, fakes.route(folder, versions(folder), endpoint="other"))
        assert reason() == "champion, lease lapsed"
        leases.renew(folder, {"delay": 1}, _wall())
        wait_for(lambda: reason() == "canary")
        assert not lapsed()
        # A word about an earlier policy is none.
        leases.renew(folder, {"delay": 0}, _wall())


def test_a_change_is_in_effect_on_every_gateway_when_it_is_acknowledged(folder: Path) -> None:
    given = versions(folder)
    with start(folder, gateways=2) as server:
        wait_for(lambda: len(alive_boots(folder / "calls")) == 2)
        acks = acknowledged(folder, fakes.route(folder, given, champion=1))
        assert len({ack.boot for ack in acks}) == 2
        for champion in (2, 3, 1):
            number = fakes.route(folder, given, champion=champion)
            assert all(ack.number == number for ack in acknowledged(folder, number))
            # New connections, which both gateways take.
            said = {httpx2.post(server.url + PATH, json=fakes.body()).json()["model_version"] for _ in range(12)}
            assert said == {str(champion)}
        # An endpoint that was not there a moment ago answers at once.
        acknowledged(folder, fakes.route(folder, given, endpoint="new"))
        for _ in range(8):
            assert httpx2.post(f"{server.url}/v2/models/new/infer", json=fakes.body()).status_code == 200


def _wall() -> int:
    return time.time_ns() // 1000
