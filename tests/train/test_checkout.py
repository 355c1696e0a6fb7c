from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from instar.core.errors import Blocked
from instar.core.store import Store
from instar.train import checkout, code


def git(root: Path, *arguments: str) -> None:
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project below the top of its repository, with a change, a new file and an ignored one."""
    root = tmp_path / "work" / "lamps"
    (root / "steps").mkdir(parents=True)
    (root / "instar.toml").write_text("[project]\n")
    (root / "steps" / "one.py").write_text("ONE = 1\n")
    (root / "steps" / "gone.py").write_text("GONE = 1\n")
    (root / "words.txt").write_text("committed\n")
    (root / ".gitignore").write_text("*.log\n")
    git(tmp_path / "work", "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    (root / "steps" / "one.py").write_text("ONE = 2\n")
    (root / "steps" / "gone.py").unlink()
    (root / "words.txt").write_text("changed\n")
    (root / "new.json").write_text("{}")
    (root / "two words.csv").write_text("a,b\n")
    (root / "noise.log").write_text("ignored")
    return root


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_everything_comes_back_where_the_repository_knows_the_commit(store: Store, root: Path, tmp_path: Path) -> None:
    before = {name: text for name, text in files(root).items() if name != "noise.log"}
    kept = code.capture(store.blobs, root)
    assert (kept.prefix, kept.left_out) == ("lamps/", ())
    git(root, "add", ".")
    git(root, "commit", "-qm", "two")
    (root / "steps" / "one.py").write_text("moved on\n")
    # Into a folder within a repository, where git would rather look at that one.
    target = root.parent / "again"
    assert checkout.restore(store.blobs, kept, target, repository=root) == []
    assert files(target) == before


def test_the_zip_alone_has_the_python_files_and_says_what_is_missing(store: Store, root: Path, tmp_path: Path) -> None:
    kept = code.capture(store.blobs, root)
    shutil.rmtree(root.parent)
    (note,) = checkout.restore(store.blobs, kept, tmp_path / "again", repository=tmp_path)
    assert f"commit {kept.commit} is not in a repository here" in note
    assert files(tmp_path / "again") == {
        "instar.toml": "[project]\n", "steps/one.py": "ONE = 2\n", "new.json": "{}", "two words.csv": "a,b\n",
    }  # fmt: skip
    store.blobs.delete(kept.content)
    with pytest.raises(Blocked, match="not in the store"):
        checkout.restore(store.blobs, kept, tmp_path / "third")


def test_a_capture_asks_git_once_while_nothing_changes(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = code.capture(store.blobs, root)
    asked: list[str] = []
    real = code._git

    def counted(place: Path, *arguments: str) -> bytes | None:
        asked.append(arguments[0])
        return real(place, *arguments)

    monkeypatch.setattr(code, "_git", counted)
    assert code.capture(store.blobs, root) == first
    assert asked == ["status"]
    for change in (
        lambda: (root / "words.txt").write_text("changed again\n"),
        lambda: (root / "new.json").write_text('{"a": 1}'),
        lambda: (root / "steps" / "one.py").write_text("ONE = 33\n"),
        lambda: (root / "steps" / "three.py").write_text("THREE = 3\n"),
        lambda: git(root, "commit", "-qam", "two"),
    ):
        change()
        again = code.capture(store.blobs, root)
        assert again != first
        assert code.capture(store.blobs, root) == again
        first = again
    # What a collector took meanwhile is kept anew.
    store.blobs.delete(first.content)
    assert code.capture(store.blobs, root) == first
    assert store.blobs.has(first.content)


def test_what_is_too_large_is_left_out_and_said(store: Store, root: Path, tmp_path: Path) -> None:
    (root / "rows.csv").write_bytes(b"x" * (code.LARGEST_FILE + 1))
    kept = code.capture(store.blobs, root)
    assert kept.left_out == ("rows.csv",)
    notes = checkout.restore(store.blobs, kept, tmp_path / "again", repository=root)
    assert notes == ["rows.csv was too large to keep, and is not there"]
    assert (tmp_path / "again" / "new.json").exists()
    assert code.described({"content": "b3:1", "commit": None, "diff": None}) == code.Code(
        "b3:1"
    )  # as older stores have it
