"""Building an environment holds nobody up: others are routed at once, a version when it is ready, and why not is said."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from instar.core.errors import Unavailable
from instar.core.store import Store
from instar.serve.publishing import building, snapshot, waiting
from instar.serve.traffic import routing
from instar.serve.traffic.routes import bundle_folder, read_snapshot
from instar.serve.worker import loading
from instar.train import own_environment
from instar.train.environment_places import NotBuilt
from tests.serve.conftest import acknowledged, start
from tests.serve.lamps import lamp_bundle
from tests.serve.lamps import links as links
from tests.serve.test_housed import body
from tests.train import wheels


def route(store: Store, endpoint: str, version: int, digests: dict[int, str]) -> None:
    routing.set_policy(store, "flights", endpoint, champion=version, bundles=digests, cause="test")


def champion_of(store: Store, endpoint: str) -> Any:
    routed = read_snapshot(store.folder).endpoints[endpoint]
    assert routed.policy.champion is not None
    return routed.versions[routed.policy.champion]


def test_a_new_endpoint_is_routed_at_once_and_its_calls_hear_that_it_is_being_built(store: Store, links: Path) -> None:
    digest = lamp_bundle(store, links, "1.0")
    route(store, "lamp", 1, {1: digest})
    first = snapshot.publish(store)
    assert champion_of(store, "lamp").building
    (wait,) = waiting.read(store.folder)
    assert (wait.name, wait.held, wait.words) == ("lamp@1", False, "its environment is being built")
    with pytest.raises(NotBuilt, match="is being built"):
        loading.EnvironmentLoader(store.folder, wait.environment)(bundle_folder(store.folder, digest))
    assert snapshot.publish(store) == first  # nothing new
    told: list[str] = []
    building.build(store, tell=told.append)
    assert told[0].startswith("lamp@1: building the environment")
    assert not champion_of(store, "lamp").building
    assert waiting.read(store.folder) == ()
    assert snapshot.publish(store) == first + 1


def test_an_endpoint_answers_as_before_until_the_new_version_can(store: Store, links: Path) -> None:
    digests = {1: lamp_bundle(store, links, "1.0"), 2: lamp_bundle(store, links, "2.0")}
    route(store, "lamp", 1, digests)
    snapshot.publish(store)
    building.build(store)
    route(store, "lamp", 2, digests)
    snapshot.publish(store)
    assert champion_of(store, "lamp").version == 1
    (wait,) = waiting.read(store.folder)
    assert (wait.name, wait.held) == ("lamp@2", True)
    effect = snapshot.take_effect(store)
    assert effect.building == ("lamp@2",)
    assert "lamp@2: the environment is being built" in effect.words
    assert building.take_effect(store, lambda text: None).building == ()
    assert (champion_of(store, "lamp").version, champion_of(store, "lamp").building) == (2, False)
    route(store, "lamp", 1, digests)
    snapshot.publish(store)  # the way back needs nothing
    assert champion_of(store, "lamp").version == 1


def test_what_cannot_be_built_names_the_package_and_holds_up_nobody(store: Store, links: Path) -> None:
    digests = {1: lamp_bundle(store, links, "1.0"), 3: lamp_bundle(store, links, "3.0")}
    route(store, "lamp", 1, digests)
    snapshot.publish(store)
    building.build(store)
    route(store, "lamp", 3, digests)
    route(store, "other", 1, digests)
    with pytest.raises(Unavailable, match=r"lamp@3: its environment cannot be built.*lamp==3\.0"):
        building.take_effect(store, lambda text: None)
    assert (champion_of(store, "lamp").version, champion_of(store, "other").version) == (1, 1)
    (wait,) = waiting.read(store.folder)
    assert "lamp==3.0" in wait.words
    assert "answers as before" in wait.words
    building.take_effect(store, lambda text: pytest.fail(f"tried again: {text}"))
    wheels.make(links, "lamp", "3.0", {"lamp.py": "LIGHT = 0.9\n"})
    snapshot.publish(store, whole=True)  # a server starts, and tries again
    building.build(store)
    assert champion_of(store, "lamp").version == 3


def test_one_that_takes_long_holds_up_no_other(store: Store, links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = lamp_bundle(store, links, "1.0"), lamp_bundle(store, links, "2.0")
    go, ready, stop, prepare = threading.Event(), threading.Event(), threading.Event(), own_environment.prepare

    def prepared(store: Store, manifest: Any, **more: Any) -> str:
        if manifest.lock == slow_lock:
            assert go.wait(60)
        name = prepare(store, manifest, **more)
        ready.set()
        return name

    from instar.train.bundle import load_manifest

    slow_lock = load_manifest(store.blobs, slow).lock
    monkeypatch.setattr(own_environment, "prepare", prepared)
    route(store, "slow", 1, {1: slow})
    route(store, "quick", 1, {1: quick})
    snapshot.publish(store)
    thread = threading.Thread(target=building.Builder(store).run, args=(stop,))
    thread.start()
    try:
        assert ready.wait(60)
        until(lambda: not champion_of(store, "quick").building)
        assert champion_of(store, "slow").building
        go.set()
        until(lambda: not champion_of(store, "slow").building)
    finally:
        go.set()
        stop.set()
        thread.join()


def until(holds: Any) -> None:
    pause = threading.Event()
    for _ in range(600):
        if holds():
            return
        pause.wait(0.05)
    raise AssertionError("it never came to be")


def test_a_server_says_that_it_is_being_built_and_answers_when_it_is(store: Store, links: Path) -> None:
    route(store, "lamp", 1, {1: lamp_bundle(store, links, "1.0")})
    number = snapshot.publish(store)
    with (
        start(store.folder, loader="instar.serve.worker.loading:load") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        acknowledged(store.folder, number)
        ready = client.get("/v2/models/lamp/ready")
        assert (ready.status_code, ready.json()["error"]) == (503, "its environment is being built")
        answer = client.post("/v2/models/lamp/infer", json=body())
        assert answer.status_code == 503
        assert "being built" in answer.text
        building.build(store)
        acknowledged(store.folder, read_snapshot(store.folder).number)
        assert client.get("/v2/models/lamp/ready").status_code == 200
        until(lambda: client.post("/v2/models/lamp/infer", json=body()).status_code == 200)
