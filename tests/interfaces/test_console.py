"""The console: every page over a real store, its JSON twin, its escaping, its policy, and one look by a real browser."""

from __future__ import annotations

import html
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from instar.app import App
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.interfaces import control as server
from instar.interfaces.console import operate, pages
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Arm, Condition, Rule, Shadow
from instar.testing import NOON
from instar.train import runs

from .filled import NASTY, PROJECT

HERE = f"/console/{PROJECT}"
PAGES = [
    HERE,
    f"{HERE}/tables",
    f"{HERE}/tables/features",
    f"{HERE}/tables/parcels/versions/1",
    f"{HERE}/runs",
    f"{HERE}/runs?filter=metrics.cost+%3C+0.3&order=metrics.cost+DESC&columns=metrics.cost,params.rate,tags.none",
    f"{HERE}/experiments",
    f"{HERE}/experiments?filter=name+LIKE+%27d%25%27&view=all",
    f"{HERE}/studies",
    f"{HERE}/models",
    f"{HERE}/models/delay/2",
    f"{HERE}/models/delay/3",
    f"{HERE}/endpoints/delay",
    f"{HERE}/endpoints/delay/traffic",
    f"{HERE}/endpoints/delay/traffic?change=shadow&version=1&share=50&reason=%3Cb%3Ewhy",
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
    for link in sorted(set(map(html.unescape, re.findall(r'href="(/[^"#]*)', text)))):
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
        "train": 7,
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


def test_runs_are_searched_ordered_and_paged(console: TestClient, filled: dict[str, Any]) -> None:
    asked = {
        "filter": "metrics.cost < 0.3 AND params.rate != '9'",
        "order": "metrics.cost ASC",
        "columns": "metrics.cost",
    }
    view = console.get(f"{HERE}/runs.json", params=asked).json()
    assert [run["metrics"]["cost"] for run in view["runs"]] == [0.5 / 3, 0.25]
    assert (view["total"], view["columns"], view["next"]) == (2, ["metrics.cost"], None)
    text = console.get(f"{HERE}/runs", params=asked).text
    assert "2 runs that the search finds, in the order asked for" in text
    assert html.escape(asked["filter"], quote=True).replace("&#x27;", "&#39;") in text
    last = console.get(f"{HERE}/runs.json", params={"order": "metrics.cost DESC", "view": "all"}).json()
    assert set(last["without"]) == {run["id"] for run in last["runs"] if "cost" not in run["metrics"]}
    for wrong in ({"filter": "metrics.cost <"}, {"columns": "cost"}, {"token": "x"}, {"view": "some"}):
        assert console.get(f"{HERE}/runs.json", params=wrong).status_code == 400


@pytest.mark.parametrize(
    ("path", "field", "typed"),
    [
        ("runs", "filter", "metrics.cost <"),
        ("runs", "order", "metrics. DESC"),
        ("runs", "columns", "cost"),
        ("experiments", "filter", "name <"),
    ],
)
def test_a_search_that_cannot_be_read_stands_there_still_with_the_reason(
    console: TestClient, path: str, field: str, typed: str
) -> None:
    reply = console.get(f"{HERE}/{path}", params={field: typed})
    assert reply.status_code == 400
    assert f'value="{html.escape(typed)}"' in reply.text
    assert 'role="alert"' in reply.text
    assert f'action="{HERE}/{path}"' in reply.text


def test_a_list_of_one_experiment_names_it_once(console: TestClient, filled: dict[str, Any]) -> None:
    (one,) = [one for one in console.get(f"{HERE}/experiments.json").json()["experiments"] if one["name"] == "delay"]
    text = console.get(f"{HERE}/runs?experiment={one['id']}").text
    assert ">of delay</span></h1>" in text
    assert "<th>Experiment</th>" not in text
    assert console.get(f"{HERE}/runs?experiment=exp_none").status_code == 404


def test_a_run_says_what_it_ran_on(console: TestClient, filled: dict[str, Any]) -> None:
    run = filled["versions"][0].run
    view = console.get(f"{HERE}/runs/{run}.json").json()
    assert "cores" in view["surroundings"]["processor"]
    assert view["surroundings"]["libraries"]["numpy"]
    assert f"{len(view['surroundings']['libraries'])} libraries" in console.get(f"{HERE}/runs/{run}").text


def test_runs_are_compared_side_by_side(console: TestClient, filled: dict[str, Any]) -> None:
    names = [version.run for version in filled["versions"]]
    path = f"{HERE}/compare?" + "&".join(f"run={name}" for name in names)
    reply = console.get(path)
    assert reply.status_code == 200
    assert NASTY not in reply.text
    assert reply.text.count("<svg class=") >= 3  # in parallel, the curve of the loss, the cost by rate
    assert not re.search(r"\sstyle=|<style", reply.text)
    (link,) = re.findall(r'<a href="([^"]*)">This page as JSON', reply.text)
    document = console.get(html.unescape(link)).json()["document"]
    assert document["parameters"] == {"rate": [0.1, 0.2, 0.3]}
    assert console.get(f"{HERE}/compare").status_code == 400
    assert console.get(f"/console/elsewhere/compare?run={names[0]}").status_code == 404


def test_a_study_is_shown_with_its_short_list(console: TestClient, filled: dict[str, Any]) -> None:
    path = f"{HERE}/studies/{filled['study']}"
    text = console.get(path).text
    assert NASTY not in text
    assert "Short list by cost" in text
    assert text.count("<svg class=") >= 2
    report = console.get(f"{path}.json").json()["report"]
    assert len(report["trials"]) == 4
    assert report["shortlist"][0]["cost"] == min(one["cost"] for one in report["shortlist"])
    assert console.get(f"{HERE}/find?id={filled['study']}").headers["location"] == path
    assert console.get(f"/console/elsewhere/studies/{filled['study']}").status_code == 404


def test_the_front_door_leads_to_the_project(console: TestClient) -> None:
    for path in ("/", "/console"):
        assert console.get(path).headers["location"] == HERE


def test_every_asset_is_listed_and_served(console: TestClient) -> None:
    assert {file.name for file in (pages.HERE / "assets").iterdir()} == set(pages.ASSETS)
    for name in pages.ASSETS:
        assert console.get(f"/console/assets/{name}").status_code == 200


CALL = "call_01J9ZZZZZZ000001000000000A"


class OneCall:
    """A prediction log that holds one prediction."""

    def __init__(self, table_version: str) -> None:
        self.table_version = table_version

    def find(self, prediction: str) -> dict[str, Any]:
        if prediction != f"{CALL}/0":
            raise NotFound("the log has no such prediction", subject=prediction)
        answers = [{"version": 2, "role": "champion", "score": 0.7, "decision": 1, "threshold": 0.25}]
        return {
            "prediction": prediction, "call": CALL, "row": 0, "at": NOON, "recorded_at": NOON, "caller": NASTY,
            "endpoint": "delay", "policy": 3, "reason": "champion", "version": 2, "score": 0.7, "decision": 1,
            "threshold": 0.25, "status": 200, "latency_us": 900, "entity": "p00003", "request_id": None,
            "table_version": self.table_version, "inputs": {"weight": 0.2, "carrier": NASTY}, "answers": answers,
        }  # fmt: skip


def test_a_prediction_is_traced_to_its_rows(
    console: TestClient, filled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = OneCall(filled["gold"])
    monkeypatch.setattr(operate, "log_of", lambda store: log)
    path = f"{HERE}/predictions/{CALL}/0"
    assert console.get(f"{HERE}/find?id={CALL}/0").headers["location"] == path
    text = console.get(path).text
    assert NASTY not in text
    assert "Yes" in text
    view = console.get(f"{path}.json").json()["trace"]
    kinds = {hop["kind"] for hop in _walk(view)}
    assert {"prediction", "call", "policy revision", "model version", "approval", "bundle", "run"} <= kinds
    assert {hop["name"] for hop in _walk(view)} >= {"delay@2", "features@1", "parcels@2"}
    assert console.get(f"{HERE}/predictions/{CALL}/1").status_code == 404
    assert console.get(f"/console/elsewhere/predictions/{CALL}/0").status_code == 404


def test_a_call_that_failed_says_so_and_not_that_its_inputs_were_let_go(
    console: TestClient, filled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = OneCall(filled["gold"])
    failed = {
        "score": None,
        "decision": None,
        "status": 400,
        "error": "MalformedRequest: $",
        "inputs": None,
        "answers": [],
    }
    monkeypatch.setattr(log, "find", lambda name: {**OneCall.find(log, name), **failed})
    monkeypatch.setattr(operate, "log_of", lambda store: log)
    text = console.get(f"{HERE}/predictions/{CALL}/0").text
    assert "Nothing: the call failed." in text
    assert "MalformedRequest: $" in text
    assert "no inputs were recorded" in text


def _walk(hop: dict[str, Any]) -> list[dict[str, Any]]:
    return [hop, *(inner for one in hop["hops"] for inner in _walk(one))]


def test_the_endpoint_shows_its_rules_and_shares(console: TestClient, kept: Store, filled: dict[str, Any]) -> None:
    now = routing.current(kept, "delay")
    assert now is not None
    rule = Rule("beta & <b>", (Condition(header="x-beta", equals="yes"), Condition(tag="site")), 1)
    routing.set_policy(
        kept, PROJECT, "delay", champion=2, arms=[Arm("b", 1, 30)], sticky="caller", rules=[rule],
        shadows=[Shadow(3, "frozen", 25)], bundles={**now.bundles, 1: filled["first"].bundles[1]}, cause="compare",
    )  # fmt: skip
    try:
        text = console.get(f"{HERE}/endpoints/delay").text
        assert "header x-beta is yes and tag site is there" in text
        assert "rule beta &amp; &lt;b&gt;" in text
        assert "arm b" in text
        assert "70 %" in text
        assert "hears 25 %" in text
        assert "same caller" in text
        view = console.get(f"{HERE}/endpoints/delay.json").json()["now"]
        assert [(one["version"], one["role"], one["share"], one["heard"]) for one in view["answers"]] == [
            (2, "champion", 0.7, None), (1, "arm b", 0.3, None), (3, "frozen", 0.0, 0.25),
        ]  # fmt: skip
        differ = console.get(f"{HERE}/endpoints/delay/differences?since=2000-01-01")
        assert differ.status_code == 200
        assert "What each said" in differ.text
        assert console.get(f"{HERE}/endpoints/delay/differences?versions=1&versions=1").status_code == 400
    finally:
        routing.set_policy(
            kept, PROJECT, "delay", champion=2, shadows=[Shadow(3, "frozen")], bundles=now.bundles, cause="as before"
        )


def test_a_browser_draws_the_page_and_runs_its_scripts(served: str, chromium: str, tmp_path: Path) -> None:
    dom = _dump(chromium, f"{served}{HERE}/endpoints/delay", tmp_path)
    assert "What answers" in dom
    assert dom.count('class="line tone') == 4
    # The module ran under the page's policy: it hangs a readout below each chart.
    assert 'class="readout"' in dom
    assert "Refused to" not in dom


def test_a_link_that_a_client_of_mlflow_printed_leads_to_the_run(
    served: str, chromium: str, kept: Store, tmp_path: Path
) -> None:
    run = runs.list_runs(kept, "parcels")[0]
    for address in (f"{served}/", f"{served}/projects/parcels/"):
        dom = _dump(chromium, f"{address}#/experiments/{run.experiment_id}/runs/{run.id}", tmp_path)
        assert f"<title>Run {run.id}" in dom


@pytest.fixture
def served(kept: Store, root: Path, filled: dict[str, Any]) -> Iterator[str]:
    """The address of the console, served to a real browser."""
    application = server.build(App(kept, root), pages.routes)
    config = uvicorn.Config(application, host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(10)


def _dump(chromium: str, address: str, folder: Path) -> str:
    quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    command = [chromium, "--headless", "--no-sandbox", *quiet.split(), "--disable-sync", f"--user-data-dir={folder}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=3000", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
