"""A filled store for the pages and the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from instar.app import App
from instar.core.store import Store
from instar.interfaces.api import release, server
from instar.interfaces.console import pages

from .filled import fill


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> dict[str, Any]:
    return fill(store, tmp_path)


@pytest.fixture
def console(store: Store, tmp_path: Path, filled: dict[str, Any]) -> Iterator[TestClient]:
    application = server.build(App(store, tmp_path), [*pages.routes, *release.routes])
    with TestClient(application, base_url="http://127.0.0.1:5000", follow_redirects=False) as client:
        yield client
