"""A store without a project: `instar up` in any folder serves tracking, and commands that need no contract work on it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

INSTAR = [sys.executable, "-m", "instar.interfaces.cli.main"]


def instar(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*INSTAR, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def up(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server as a person starts it, and its address."""
    command = [*INSTAR, "up", "--port", "0", *arguments]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"Instar serves (\S+) on (http://\S+)", line):
            assert found[1] == "default"
            return server, found[2]
    raise AssertionError(f"the server ended with {server.wait()}")


def down(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bare")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    server, url = up(folder)
    yield url
    down(server)


def test_runs_are_kept_in_the_stores_own_project(folder: Path, url: str) -> None:
    assert httpx2.get(f"{url}/api/projects").json()["own"] == "default"
    started = httpx2.post(f"{url}/api/projects/default/runs", json={"experiment": "first", "parameters": {"x": 1}})
    assert started.status_code == 201
    (listed,) = json.loads(instar(folder, "runs", "ls", "--json").stdout)
    assert (listed["id"], listed["experiment"]) == (started.json()["id"], "first")
    assert started.json()["id"] in instar(folder, "runs", "show", listed["id"]).stdout
    assert instar(folder, "models", "ls", "--json").stdout.strip() == "[]"
    assert "run" in instar(folder, "trace", listed["id"]).stdout


def test_the_console_is_there(url: str) -> None:
    page = httpx2.get(f"{url}/", follow_redirects=True)
    assert page.status_code == 200
    assert str(page.url).endswith("/console/default")


def test_what_needs_a_contract_says_so(folder: Path, url: str) -> None:
    refused = httpx2.get(f"{url}/api/projects/default/contract")
    assert refused.status_code == 404
    assert "instar.toml" in refused.json()["error"]
    walked = instar(folder, "run")
    assert walked.returncode == 2
    assert "instar.toml" in walked.stderr


def test_a_folder_without_anything_is_left_alone(tmp_path: Path) -> None:
    listed = instar(tmp_path, "runs", "ls")
    assert listed.returncode == 2
    assert "neither a project nor a store" in listed.stderr
    assert os.listdir(tmp_path) == []


def test_a_store_can_be_named(tmp_path: Path) -> None:
    here, store = tmp_path / "here", tmp_path / "elsewhere" / "store"
    here.mkdir()
    server, url = up(here, "--store", str(store))
    try:
        assert httpx2.get(f"{url}/api/projects").status_code == 200
    finally:
        down(server)
    assert (store / "instar.db").exists()
    assert os.listdir(here) == []


def test_a_contract_that_is_wrong_and_a_store_that_is_too_new_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "instar.toml").write_text("[project]\nname = 1\n")
    wrong = instar(tmp_path, "up", "--port", "0")
    assert (wrong.returncode, "ContractError" in wrong.stderr) == (2, True)
    bare = tmp_path.parent / f"{tmp_path.name}-bare"
    bare.mkdir()
    server, _ = up(bare)
    down(server)
    import sqlite3

    with sqlite3.connect(bare / ".instar" / "instar.db") as database:
        database.execute("UPDATE store_format SET number = 99")
    database.close()
    new = instar(bare, "up", "--port", "0")
    assert new.returncode == 1
    assert "StoreTooNew" in new.stderr
