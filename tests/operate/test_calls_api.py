"""The record over the API, the command line, the Python client and the console: search, erase, hold, anchor, verify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from instar.app import App, open_app
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import calls, operate
from instar.interfaces.cli.main import cli
from instar.interfaces.console import pages
from instar.interfaces.sdk.client import Client
from instar.serve.log import erasing, record, sealing
from tests.operate.conftest import CONTRACT
from tests.operate.test_api import P
from tests.serve.filled import fill
from tests.serve.writing import Segment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "instar.toml").write_text(CONTRACT + '\n[problem.delay.record]\nkeep = "400d"\ninputs = "90d"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with open_app(str(folder)) as app:
        fill(app.store, 2)
        sealing.seal(app.store, grace_seconds=-1)
        yield app.store


@pytest.fixture
def client(store: Store, folder: Path) -> Iterator[TestClient]:
    routes = [*operate.routes, *calls.routes, *pages.routes]
    with TestClient(control.build(App(store, folder), routes), base_url="http://127.0.0.1") as made:
        yield made


def run(*arguments: str) -> Any:
    found = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout) if "--json" in arguments else found.stdout


def test_a_search_over_http_pages_through_the_record(client: TestClient) -> None:
    seen, cursor = [], None
    while True:
        query = {"input": ["carrier=UA", "distance>1000"], "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"{P}/calls", params=query).json()
        seen += [one["prediction"] for one in page["calls"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 10
    one = client.get(f"{P}/calls/{seen[0]}").json()
    assert (one["prediction"], one["inputs"]["carrier"]) == (seen[0], "UA")
    assert client.get(f"{P}/calls/call_00000000000000000000000000/0").status_code == 404
    assert client.get("/api/projects/other/calls", params={}).json()["calls"] == []
    assert client.get(f"/api/projects/other/calls/{seen[0]}").status_code == 404


@pytest.mark.parametrize(
    "query",
    [{"colour": "red"}, {"version": "x"}, {"since": "soon"}, {"limit": "0"}, {"input": "carier=UA"}, {"score": "0.5"}],
)
def test_a_mistaken_question_is_a_400_that_names_it(client: TestClient, query: dict[str, str]) -> None:
    assert client.get(f"{P}/calls", params=query).status_code == 400


def test_erasures_and_holds_over_http(client: TestClient, store: Store) -> None:
    assert client.post(f"{P}/erasures", json={"why": "none named"}).status_code == 400
    asked = client.post(f"{P}/erasures", json={"entity": "E1", "why": "request 17"})
    assert (asked.status_code, asked.json()["state"]) == (202, "asked")
    assert '"E1"' not in asked.text  # an id may hold the letters
    erasing.carry_out(store)
    (done,) = client.get(f"{P}/erasures").json()
    assert (done["state"], done["predictions"], done["why"]) == ("done", 4, "request 17")
    rows = client.get(f"{P}/calls", params={"limit": 1000}).json()["calls"]
    assert {row["erased"]["why"] for row in rows if row["erased"]} == {"request 17"}
    held = client.post(f"{P}/holds", json={"endpoint": "delay", "why": "case 4", "until": "2030-01-01"})
    assert held.status_code == 201
    assert client.post(f"{P}/erasures", json={"entity": "E2", "why": "request 18"}).status_code == 409
    assert [one["why"] for one in client.get(f"{P}/holds").json()] == ["case 4"]
    assert client.post(f"{P}/holds/{held.json()['id']}/release", json={"why": "closed"}).status_code == 200
    assert client.get(f"{P}/holds").json() == []


def test_the_head_is_there_for_whoever_keeps_it(client: TestClient) -> None:
    head = client.get(f"{P}/anchor").json()
    assert (head["project"], head["signature"]) == ("flights", None)
    assert client.get(f"{P}/audit", params={"sample": "0.5"}).json()["head"] == head["digest"]
    assert client.get(f"{P}/audit", params={"sample": "much"}).status_code == 400
    assert client.get(f"{P}/audit", params={"sample": "2"}).status_code == 400


def test_the_console_finds_calls(client: TestClient) -> None:
    page = client.get("/console/flights/calls", params={"input": "carrier=UA, distance>1000", "caller": ""})
    assert page.status_code == 200
    assert page.text.count('<th scope="row">') == 10
    assert "/console/flights/predictions/call_" in page.text
    refused = client.get("/console/flights/calls", params={"input": "carier=UA"}, headers={"accept": "text/html"})
    assert refused.status_code == 400
    assert 'value="carier=UA"' in refused.text
    twin = client.get("/console/flights/calls.json", params={"status": "503"}).json()
    assert [one["status"] for one in twin["calls"]] == [503, 503]


def test_the_python_client_gathers_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from instar.interfaces.sdk import calls as paging

    monkeypatch.setattr(paging, "A_PAGE", 4)
    made = Client.__new__(Client)
    monkeypatch.setattr(Client, "_path", lambda self, what: f"{P}/{what}")
    monkeypatch.setattr(Client, "_json", lambda self, method, path, query: client.get(path, params=query).json())
    assert len(made.calls(inputs=["carrier=UA"])) == 10
    assert len(made.calls(caller="ada", limit=5)) == 5
    assert made.calls(status=504) == []


def test_the_command_line_finds_calls(store: Store) -> None:
    found = run("audit", "search", "--input", "carrier=UA", "--caller", "ada", "--since", "2013-03-01", "--json")
    assert len(found["calls"]) == 10
    name = found["calls"][0]["prediction"]
    assert run("audit", "search", name, "--json")["prediction"] == name
    assert name in run("audit", "search", "--score", ">=0.5", "--limit", "1000")
    assert "more: --cursor" in run("audit", "search", "--limit", "2")
    assert "no call on the record is like that" in run("audit", "search", "--caller", "eve")
    assert "carrier" in run("audit", "search", name)


def test_the_command_line_erases_holds_and_anchors(store: Store, folder: Path) -> None:
    assert "15 predictions erased" in run("audit", "erase", "--key", "key", "--endpoint", "delay", "--why", "request 9")
    assert "request 9" in run("audit", "erasures")
    assert "case 4" in run("audit", "hold", "delay", "--why", "case 4")
    (hold,) = run("audit", "holds", "--json")
    assert "case 4" in run("audit", "holds")
    assert "released" in run("audit", "release", hold["id"], "--why", "closed")
    kept = run("audit", "anchor", "--file", "heads", "--json")
    assert kept["kept"] == ["heads"]
    assert "kept nowhere" in run("audit", "anchor")
    verified = run("audit", "verify", "--anchor", "heads", "--json")
    assert verified["checks"][-1] == {"name": "anchors", "holds": True, "looked_at": 1, "faults": []}
    assert "opened in part" in run("audit", "verify", "--since", "2013-03-01", "--sample", "0.5")


def test_the_contract_says_how_long_the_record_is_kept(folder: Path, store: Store) -> None:
    from datetime import timedelta

    from instar.core.errors import ContractError
    from instar.operate import upkeep
    from instar.plan.project import load_project, parse_contract
    from instar.serve.log.retention import Terms

    assert upkeep.terms_of(load_project(folder).contract) == {"delay": Terms(timedelta(days=400), timedelta(days=90))}
    for wrong in ('keep = "0d"', 'keep = "1d"\ninputs = "2d"', 'keap = "1d"'):
        with pytest.raises(ContractError):
            parse_contract(CONTRACT + f"\n[problem.delay.record]\n{wrong}\n")


def test_calls_that_are_only_counted_are_told_where_calls_are_searched(client: TestClient, store: Store) -> None:
    segment = Segment(store.folder, boot=78)
    segment.put(
        record.encode_entry(record.Skipped(1_700_000_000_000_000, 1_700_000_060_000_000, 2, 1234, "Overloaded: full"))
    )
    segment.end()
    sealing.seal(store)
    assert "1,234 refused and 2 answered, 2023-11-14 22:13:20Z to 2023-11-14 22:14:20Z: Overloaded" in run(
        "audit", "search"
    )
    (told,) = run("audit", "search", "--json")["counted"]
    assert (told["endpoint"], told["refused"], told["answered"]) == ("delay", 1234, 2)
    assert client.get(f"{P}/calls").json()["counted"] == [told]
    page = client.get("/console/flights/calls", headers={"accept": "text/html"})
    assert "Only counted" in page.text
    assert "Overloaded: full" in page.text
    assert client.get(f"{P}/calls", params={"since": "2024-01-01"}).json()["counted"] == []
