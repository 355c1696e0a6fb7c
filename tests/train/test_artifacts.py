"""Artifacts: files under the paths that they were given, letter for letter, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.app import open_store
from instar.core.errors import BadInput, NotFound
from instar.core.store import Store
from instar.testing import memory_store
from instar.train import artifacts, runs


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made = memory_store(tmp_path)
    else:
        made = open_store(tmp_path, request.getfixturevalue("postgres_database"))
    yield made
    made.database.close()


def _paths(store: Store, owner: str) -> list[str]:
    return sorted(one.path for one in artifacts.all_artifacts(store, owner))


def test_paths_that_differ_in_case_or_in_a_wildcard_are_different(kept: Store) -> None:
    run = runs.start(kept, "p", experiment="e", capture=False).id
    for path in ("plots/a.png", "Plots/b.png", "p_ots", "PLOTS", "a%/x", "ab/y", "notes.txt"):
        artifacts.log_artifact(kept, run, path, path.encode())
    artifacts.log_artifact(kept, run, "Notes.txt/inside", b"a folder whose name is a file's but for one letter")

    assert artifacts.delete(kept, run, "plots") == 1
    assert artifacts.delete(kept, run, "a%") == 1
    assert _paths(kept, run) == ["Notes.txt/inside", "PLOTS", "Plots/b.png", "ab/y", "notes.txt", "p_ots"]


def test_a_path_is_a_file_or_a_folder(kept: Store) -> None:
    run = runs.start(kept, "p", experiment="e", capture=False).id
    artifacts.log_artifact(kept, run, "out/a.txt", b"1")
    for path in ("out", "out/a.txt/b"):
        with pytest.raises(BadInput, match="not both"):
            artifacts.log_artifact(kept, run, path, b"2")
    with pytest.raises(NotFound):
        artifacts.delete(kept, run, "ou")
    assert [(one.path, one.is_folder) for one in artifacts.list_artifacts(kept, run)] == [("out", True)]
