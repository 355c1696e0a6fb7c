"""Changing traffic in the console: each form says what would change and changes nothing; the call that it shows does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core import tokens
from instar.core.identity import Role, local_caller
from instar.core.settings import Settings
from instar.core.store import Store
from instar.core.tokens import Wish
from instar.interfaces import control
from instar.interfaces.api import access, traffic
from instar.interfaces.api.application import Application
from instar.interfaces.api.doorkeeper import Doorkeeper
from instar.interfaces.console import pages
from instar.release.registry import ModelVersion
from instar.serve.access import granting
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Arm, Policy, Shadow
from tests.operate.conftest import CONTRACT
from tests.operate.test_promotion import promote

HERE = "/console/flights/endpoints/delay/traffic"
ROUTES = [*access.routes, *traffic.routes, *pages.routes]
Make = Callable[..., ModelVersion]


@pytest.fixture
def client(store: Store, tmp_path: Path, make_version: Make) -> Iterator[TestClient]:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    promote(store, make_version("one"))
    make_version("two")
    make_version("three", approved=False)
    with TestClient(control.build(App(store, tmp_path), ROUTES), base_url="http://127.0.0.1") as client:
        yield client


def now(store: Store) -> Policy:
    found = routing.current(store, "delay")
    assert found is not None
    return found.policy


def do(client: TestClient, store: Store, **asked: str) -> Policy:
    """Ask a form, see that nothing changed, and send the call that its page shows."""
    before = now(store)
    view = client.get(f"{HERE}.json", params={"reason": "to try it", **asked}).json()
    assert now(store) == before
    call = view["change"]["call"]
    done = client.request(call["method"], call["path"], json=call["body"], headers={"if-match": call["if_match"]})
    assert done.status_code == 200, done.text
    assert done.json()["difference"] == view["change"]["difference"]
    return now(store)


def test_each_form_shows_a_change_that_one_call_makes(client: TestClient, store: Store) -> None:
    first = now(store).number
    shared = do(client, store, change="weights", **{"weight.2": "10", "weight.3": ""})
    assert shared.arms == (Arm("v2", 2, 10),)
    pinned = do(client, store, change="pin", caller="web", version="2")
    assert [str(one) for one in pinned.rules[0].when] == ["caller is web"]
    shadowed = do(client, store, change="shadow", version="3", share="25")
    assert shadowed.shadows == (Shadow(3, "shadow", 25),)
    view = client.get(f"{HERE}.json").json()
    assert view["pins"] == [{"caller": "web", "version": 2}]
    assert [(one["number"], one["share"]) for one in view["versions"]] == [(3, 0), (2, 10), (1, 90)]
    assert do(client, store, change="unpin", caller="web").rules == ()
    assert do(client, store, change="no shadow", version="3").shadows == ()
    written = do(client, store, change="policy", document='champion = 2\n[[rules]]\nname = "b"\n'
                 'when = [{ header = "x-beta" }]\nversion = 1\n')  # fmt: skip
    assert (written.champion, written.rules[0].reason) == (2, "rule b")
    again = do(client, store, change="back", to=str(first))
    assert (again.champion, again.arms, again.rules) == (1, (), ())
    last = routing.history(store, "delay")[-1]
    assert last.cause == f"back to revision {first}: to try it"


def test_a_page_says_what_would_change_and_who_would_answer(client: TestClient) -> None:
    asked = {"change": "weights", "weight.2": "30", "reason": "<b>compare"}
    page = client.get(HERE, params=asked).text
    assert '<span class="plus">+weight = 30</span>' in page
    assert "70 %" in page
    assert "Why: &lt;b&gt;compare" in page
    assert "data-call=" in page
    nothing = client.get(HERE, params={"change": "policy", "document": "champion = 1", "reason": "the same"}).text
    assert "that is its policy already" in nothing
    assert "data-call=" not in nothing


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"change": "weights", "weight.3": "10"}, 409, "approv"),
        ({"change": "weights", "weight.2": "x"}, 400, "that is no share"),
        ({"change": "weights", "weight.2": "130"}, 400, "100"),
        ({"change": "weights", "weight.x": "1"}, 400, "that is no number"),
        ({"change": "pin", "version": "2"}, 400, "the caller is missing"),
        ({"change": "pin", "version": "9", "caller": "web"}, 404, "delay@9"),
        ({"change": "unpin", "caller": "web"}, 404, "not pinned"),
        ({"change": "no shadow", "version": "2"}, 404, "no shadow"),
        ({"change": "shadow", "version": "9" * 5000}, 400, "that is no number"),
        ({"change": "back", "to": "99"}, 404, "no such policy revision"),
        ({"change": "policy", "document": "champoin = 1"}, 400, "did you mean"),
        ({"change": "elsewhere"}, 400, "there is no such change"),
        ({"change": "weights", "weight.2": "10", "reason": ""}, 400, "needs a reason"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_above_what_was_typed(
    client: TestClient, store: Store, asked: dict[str, str], status: int, said: str
) -> None:
    before = now(store)
    page = client.get(HERE, params={"reason": "why not", **asked})
    assert page.status_code == status
    assert 'role="alert"' in page.text
    assert said in page.text
    assert 'id="weights"' in page.text
    assert client.get(f"{HERE}.json", params={"reason": "why not", **asked}).status_code == status
    assert now(store) == before


def test_a_change_that_was_decided_upon_an_older_policy_is_refused(client: TestClient, store: Store) -> None:
    do(client, store, change="shadow", version="3")
    asked = {"change": "back", "to": "1", "reason": "enough"}
    call = client.get(f"{HERE}.json", params=asked).json()["change"]["call"]
    do(client, store, change="pin", caller="web", version="2")
    late = client.post(call["path"], json=call["body"], headers={"if-match": call["if_match"]})
    assert (late.status_code, late.json()["type"]) == (412, "Conflict")
    assert now(store).rules


def test_only_operators_come_to_the_forms_and_only_from_the_servers_own_pages(client: TestClient, store: Store) -> None:
    secrets = {}
    for role in (Role.READER, Role.OPERATOR):
        _, secrets[role] = tokens.create(store, "flights", Wish(role.value, {"flights": [role]}), local_caller())
    granting.publish(store)
    strict = Doorkeeper(store, Settings(loopback="token"))
    with TestClient(Application(App(store, None), ROUTES, doorkeeper=strict), base_url="http://127.0.0.1") as browser:
        browser.post("/api/session", json={"token": secrets[Role.READER]})
        assert browser.get(HERE).status_code == 403
        assert HERE not in browser.get("/console/flights/endpoints/delay").text
        browser.post("/api/session", json={"token": secrets[Role.OPERATOR]})
        assert HERE in browser.get("/console/flights/endpoints/delay").text
        asked = {"change": "pin", "caller": "web", "version": "2", "reason": "their model"}
        call: dict[str, Any] = browser.get(f"{HERE}.json", params=asked).json()["change"]["call"]
        headers = {"if-match": call["if_match"]}
        for origin in ("http://elsewhere.example", None):
            more = {"origin": origin} if origin else {}
            refused = browser.put(call["path"], json=call["body"], headers=headers | more)
            assert refused.status_code == 403
        done = browser.put(call["path"], json=call["body"], headers=headers | {"origin": "http://127.0.0.1"})
        assert done.status_code == 200
    last = routing.history(store, "delay")[-1]
    assert (last.actor, last.cause) == ("operator", "their model")
