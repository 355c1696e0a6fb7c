"""Tests with real clients run in an environment of their own (`./run test --full`), and are never collected without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.driving import Server, up

collect_ignore = ["callers"]  # scripts for another environment

# Clients tell nobody but our server of what they do, and do not wait minutes for one that is away.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["MLFLOW_DISABLE_AUTOLOGGING_INTEGRATION_TESTING"] = "true"
for name in (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "MLFLOW_WORKSPACE",
):
    os.environ.pop(name, None)

CONTRACT = """
[project]
name = "trains"
objective = "Warn of late trains"
owner = "ada"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0 }
split = { decide = "10d", judge = "10d" }
outcome = { due = "1d" }
"""


# These libraries warn about themselves; what they say is not ours to mend.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/clients" in str(item.path).replace(os.sep, "/"):
            item.add_marker(pytest.mark.filterwarnings("default"))


def project(folder: Path) -> Path:
    """A project without steps: all that happens in it comes from clients."""
    (folder / "instar.toml").write_text(CONTRACT)
    (folder / "pipeline.py").write_text("")
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's folder."""
    return project(tmp_path_factory.mktemp("trains"))


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    """One `instar up` for all clients."""
    with up(folder) as server:
        yield server


@pytest.fixture
def tracking(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The client's address of the server, set as its user sets it; everything else of the client is as new."""
    import mlflow
    from mlflow.utils import autologging_utils

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(server.url)
    yield server.url
    while mlflow.active_run() is not None:
        mlflow.end_run()
    # As `mlflow.autolog(disable=True)`, and for those too that a test asked for by name, which that call leaves alone.
    for integration in autologging_utils.AUTOLOGGING_INTEGRATIONS.values():
        integration.update(disable=True, **{autologging_utils.AUTOLOGGING_CONF_KEY_IS_GLOBALLY_CONFIGURED: True})
    mlflow.set_experiment(experiment_name="Default")
