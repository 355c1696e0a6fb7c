"""From a policy on the record to answers over HTTP, with real bundles, workers and gateways."""

from __future__ import annotations

import httpx2
import pytest

from instar.core.errors import NotFound, Unavailable
from instar.core.store import Store
from instar.serve.log import segments
from instar.serve.log.calls import CallLog
from instar.serve.protocol.signature import InputColumn, Signature
from instar.serve.publishing import snapshot
from instar.serve.root.process import ServerTree
from instar.serve.traffic import routing
from instar.serve.traffic.routes import bundle_folder, read_snapshot
from instar.serve.traffic.routing import Canary, Shadow
from instar.train.bundle import Column
from tests.serve import bundles
from tests.serve.conftest import wait_for

MORE = (Column("carrier", "BYTES", nullable=True, privacy="personal"), Column("wind", "FP64"))


def policy(store: Store, champion: int, digests: dict[int, str], **more: object) -> int:
    routing.set_policy(store, "flights", "delay", champion=champion, bundles=digests, cause="test", **more)  # type: ignore[arg-type]
    return snapshot.publish(store)


def test_publishing_numbers_what_is_new_and_unpacks_bundles_first(store: Store) -> None:
    assert snapshot.publish(store) == 1
    digest = bundles.rule(store)
    assert policy(store, 1, {1: digest}) == 2
    assert snapshot.publish(store) == 2
    assert (bundle_folder(store.folder, digest) / "manifest.json").exists()
    routes = read_snapshot(store.folder).endpoints["delay"]
    assert routes.versions[1].worker.startswith("native-")
    assert routes.versions[1].threshold == 0.3
    assert snapshot.wait_acknowledged(store, 2) == []  # no gateway runs


def test_a_bundle_that_is_not_in_the_store_is_never_published(store: Store) -> None:
    with pytest.raises(NotFound):
        policy(store, 1, {1: "b3:" + "0" * 64})
    assert read_snapshot(store.folder).number == 0


def test_the_signature_is_the_champions_and_what_others_read_is_optional(store: Store) -> None:
    policy(store, 1, {1: bundles.rule(store), 2: bundles.rule(store, inputs=MORE)}, canary=Canary(2, 5))
    assert read_snapshot(store.folder).endpoints["delay"].signature == Signature(
        (
            InputColumn("distance", "FP64"),
            InputColumn("carrier", "BYTES", nullable=True, personal=True),
            InputColumn("wind", "FP64", nullable=True, required=False),
        )
    )


def test_a_gateway_that_does_not_speak_is_named(store: Store) -> None:
    lock = segments.BootLock(store.folder / "calls", 5)
    with pytest.raises(Unavailable, match="1 of 1 gateways did not acknowledge"):
        snapshot.wait_acknowledged(store, 1, timeout=0.05)
    lock.release()


def test_promotion_changes_what_answers_and_the_log_says_so(store: Store) -> None:
    one, two = bundles.rule(store), bundles.rule(store, 0.0002)
    broken = bundles.rule(store, 0.0003, code=None)
    body = {
        "inputs": [
            {"name": "distance", "shape": [1], "datatype": "FP64", "data": [2000]},
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
        ]
    }
    policy(store, 1, {1: one})
    with ServerTree.start(store.folder, control=False) as server:
        snapshot.wait_acknowledged(store, 1)
        calls = [httpx2.post(f"{server.url}/v2/models/delay/infer", json=body, timeout=30)]
        number = policy(store, 2, {1: one, 2: two}, shadows=[Shadow(1, "before")])
        (ack,) = snapshot.wait_acknowledged(store, number)
        assert ack.number == number
        calls.append(httpx2.post(f"{server.url}/v2/models/delay/infer", json=body, timeout=30))
        with pytest.raises(Unavailable, match="version 3 of delay does not load"):
            snapshot.wait_acknowledged(store, policy(store, 3, {3: broken}))
        calls.append(httpx2.post(f"{server.url}/v2/models/delay/infer", json=body, timeout=30))
        number = policy(store, 1, {1: one})
        snapshot.wait_acknowledged(store, number)
        calls.append(httpx2.post(f"{server.url}/v2/models/delay/infer", json=body, timeout=30))
        assert [call.json()["outputs"][0]["data"] for call in calls] == [[0.2], [0.4], [0.4], [0.2]]
        assert [call.json()["outputs"][1]["data"] for call in calls] == [[0], [1], [1], [0]]
        log = CallLog(store)
        wait_for(lambda: log.read("delay")["answers"].list.len().to_list() == [1, 2, 2, 1])
        rows = log.read("delay")
    assert rows["version"].to_list() == [1, 2, 2, 1]
    assert rows["policy"].to_list() == [1, 2, 2, 4]
    assert [answer["role"] for answer in rows["answers"][1]] == ["champion", "before"]
