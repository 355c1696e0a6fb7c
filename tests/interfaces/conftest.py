"""One filled store for all pages and clients; they only read, so it is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.store import Store
from instar.interfaces import control as server
from instar.interfaces.api import release
from instar.interfaces.console import pages
from instar.testing import memory_store

from .filled import fill


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parcels")


@pytest.fixture(scope="module")
def kept(root: Path) -> Iterator[Store]:
    """The store that is filled; `store` is another, empty one."""
    store = memory_store(root)
    yield store
    store.database.close()


@pytest.fixture(scope="module")
def filled(kept: Store, root: Path) -> dict[str, Any]:
    return fill(kept, root)


@pytest.fixture(scope="module")
def console(kept: Store, root: Path, filled: dict[str, Any]) -> Iterator[TestClient]:
    application = server.build(App(kept, root), [*pages.routes, *release.routes])
    with TestClient(application, base_url="http://127.0.0.1:5000", follow_redirects=False) as client:
        yield client
