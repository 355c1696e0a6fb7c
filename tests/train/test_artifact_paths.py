"""Artifacts as a tree of files: whatever is kept, replaced and deleted, what is listed and opened is what a tree would hold."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.core import ids
from instar.core.errors import BadInput, NotFound
from instar.core.store import Store
from instar.train import artifacts, runs

# Few letters, so that paths meet: the same again, a file where a folder is, wildcards of LIKE, letters of either case.
PART = st.text("aA_%é", min_size=1, max_size=2)
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)
CONTENT = st.binary(max_size=4)
# What is logged (a path with its content), or deleted (None).
DEEDS = st.lists(st.tuples(PATH, st.none() | CONTENT), max_size=12)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parents(path: str) -> set[str]:
    return {str(parent) for parent in PurePosixPath(path).parents if str(parent) != "."}


def a_run(store: Store) -> str:
    return runs.start(store, "birds", experiment="songs", capture=False).id


@MANY
@given(deeds=DEEDS)
def test_what_is_kept_is_what_a_tree_of_files_would_hold(store: Store, deeds: list[tuple[str, bytes | None]]) -> None:
    run, model = a_run(store), dict[str, bytes]()
    for path, content in deeds:
        if content is None:
            gone = [one for one in model if one == path or path in parents(one)]
            if gone:
                assert artifacts.delete(store, run, path) == len(gone)
            else:
                with pytest.raises(NotFound):
                    artifacts.delete(store, run, path)
            for one in gone:
                del model[one]
        elif path in {folder for one in model for folder in parents(one)} or parents(path) & set(model):
            with pytest.raises(BadInput, match="not both"):
                artifacts.log_artifact(store, run, path, content)
        else:
            assert artifacts.log_artifact(store, run, path, content) == ids.digest(content)
            model[path] = content
    assert {one.path: one.size for one in artifacts.all_artifacts(store, run)} == {
        path: len(content) for path, content in model.items()
    }
    for path, content in model.items():
        assert artifacts.open(store, run, path).read_bytes() == content
        assert artifacts.list_artifacts(store, run, path) == []  # a file's own path gives nothing
    seen, folders = set[str](), [""]
    while folders:  # a walk down the folders comes by every file, once
        for one in artifacts.list_artifacts(store, run, folders.pop()):
            assert one.path not in seen
            seen.add(one.path)
            folders += [one.path] if one.is_folder else []
    assert seen == set(model) | {folder for path in model for folder in parents(path)}


@MANY
@given(content=CONTENT, first=PATH, second=PATH)
def test_the_same_content_is_one_blob_whoever_keeps_it_and_however_it_comes(
    store: Store, tmp_path: Path, content: bytes, first: str, second: str
) -> None:
    file, taken = tmp_path / "file", tmp_path / "taken"
    file.write_bytes(content)
    taken.write_bytes(content)
    one, other, third = a_run(store), a_run(store), a_run(store)
    digests = {
        artifacts.log_artifact(store, one, first, content),
        artifacts.log_artifact(store, other, second, file),
        artifacts.log_artifact(store, third, first, taken, take=True),
    }
    assert digests == {ids.digest(content)}
    assert artifacts.open(store, one, first) == artifacts.open(store, other, second)
    assert file.read_bytes() == content  # what was not given away is still there
    artifacts.delete(store, one, first)
    assert artifacts.open(store, other, second).read_bytes() == content


@MANY
@given(
    path=st.sampled_from(
        ["", "/", "/etc/passwd", "..", "a/..", "a/../../b", "./a", "a/.", "a//b", "a/", "a\\..\\b", "C:/x", "a\0b", "x" * 1001]
    )
    | st.lists(st.sampled_from(["..", ".", "", "a"]), min_size=1).filter(lambda parts: set(parts) - {"a"} != set()).map("/".join)
)  # fmt: skip
def test_a_path_that_leaves_its_run_is_refused_by_every_verb(store: Store, path: str) -> None:
    run = a_run(store)
    verbs = [
        lambda: artifacts.log_artifact(store, run, path, b"x"),
        lambda: artifacts.open(store, run, path),
        lambda: artifacts.find(store, run, path),
        lambda: artifacts.delete(store, run, path),
        lambda: artifacts.check_path(path, run),
    ]
    for verb in verbs + ([lambda: artifacts.list_artifacts(store, run, path)] if path else []):
        with pytest.raises(BadInput):
            verb()
    assert artifacts.all_artifacts(store, run) == []


def test_a_run_that_is_not_there_has_no_files_and_keeps_none(store: Store) -> None:
    for verb in (artifacts.list_artifacts, artifacts.all_artifacts):
        with pytest.raises(NotFound):
            verb(store, "run_NONE")
    with pytest.raises(NotFound):
        artifacts.log_artifact(store, "run_NONE", "a", b"x")
    run = a_run(store)
    artifacts.log_artifact(store, run, "a/b", b"x")
    for path in ("a", "A/b", "b"):
        with pytest.raises(NotFound):
            artifacts.open(store, run, path)
    assert artifacts.find(store, run[:20], "a/b").size == 1  # the beginning of an id is enough
