"""The API of planning: executions, what they printed, schedules; and their page in the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from instar.app import open_app
from instar.interfaces import control
from instar.interfaces.api import plan
from instar.interfaces.cli.main import cli
from instar.interfaces.console import pages
from instar.plan import importing
from tests.plan.conftest import CONTRACT
from tests.plan.test_cli_run import STEPS

P = "/api/projects/small"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    project: Path = tmp_path_factory.mktemp("project")
    (project / "data").mkdir()
    (project / "instar.toml").write_text(CONTRACT + '\n[schedule.nightly]\ncron = "0 3 * * *"\n')
    (project / "pipeline.py").write_text(STEPS)
    (project / "data/visits1.csv").write_text("id\n1\n2\n")
    assert CliRunner().invoke(cli, ["--project", str(project), "run"]).exit_code == 0
    with open_app(project) as app:
        routes = [*plan.routes, *pages.routes]
        with TestClient(control.build(app, routes), base_url="http://127.0.0.1") as client:
            yield client
    importing.forget()


def test_executions_are_listed_and_shown(client: TestClient) -> None:
    listed = client.get(f"{P}/executions?step=clean").json()
    assert [(one["step"], one["state"], one["attempt"]) for one in listed] == [("clean", "done", 1)]
    everything = client.get(f"{P}/executions?pipe={listed[0]['pipe']}&limit=3").json()
    assert len(everything) == 3
    shown = client.get(f"{P}/executions/{listed[0]['execution']}").json()
    assert shown["reasons"] == [{"what": "never ran", "name": "", "before": None, "after": None}]
    assert "inputs" in shown["ingredients"]


def test_what_an_execution_printed_is_text(client: TestClient) -> None:
    (clean,) = client.get(f"{P}/executions?step=clean").json()
    log = client.get(f"{P}/executions/{clean['execution']}/log")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert log.text == "rows: 2\nINFO visits: least is 0\n"
    page = client.get(f"/console/small/executions/{clean['execution']}").text
    assert "rows: 2\nINFO visits: least is 0" in page
    (odd,) = client.get(f"{P}/executions?step=odd").json()
    assert client.get(f"{P}/executions/{odd['execution']}/log").text == ""
    assert "It printed nothing." in client.get(f"/console/small/executions/{odd['execution']}").text


def test_schedules_are_listed(client: TestClient) -> None:
    (nightly,) = client.get(f"{P}/schedules").json()
    assert (nightly["schedule"], nightly["when"], nightly["last"]) == ("nightly", "0 3 * * *", None)


def test_bad_questions_are_refused(client: TestClient) -> None:
    assert client.get(f"{P}/executions?limit=many").status_code == 400
    assert client.get(f"{P}/executions/exec_none").status_code == 404
    assert client.get("/api/projects/other/executions").json() == []
    (clean,) = client.get(f"{P}/executions?step=clean").json()
    assert client.get(f"/api/projects/other/executions/{clean['execution']}/log").status_code == 404
