"""Ids are the same in all projects of a store: what is of one project is not there below the address of another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.all_routes import all_routes
from instar.interfaces.api.routes import Route

from .filled import PROJECT

ROUTES = [
    r
    for r in all_routes()
    if r.method == "GET" and r.path.startswith(("/api/projects/{project}", "/console/{project}"))
]
SINGLE = [r for r in ROUTES if set(re.findall(r"\{(\w+)", r.path)) - {"project"}]
# Of these the filled store has none.
NONE = {"{execution}", "{rollout}", "{call}", "{prediction", "{digest}", "/file", "artifacts/"}


@pytest.fixture(scope="module")
def client(kept: Store, root: Path, filled: dict[str, Any]) -> Iterator[TestClient]:
    with TestClient(
        control.build(App(kept, root), ROUTES), base_url="http://127.0.0.1", follow_redirects=False
    ) as made:
        yield made


@pytest.mark.parametrize(
    "route", [r for r in SINGLE if not any(one in r.path for one in NONE)], ids=lambda route: route.path
)
def test_a_record_is_not_there_below_another_project(client: TestClient, filled: dict[str, Any], route: Route) -> None:
    version = filled["versions"][0]
    experiment = client.get(f"/api/projects/{PROJECT}/runs/{version.run}").json()["experiment_id"]
    values = {
        "run": version.run, "evaluation": version.evaluation, "model": "delay", "number": "1", "version": "1",
        "endpoint": "delay", "table": "features", "study": filled["study"], "experiment": experiment, "metric": "cost",
        "id": version.id,
    }  # fmt: skip
    if "/tables/" in route.path:
        values["number"] = "1"
    for project, known in ((PROJECT, True), ("elsewhere", False)):
        path = re.sub(r"\{(\w+)(?::path)?\}", lambda one, p=project: {**values, "project": p}[one[1]], route.path)  # type: ignore[misc]
        status = client.get(path, params={"versions": ["1", "2"]}).status_code
        assert (status in (200, 303)) is known, f"{path}: {status}"
        assert known or status == 404
