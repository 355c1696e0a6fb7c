"""Shared makings of the data tests: a store in a folder, and two profiles that merge."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar import testing
from instar.core.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return testing.memory_store(tmp_path)
