"""An approval is taken back on the command line, over the API and in the console; what answers goes on."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.errors import BadInput, Conflict
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import release
from instar.interfaces.console import pages
from instar.release import registry
from instar.release.registry import ModelVersion
from tests.operate.conftest import CONTRACT
from tests.operate.test_promotion import promote

V = "/api/projects/flights/models/delay/versions/1"


def test_on_the_command_line(store: Store, run: Callable[..., Any], make_version: Callable[..., ModelVersion]) -> None:
    promote(store, make_version("one"))
    said = run("approve", "delay@1", "--withdraw", "--note", "it smells")
    assert said.exit_code == 0, said.output
    assert "delay@1 is approved no more: it smells" in said.output
    assert "answers calls of delay until that is changed" in said.output
    with pytest.raises(Conflict, match="no approval"):
        run("approve", "delay@1", "--withdraw", "--note", "again")
    with pytest.raises(BadInput, match="not both"):
        run("approve", "delay@1", "--withdraw", "--note", "x", "--expires-at", "2030-01-01")


def test_over_the_api_with_the_call_that_the_console_shows(
    store: Store, tmp_path: Path, make_version: Callable[..., ModelVersion]
) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    version = make_version("one")
    store.database.write(lambda tx: registry.write_state(tx, version, "approved"))
    routes = [*release.routes, *pages.routes]
    with TestClient(control.build(App(store, tmp_path), routes), base_url="http://127.0.0.1") as client:
        page = client.get("/console/flights/models/delay/1").text
        (call,) = [json.loads(html.unescape(text)) for text in re.findall(r'data-call="([^"]*)"', page)]
        assert "Withdraw the approval" in page
        assert client.post(call["path"], json={"reason": " "}).status_code == 400
        done = client.post(call["path"], json={**call["body"], "reason": "it smells"})
        assert [one["state"] for one in done.json()["withdrawn"]] == ["withdrawn"]
        assert client.post(f"{V}/withdraw", json={"reason": "again"}).status_code == 409
        assert registry.find(store, "flights", "delay@1").state == "registered"
        page = client.get("/console/flights/models/delay/1").text
        assert "Withdraw the approval" not in page
        assert ">Approve</button>" in page
