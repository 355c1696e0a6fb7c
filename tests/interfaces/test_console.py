"""The console: every page over a real store, its JSON twin, its escaping, its policy, and one look by a real browser."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.interfaces.console import pages

from .filled import NASTY, PROJECT

HERE = f"/console/{PROJECT}"
PAGES = [
    HERE,
    f"{HERE}/tables",
    f"{HERE}/tables/features",
    f"{HERE}/tables/parcels/versions/1",
    f"{HERE}/runs",
    f"{HERE}/models",
    f"{HERE}/models/delay/2",
    f"{HERE}/models/delay/3",
    f"{HERE}/endpoints/delay",
    f"{HERE}/alerts",
    f"{HERE}/journal",
    f"{HERE}/trace?id=delay@2",
    f"{HERE}/trace?id=parcels@2&forward=1",
]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_and_obeys_its_own_content_policy(console: TestClient, path: str) -> None:
    reply = console.get(path, headers={"accept": "text/html,*/*"})
    assert reply.status_code == 200, reply.text
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # Nothing inline that the policy would forbid, nothing from elsewhere.
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:", reply.text)
    assert re.findall(r"<script[^>]*>", reply.text) == ['<script type="module" src="/console/assets/console.js">']
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", reply.text)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_json_twin(console: TestClient, path: str) -> None:
    twin = console.get(path.replace("?", ".json?") if "?" in path else f"{path}.json")
    assert twin.headers["content-type"] == "application/json"
    assert twin.json()["project"] == PROJECT
    assert console.get(path, headers={"accept": "application/json"}).json() == twin.json()
    (link,) = re.findall(r'<a href="([^"]*)">This page as JSON', console.get(path).text)
    assert console.get(html.unescape(link)).json() == twin.json()


@pytest.mark.parametrize("path", PAGES)
def test_no_text_of_a_record_becomes_markup(console: TestClient, path: str) -> None:
    assert NASTY not in console.get(path).text


@pytest.mark.parametrize("path", PAGES)
def test_every_link_of_a_page_leads_somewhere(console: TestClient, path: str) -> None:
    text = console.get(path).text
    for link in sorted(set(re.findall(r'href="(/[^"#]*)', text))):
        reply = console.get(link)
        if reply.status_code == 303:
            reply = console.get(reply.headers["location"])
        assert reply.status_code == 200, f"{link}: {reply.text}"


def test_the_overview_tells_the_life_cycle_in_its_order(console: TestClient) -> None:
    text = console.get(HERE).text
    stages = ["plan", "data", "train", "evaluate", "release", "serve", "operate"]
    places = [text.index(f'<section id="{stage}">') for stage in stages]
    assert places == sorted(places)
    view = console.get(f"{HERE}.json").json()
    assert {one["name"]: one["count"] for one in view["steps"]} == {
        "plan": 1,
        "data": 2,
        "train": 3,
        "evaluate": 3,
        "release": 3,
        "serve": 1,
        "operate": 1,
    }
    assert view["contract"]["objective"] in console.get(HERE).text.replace("&lt;", "<").replace("&gt;", ">")
    assert view["alerts"][0]["metric"] == "drift_share"


def test_the_endpoint_says_what_answers_and_what_answered(console: TestClient) -> None:
    view = console.get(f"{HERE}/endpoints/delay.json").json()
    assert [(one["version"], one["role"], one["share"]) for one in view["now"]["answers"]] == [
        (2, "champion", 1.0),
        (3, "frozen", 0.0),
    ]
    canary = view["revisions"][1]["answers"]
    assert [(one["version"], one["role"], one["share"]) for one in canary][:2] == [
        (1, "champion", 0.9),
        (2, "canary", 0.1),
    ]
    names = [line["name"] for line in view["cost"]["lines"]]
    assert "delay, answers returned" in names
    assert "delay@2, champion" in names
    assert [text for _, text in view["cost"]["marks"]] == ["delay@2 champion: it saves 4 % of the cost"]


def test_a_table_page_shows_schema_profile_and_checks(console: TestClient) -> None:
    view = console.get(f"{HERE}/tables/features.json").json()
    weight = next(one for one in view["columns"] if one["name"] == "weight")
    assert weight["summary"]["missing"] == 8
    assert max(weight["bars"]) == 1.0
    assert view["version"]["checks"][0]["failing_rows"] > 0
    older = console.get(f"{HERE}/tables/parcels/versions/1.json").json()
    assert older["version"]["rows"] == 300
    assert [one["number"] for one in older["versions"]] == [2, 1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{HERE}/tables/none", 404),
        (f"{HERE}/tables/features/versions/99", 404),
        (f"{HERE}/tables/features/versions/x", 404),
        (f"{HERE}/runs/run_none", 404),
        (f"{HERE}/models/delay/99", 404),
        (f"{HERE}/endpoints/none", 404),
        ("/console/elsewhere/endpoints/delay", 404),
        (f"{HERE}/find?id=%3Cb%3E", 404),
        (f"{HERE}/records/prev_none", 404),
        ("/console/assets/..%2Fpages.py", 404),
    ],
)
def test_what_is_not_there_is_a_clear_page(console: TestClient, path: str, status: int) -> None:
    reply = console.get(path)
    assert reply.status_code == status
    if "/assets/" not in path:
        assert "<h1>NotFound</h1>" in reply.text
    assert "<b>" not in reply.text


def test_any_record_is_found_by_its_id_or_name(console: TestClient, filled: dict[str, Any]) -> None:
    version = filled["versions"][1]
    wanted = {
        filled["gold"]: f"{HERE}/tables/features/versions/1",
        "parcels@1": f"{HERE}/tables/parcels/versions/1",
        version.id: f"{HERE}/models/delay/2",
        version.bundle: f"{HERE}/models/delay/2",
        "delay@3": f"{HERE}/models/delay/3",
        version.run: f"{HERE}/runs/{version.run}",
        version.evaluation: f"/api/projects/{PROJECT}/evaluations/{version.evaluation}/report",
        filled["last"].id: f"{HERE}/endpoints/delay",
    }
    for name, page in wanted.items():
        assert console.get(f"{HERE}/find", params={"id": name}).headers["location"] == page


def test_the_front_door_leads_to_the_project(console: TestClient) -> None:
    for path in ("/", "/console"):
        assert console.get(path).headers["location"] == HERE


def test_every_asset_is_listed_and_served(console: TestClient) -> None:
    assert {file.name for file in (pages.HERE / "assets").iterdir()} == set(pages.ASSETS)
    for name in pages.ASSETS:
        assert console.get(f"/console/assets/{name}").status_code == 200
