"""What all tests share: a fresh store, and the rule that continuous integration may not skip for want of a tool."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.core.store import Store
from instar.testing import memory_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = memory_store(tmp_path)
    yield store
    store.database.close()


def need(tool: str | None, name: str, package: str) -> str:
    """The path of a tool; without it the test skips with a reason, and fails in continuous integration."""
    if tool is not None:
        return tool
    reason = f"{name} is not on this machine: install Debian's package {package} to run this test"
    if os.environ.get("INSTAR_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that renders pages in tests."""
    return need(shutil.which("chromium") or shutil.which("chromium-browser"), "Chromium", "chromium")
