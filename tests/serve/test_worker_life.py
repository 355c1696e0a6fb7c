"""Workers that come when a call needs them and go when nobody comes: what a caller sees of it is an answer."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from instar.core.store import Store
from instar.serve.log.calls import CallLog
from instar.serve.root import condition
from instar.serve.traffic.capacity import Terms
from instar.serve.traffic.policy import Policy, Shadow
from instar.serve.traffic.routes import EndpointRoute, Snapshot, write_snapshot
from tests.serve import fakes
from tests.serve.conftest import acknowledged, start, wait_for
from tests.serve.test_crash import children, gone, loaded

OPEN = {"INSTAR_FENCE": "off"}  # these models keep a mark beside their bundle
URL = "/v2/models/delay/infer"


@pytest.fixture
def folder(store: Store) -> Path:
    return store.folder


def forked(pid: int) -> list[int]:
    """Workers of versions of their own: children that the warm process made for the root."""
    warm = Path("/proc")
    found = children(pid, "instar.serve.worker.warm")
    return [one for one in found if (warm / str(one) / "comm").read_text().startswith("native-")]


def state(client: httpx2.Client, endpoint: str = "delay") -> Any:
    return client.get(f"/v2/models/{endpoint}").json()["parameters"]["state"]


def test_nothing_is_loaded_until_a_call_comes(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1)])
    fakes.route(folder, [fakes.version(folder, 1, bias=0.5, native=True)], endpoint="other")
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 2)
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/other/ready").status_code == 200
        assert (state(client), state(client, "other"), forked(server.pid)) == ("cold", "cold", [])
        assert client.post("/v2/models/other/infer", json=fakes.body()).json()["outputs"][0]["data"] == [0.6]
        assert (state(client), state(client, "other")) == ("cold", "warm")
        assert client.post(URL, json=fakes.body()).status_code == 200
        assert state(client) == "warm"
        (worker,) = forked(server.pid)
        assert int((Path("/proc") / str(worker) / "stat").read_text().rpartition(")")[2].split()[1]) == server.pid


def test_what_is_reserved_is_loaded_from_the_start_and_again(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1)], terms=Terms(reserve=True))
    native = [fakes.version(folder, 1, bias=0.5, native=True)]
    fakes.route(folder, native, endpoint="other", terms=Terms(reserve=True, idle_seconds=0.1))
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 2)
        assert (state(client), state(client, "other")) == ("warm", "warm")
        for pid in [*forked(server.pid), *children(server.pid, "instar.serve.worker.worker")]:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: gone(pid))
        wait_for(lambda: (state(client), state(client, "other")) == ("warm", "warm"))


def test_what_is_reserved_no_more_makes_room_in_its_process(folder: Path) -> None:
    versions = {name: [fakes.version(folder, 1, bias=at)] for at, name in enumerate(("a", "b", "c", "d"))}
    for name, one in versions.items():
        fakes.route(folder, one, endpoint=name, terms=Terms(reserve=name == "a"))
    environment = {"INSTAR_MEMORY": "1MiB"}  # of which the portable worker has half: two models
    with start(folder, environment=environment) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 4)
        for name in ("b", "c", "d"):
            client.post(f"/v2/models/{name}/infer", json=fakes.body()).raise_for_status()
        assert [state(client, name) for name in ("a", "b", "c")] == ["warm", "cold", "cold"]
        acknowledged(folder, fakes.route(folder, versions["a"], endpoint="a"))
        client.post("/v2/models/b/infer", json=fakes.body()).raise_for_status()
        client.post("/v2/models/c/infer", json=fakes.body()).raise_for_status()
        wait_for(lambda: state(client, "a") == "cold")


def test_an_idle_worker_goes_and_the_next_call_has_it_back(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, native=True)], terms=Terms(idle_seconds=0.2))
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        for _ in range(2):
            assert client.post(URL, json=fakes.body()).status_code == 200
            (worker,) = forked(server.pid)
            wait_for(lambda worker=worker: gone(worker))
            wait_for(lambda: state(client) == "cold")


def test_the_one_used_longest_ago_goes_when_memory_is_short(folder: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        fakes.route(folder, [fakes.version(folder, 1, bias=number, native=True)], endpoint=name)
    environment = {"INSTAR_MEMORY": "1MiB"}
    with start(folder, environment=environment) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 3)
        for name in ("a", "b", "c"):
            assert client.post(f"/v2/models/{name}/infer", json=fakes.body()).status_code == 200
        wait_for(lambda: not forked(server.pid))
        # Nothing fits, and still each call is answered.
        assert client.post("/v2/models/a/infer", json=fakes.body()).status_code == 200


def test_a_call_whose_worker_died_once_is_answered_by_the_next(store: Store, folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, quirk="dies once", native=True)])
    with start(folder, environment=OPEN) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        reply = client.post(URL, json=fakes.body(-1))
        assert (reply.status_code, reply.json()["outputs"][0]["data"]) == (200, [-0.0001])
        assert CallLog(store).find(reply.headers["instar-call"])["status"] == 200


def test_a_model_that_must_not_be_asked_twice_is_not(folder: Path) -> None:
    versions = [fakes.version(folder, 1, quirk="dies once", native=True)]
    fakes.route(folder, versions, terms=Terms(retry=False))
    with start(folder, environment=OPEN) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        reply = client.post(URL, json=fakes.body(-1))
        assert reply.status_code == 503
        assert "signal 11 (a segmentation fault)" in reply.json()["error"]
        assert client.post(URL, json=fakes.body(-1)).status_code == 200


def test_a_worker_that_hangs_is_killed_and_its_neighbours_are_answered(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, quirk="hangs on -1", native=True)])
    environment = {"INSTAR_HANG": "3"}
    with start(folder, environment=environment) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        acknowledged(folder, 1)
        replies: list[httpx2.Response] = []
        hung = threading.Thread(
            target=lambda: replies.append(httpx2.post(server.url + URL, json=fakes.body(-1), timeout=60))
        )
        assert client.post(URL, json=fakes.body()).status_code == 200
        (first,) = forked(server.pid)
        hung.start()
        wait_for(lambda: gone(first))
        assert client.post(URL, json=fakes.body(7)).status_code == 200
        hung.join()
        assert replies[0].status_code == 500
        assert "had answered nothing" in replies[0].json()["error"]


def test_a_call_is_given_up_when_its_time_is_over(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, quirk="hangs on -1", native=True)])
    terms = Terms(call_seconds=0.2)
    fakes.route(
        folder, [fakes.version(folder, 1, bias=0.1, quirk="hangs on -1", native=True)], endpoint="b", terms=terms
    )
    environment = {"INSTAR_CALL_LIMIT": "1"}
    with start(folder, environment=environment) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        acknowledged(folder, 2)
        reply = client.post(URL, json=fakes.body(-1))
        assert (reply.status_code, "did not answer within 1 s" in reply.json()["error"]) == (503, True)
        own = client.post("/v2/models/b/infer", json=fakes.body(-1))
        assert (own.status_code, "0.2 s" in own.json()["error"]) == (504, True)
        longer = client.post("/v2/models/b/infer", json=fakes.body(-1), headers={"Instar-Timeout": "30"})
        assert longer.status_code == 504


def test_a_worker_that_leaks_is_replaced_and_no_call_is_lost(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, quirk="leaks", native=True)], terms=Terms(memory_bytes=100 * 1024**2))
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        assert client.post(URL, json=fakes.body(1)).status_code == 200
        (first,) = forked(server.pid)
        statuses = [client.post(URL, json=fakes.body(200)).status_code]

        def replaced() -> bool:
            statuses.append(client.post(URL, json=fakes.body(0)).status_code)
            return gone(first)

        wait_for(replaced, 30)
        assert set(statuses) == {200}
        assert len(forked(server.pid)) == 1


def test_calls_that_queue_get_more_processes_and_none_is_lost_when_they_go(folder: Path, monkeypatch: Any) -> None:
    versions = [fakes.version(folder, 1), fakes.version(folder, 3, quirk="slow", native=True)]
    fakes.route(folder, versions, champion=3, shadows=[Shadow(1, "before")], terms=Terms(most=2))
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        acknowledged(folder, 1)
        with loaded(server) as load:
            wait_for(lambda: len(forked(server.pid)) == 2, 60)
            load.wait(len(load.answers) + 50)
            # Both answer; one of them leaves in good order.
            os.kill(max(forked(server.pid)), signal.SIGTERM)
            load.wait(len(load.answers) + 50)
            answers = load.stop()
        assert {answer.status for answer in answers} == {200}
        assert client.post(URL, json=fakes.body()).status_code == 200


def test_a_worker_that_cannot_start_says_so_at_once_and_makes_no_storm(folder: Path) -> None:
    fakes.route(folder, [fakes.version(folder, 1, quirk="dies at once", native=True)])
    fakes.route(folder, [fakes.version(folder, 1, quirk="does not load", native=True)], endpoint="other")
    with start(folder) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        acknowledged(folder, 2)
        for _ in range(2):
            reply = client.post(URL, json=fakes.body())
            assert reply.status_code == 503
            assert "before it took calls: status 4" in reply.json()["error"]
        reply = client.post("/v2/models/other/infer", json=fakes.body())
        assert "package lightgbm is not installed in the environment of this version" in reply.json()["error"]
        assert client.get("/v2/models/delay/ready").status_code == 503
        found = wait_for(lambda: len(known := condition.read(folder)) == 2 and known)
        assert {one.state for one in found.values()} == {"failing"}
        assert any("package lightgbm is not installed" in str(one.problem) for one in found.values())
        assert server.log.read_text().count("ended: status 4") < 6


def test_many_models_under_a_small_budget_are_all_answered(folder: Path) -> None:
    routed = {}
    for number in range(200):
        version = fakes.version(folder, 1, bias=float(number))
        routed[f"m{number:03d}"] = EndpointRoute(
            Policy(f"m{number:03d}", "flights", 1, 1), fakes.SIGNATURE, {1: version}
        )
    write_snapshot(folder, Snapshot(1, 1, routed))
    environment = {"INSTAR_MEMORY": "20MiB"}  # half of it for portable models: 40 of them
    with (
        start(folder, durable=False, environment=environment) as server,
        httpx2.Client(base_url=server.url, timeout=30) as client,
    ):
        acknowledged(folder, 1)
        for number in (*range(200), *range(160, 200)):
            reply = client.post(f"/v2/models/m{number:03d}/infer", json=fakes.body())
            assert reply.json()["outputs"][0]["data"] == [number + 0.1]
        warm = [number for number in range(200) if state(client, f"m{number:03d}") == "warm"]
        assert warm == list(range(160, 200))
        # One change among them is taken up, and touches no other.
        routed["m000"] = EndpointRoute(
            Policy("m000", "flights", 2, 2), fakes.SIGNATURE, {2: fakes.version(folder, 2, bias=0.5)}
        )
        write_snapshot(folder, Snapshot(2, 1, routed))
        acknowledged(folder, 2)
        assert client.post("/v2/models/m000/infer", json=fakes.body()).json()["outputs"][0]["data"] == [0.6]
        assert client.post("/v2/models/m001/infer", json=fakes.body()).json()["outputs"][0]["data"] == [1.1]
