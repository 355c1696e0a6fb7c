"""Tests with real clients run in an environment of their own (`./run test --full`), and are never collected without it."""

from __future__ import annotations

import os

import pytest


# These libraries warn about themselves; what they say is not ours to mend.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/clients" in str(item.path).replace(os.sep, "/"):
            item.add_marker(pytest.mark.filterwarnings("default"))
