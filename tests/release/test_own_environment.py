"""A version with an environment of its own on the command line: built before it is routed, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from instar.app import open_store
from instar.core.identity import Actor
from instar.core.store import Store
from instar.interfaces.cli.release import commands
from instar.release import registry
from instar.release.card import card
from tests.serve.lamps import lamp_bundle
from tests.serve.lamps import links as links
from tests.train import wheels


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store as programs open it."""
    folder = tmp_path / "store"
    opened = replace(open_store(folder, f"sqlite:///{folder / 'instar.db'}"), actor=Actor("ada"))
    yield opened
    opened.database.close()


@pytest.fixture
def instar(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs `instar models …` on the store, outside of any project."""
    monkeypatch.setenv("INSTAR_STORE", str(store.folder))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(commands["models"], list(arguments), obj=None)

    return run


def test_it_is_built_on_request_and_shown(store: Store, links: Path, instar: Any) -> None:
    digest = lamp_bundle(store, links, "1.0")
    version = registry.register(store, "default", "delay", bundle=digest, origin="candidate")
    assert card(store, version)["model"]["own_environment"]["state"] == "missing"
    done = instar("build", "delay@1")
    assert done.exit_code == 0, done.output
    python = Path(done.stdout.splitlines()[-1])
    assert python.is_relative_to(store.folder)
    assert python.exists()
    assert json.loads(instar("build", "delay@1", "--json").stdout)["python"] == str(python)
    assert "its own environment" in instar("show", "delay@1").stdout
    assert card(store, version)["model"]["own_environment"]["state"] == "ready"


def test_a_broken_lock_says_so_and_stays_said(store: Store, links: Path, instar: Any) -> None:
    version = registry.register(store, "default", "delay", bundle=lamp_bundle(store, links, "3.0"), origin="candidate")
    failed = instar("build", "delay@1")
    assert failed.exit_code != 0
    assert "lamp==3.0" in str(failed.exception)
    assert "lamp==3.0" in instar("show", "delay@1").stdout
    wheels.make(links, "lamp", "3.0", {"lamp.py": "LIGHT = 0.9\n"})
    assert instar("build", "delay@1").exit_code == 0
    assert card(store, version)["model"]["own_environment"].get("reason") is None


def test_what_needs_no_environment_of_its_own_says_so(store: Store, links: Path, instar: Any) -> None:
    digest = lamp_bundle(store, links, "1.0", lock="# nothing\n")
    registry.register(store, "default", "delay", bundle=digest, origin="candidate")
    assert "installed here" in instar("build", "delay@1").stdout
    assert "runs in" not in instar("show", "delay@1").stdout
