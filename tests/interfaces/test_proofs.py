"""What came of making a run again, wherever people and programs look: pages, API, client, command line, Python, cards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

import instar
from instar.app import App, open_app
from instar.core.store import Store
from instar.interfaces import control as server
from instar.interfaces.api import release, train
from instar.interfaces.cli import train as train_commands
from instar.interfaces.console import pages
from instar.release import registry
from instar.release.card import card, to_markdown
from instar.train import artifacts, bundle, proofs, reproductions, run_log, runs
from instar.train.reproductions import Reproduction
from instar.train.verdict import Cause, Comparison
from tests.operate import again

from .filled import NASTY, PROJECT

HERE = f"/console/{PROJECT}"


def repeat(store: Store, name: str) -> tuple[str, list[str]]:
    """Two repetitions of a version's run: the first came out different; returns the run, and these, the newest first."""
    version = registry.find(store, PROJECT, name)
    run = runs.get_run(store, bundle.load_manifest(store.blobs, version.bundle).run)
    made = []
    cause = Cause("variable", "LAND", "a", "b", f"the variable {NASTY} has another value")
    for verdict, causes in (("different", (cause,)), ("identical", ())):
        one = reproductions.begin(store, run, run.inputs)
        comparison = Comparison(verdict, 1e-6, {}, {})
        told = Reproduction(run.id, one.id, comparison, causes, (), None, 1.0, store.actor.name, store.clock.wall())
        reproductions.conclude(store, PROJECT, told, {"cost": 0.25})
        runs.finish(store, one.id)
        made.append(one.id)
    return run.id, made[::-1]


@pytest.fixture(scope="module")
def repeated(kept: Store, filled: dict[str, Any]) -> tuple[str, list[str]]:
    return repeat(kept, "delay@2")


@pytest.fixture(scope="module")
def served(kept: Store, root: Path, repeated: tuple[str, list[str]]) -> Iterator[TestClient]:
    application = server.build(App(kept, root), [*pages.routes, *release.routes, *train.routes])
    with TestClient(application, base_url="http://127.0.0.1:5000", follow_redirects=False) as client:
        yield client


def rows(text: str) -> list[str]:
    """Rows of the table under the heading."""
    (section,) = re.findall(r"<section><h2>Made again</h2>(.*?)</section>", text, re.S)
    return re.findall(r"<tr><td>.*?</tr>", section, re.S)


def test_verdicts_are_on_the_page_of_the_run_and_of_the_model_version(
    served: TestClient, repeated: tuple[str, list[str]]
) -> None:
    run, made = repeated
    for path in (f"{HERE}/runs/{run}", f"{HERE}/models/delay/2"):
        text = served.get(path).text
        newest, older = rows(text)
        assert "identical" in newest
        assert made[0] in newest
        assert "different" in older
        assert "has another value" in older
        assert NASTY not in text
        twin = served.get(f"{path}.json").json()
        told = twin.get("reproductions") or twin["card"]["reproductions"]
        assert [(one["verdict"], one["repetition"]) for one in told] == [("identical", made[0]), ("different", made[1])]
    assert "Nobody has made it again" in served.get(f"{HERE}/models/delay/1").text


def test_the_page_of_a_repetition_says_what_it_repeats(served: TestClient, repeated: tuple[str, list[str]]) -> None:
    run, made = repeated
    text = served.get(f"{HERE}/runs/{made[1]}").text
    assert "This run was made to repeat" in text
    assert run in text
    assert served.get(f"{HERE}/runs/{made[1]}.json").json()["repeats"]["verdict"] == "different"


def test_the_api_and_the_client_say_who_when_and_why(served: TestClient, repeated: tuple[str, list[str]]) -> None:
    run, _ = repeated
    place = f"/api/projects/{PROJECT}/runs/{run}"
    told = served.get(f"{place}/reproductions").json()["reproductions"]
    assert served.get(place).json()["reproductions"] == told
    assert (told[0]["by"], told[0]["first_cause"], told[0]["run"]) == ("ada", None, run)
    assert told[1]["causes"] == [told[1]["first_cause"]]
    assert told[0]["at"] >= told[1]["at"]
    assert served.get(f"/api/projects/{PROJECT}/runs/run_none/reproductions").status_code == 404
    assert served.get(f"/api/projects/other/runs/{run}/reproductions").status_code == 404

    def handle(request: httpx2.Request) -> httpx2.Response:
        reply = served.request(request.method, request.url.raw_path.decode())
        return httpx2.Response(reply.status_code, content=reply.content)

    client = instar.connect("http://127.0.0.1:5000", project=PROJECT, transport=httpx2.MockTransport(handle))
    with client:
        assert client.reproductions(run) == told


def test_a_tag_that_somebody_changes_changes_no_verdict(kept: Store, repeated: tuple[str, list[str]]) -> None:
    run, made = repeated
    run_log.set_tags(kept, made[1], {"instar.verdict": "identical"})
    artifacts.log_artifact(kept, made[1], "reproduction.json", b"{}")
    assert [one.verdict for one in proofs.of_run(kept, PROJECT, run)] == ["identical", "different"]


def test_the_card_and_the_line_for_an_approver(kept: Store, repeated: tuple[str, list[str]]) -> None:
    run, made = repeated
    told = card(kept, registry.find(kept, PROJECT, "delay@2"))
    assert told["model"]["run"] == run
    text = to_markdown(told)
    assert f"- identical (as it was) on {told['reproductions'][0]['at'][:10]} by ada (`{made[0]}`)" in text
    assert "first cause: the variable" in text
    assert "Nobody has made it again." in to_markdown(card(kept, registry.find(kept, PROJECT, "delay@1")))
    found = proofs.of_run(kept, PROJECT, run)
    assert proofs.said([]) == "nobody has made it again"
    assert proofs.said(found).endswith("by ada; the newest of 2 repetitions")
    assert "first cause: the variable" in proofs.said(found[1:])
    assert proofs.of_run(kept, PROJECT, "") == []
    # What came of today's inputs says nothing about the model as it is.
    assert proofs.said([replace(found[1], newest=True), found[0]]).startswith("identical")
    assert proofs.said([replace(found[0], newest=True)]) == proofs.UNPROVEN


def test_from_python_and_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSTAR_STORE", "INSTAR_DATABASE", "INSTAR_URL"):
        monkeypatch.delenv(name, raising=False)
    root = again.write(tmp_path / "lamps")
    with open_app(root) as app:
        again.land(app.store, again.seen())
        run = again.fit(app.store, root, "steady")
    monkeypatch.chdir(root)
    assert instar.reproductions(run) == []
    made = instar.reproduce(run)
    (proof,) = instar.reproductions(run)
    assert (proof.verdict, proof.repetition, proof.by) == ("identical", made.repetition, made.by)
    assert made.document()["by"] == made.by
    shown = CliRunner().invoke(train_commands.commands["runs"], ["show", run, "--json"], catch_exceptions=False)
    assert json.loads(shown.stdout)["reproductions"] == [proofs.document(proof)]
    shown = CliRunner().invoke(train_commands.commands["runs"], ["show", run], catch_exceptions=False)
    assert re.search(rf"reproduced +identical \(as it was\) as {made.repetition} by {made.by}", shown.stdout)
