"""Notes through the API and the command line: on runs, versions, tables and models, with the names that people write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from instar.app import App, open_app
from instar.core.identity import local_user
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import notes as api
from instar.interfaces.cli.main import cli
from instar.train import runs

CONTRACT = """
[project]
name = "parcels"
objective = "Know when they come"
owner = "ada"

[problem.late]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
split = { by = "event_time", decide = "10d", judge = "10d", min_rows = 20 }
outcome = { due = "1d" }
"""


@pytest.fixture
def client(kept: Store, root: Path, filled: dict[str, Any]) -> TestClient:
    return TestClient(control.build(App(kept, root), api.routes), base_url="http://127.0.0.1:5000")


def test_a_note_goes_round(client: TestClient, kept: Store) -> None:
    (run, *_) = runs.list_runs(kept, "parcels", limit=1)
    sent = {"subject": run.id[:20], "text": "a typo"}
    made = client.post("/api/projects/parcels/notes", json=sent)
    assert made.status_code == 201
    note = made.json()
    assert (note["subject"], note["author"], note["edited"]) == (run.id, local_user().name, None)
    listed = client.get("/api/projects/parcels/notes", params={"subject": run.id}).json()["notes"]
    assert listed == [note]
    changed = client.put(f"/api/projects/parcels/notes/{note['id']}", json={"text": "no typo"}).json()
    assert changed["text"] == "no typo"
    assert client.get("/api/projects/parcels/notes").json()["notes"] == [changed]
    assert client.delete(f"/api/projects/elsewhere/notes/{note['id']}").status_code == 404
    assert client.delete(f"/api/projects/parcels/notes/{note['id']}").json() == {"deleted": note["id"]}
    assert client.get("/api/projects/parcels/notes").json()["notes"] == []


def test_every_kind_of_record_can_have_notes(client: TestClient, kept: Store, filled: dict[str, Any]) -> None:
    from instar.train import experiments, logged_models

    experiment = experiments.ensure(kept, "parcels", "noted")
    foreign = experiments.ensure(kept, "elsewhere", "noted")
    model = logged_models.create(kept, "parcels", experiment=experiment.id, name="noted")
    subjects = {experiment.id: experiment.id, model.id: model.id, "parcels": "table parcels", "delay": "model delay"}
    subjects |= {"model delay": "model delay"}
    for name, subject in subjects.items():
        made = client.post("/api/projects/parcels/notes", json={"subject": name, "text": "x"})
        assert (made.status_code, made.json().get("subject")) == (201, subject)
        client.delete(f"/api/projects/parcels/notes/{made.json()['id']}")
    for name in ("delay@2", "parcels@1"):
        made = client.post("/api/projects/parcels/notes", json={"subject": name, "text": "x"}).json()
        assert made["subject"].startswith(("mver_", "tver_"))
        client.delete(f"/api/projects/parcels/notes/{made['id']}")
    assert client.post("/api/projects/parcels/notes", json={"subject": foreign.id, "text": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"subject": "run_NONE", "text": "x"}, 404),
        ({"subject": "nothing@7", "text": "x"}, 404),
        ({"subject": "run_NONE"}, 400),
        ({"subject": "run_NONE", "text": 3}, 400),
    ],
)
def test_a_note_on_nothing_or_of_nothing_is_refused(client: TestClient, body: dict[str, Any], status: int) -> None:
    assert client.post("/api/projects/parcels/notes", json=body).status_code == status


def test_the_command_line_writes_and_lists(tmp_path: Path) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    with open_app(tmp_path) as app:
        run = runs.start(app.store, "parcels", experiment="late")

    def say(*words: str, status: int = 0) -> str:
        done = CliRunner().invoke(cli, ["--project", str(tmp_path), "note", *words])
        assert (done.exit_code != 0) == (status != 0), done.output
        return done.output

    assert "no notes yet" in say("ls")
    note = say("add", run.id, "good curve").split()[0]
    assert "good curve" in say("ls", run.id)
    say("edit", note, "very good curve")
    assert "edited\n  very good curve" in say("ls")
    say("rm", note)
    assert say("ls", "--json").strip() == "[]"
    say("add", "nothing@1", "x", status=2)


def test_runs_of_a_store_without_a_project_have_notes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTAR_STORE", str(tmp_path / ".instar"))
    with open_app(tmp_path, need_project=False) as app:
        run = runs.start(app.store, app.project_name, experiment="late", capture=False).id
    monkeypatch.delenv("INSTAR_STORE")

    def say(*words: str) -> str:
        done = CliRunner().invoke(cli, ["--project", str(tmp_path), "note", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    note = say("add", run, "a typo").split()[0]
    say("edit", note, "no typo")
    assert "no typo" in say("ls", run)
    say("rm", note)
    assert "no notes yet" in say("ls")
