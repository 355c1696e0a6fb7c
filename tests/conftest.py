"""What all tests share: a fresh store."""

from __future__ import annotations

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
