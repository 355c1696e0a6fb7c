from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import serve, traffic
from instar.release.registry import ModelVersion
from instar.testing import NOON
from tests.operate.conftest import CONTRACT
from tests.operate.test_promotion import promote

E = "/api/projects/flights/endpoints/delay"


@pytest.fixture
def client(store: Store, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    monkeypatch.setattr(traffic, "log_of", lambda _store: log)
    app = control.build(App(store, tmp_path), [*serve.routes, *traffic.routes])
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_a_policy_is_read_and_set_by_the_revision_that_was_looked_at(
    client: TestClient, store: Store, make_version: Callable[..., ModelVersion]
) -> None:
    one = make_version("one")
    make_version("two")
    assert client.get(f"{E}/policy").status_code == 404
    first = {"policy": {"champion": 1}, "reason": "the first"}
    assert client.put(f"{E}/policy", json=first).status_code == 400
    made = client.put(f"{E}/policy", json=first, headers={"If-Match": '"0"'})
    assert made.status_code == 200
    assert made.headers["etag"] == '"1"'
    assert made.json()["effect"] == {"routes": 1, "gateways": [], "building": []}
    read = client.get(f"{E}/policy")
    assert read.json()["document"]["champion"] == 1
    assert read.json()["revision"]["bundles"] == {"1": one.bundle}
    draft = {**read.json()["document"], "arms": [{"name": "b", "version": 2, "weight": 10}]}
    body = {"policy": draft, "reason": "compare", "dry_run": True}
    tried = client.put(f"{E}/policy", json=body, headers={"If-Match": read.headers["etag"]}).json()
    assert "+weight = 10" in tried["difference"]
    assert tried["revision"] is None
    body["dry_run"] = False
    done = client.put(f"{E}/policy", json=body, headers={"If-Match": read.headers["etag"]})
    assert done.json()["revision"]["cause"] == "compare"
    stale = client.put(f"{E}/policy", json=body, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["found"]) == (412, "revision 2")
    back = client.post(f"{E}/back", json={"reason": "enough"}).json()
    assert back["document"]["arms"] == []
    history = client.get(E).json()["history"]
    assert [one["cause"] for one in history] == ["the first", "compare", "back to revision 1: enough"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"policy": {"champion": 9}}, 404),
        ({"policy": {"champion": 2}}, 409),
        ({"policy": {"champoin": 1}}, 400),
        ({"policy": {"champion": 1, "sticky": "x"}}, 400),
        ({"policy": {"champion": 1, "canary": {"version": 1, "share": 5}}}, 400),
        ({"reason": ""}, 400),
        ({"reason": None}, 400),
        ({"more": 1}, 400),
    ],
    ids=str,
)
def test_a_wrong_policy_is_refused(
    client: TestClient, store: Store, make_version: Callable[..., ModelVersion], change: dict[str, Any], status: int
) -> None:
    promote(store, make_version("one"))
    make_version("two", approved=False)
    body = {"policy": {"champion": 1}, "reason": "why", **change}
    assert client.put(f"{E}/policy", json=body, headers={"If-Match": '"1"'}).status_code == status
    assert client.get(f"{E}/policy").headers["etag"] == '"1"'


def test_two_versions_are_compared(
    client: TestClient, store: Store, log: Any, make_version: Callable[..., ModelVersion]
) -> None:
    promote(store, make_version("one"))
    make_version("two")
    log.add(NOON, {1: 0.4, 2: 0.6})
    window = {"since": NOON.isoformat(), "until": "2100-01-01"}
    assert client.get(f"{E}/compare", params=window).status_code == 400  # nobody is beside the champion
    found = client.get(f"{E}/compare", params={**window, "versions": [1, 2]}).json()
    assert (found["whole"]["pairs"], found["whole"]["disagree"]) == (1, 1)
    for wrong in (
        {"versions": ["1"]},
        {"versions": ["1", "1"]},
        {"versions": ["a", "2"]},
        {"by": "colour", "versions": [1, 2]},
    ):
        assert client.get(f"{E}/compare", params={**window, **wrong}).status_code == 400
