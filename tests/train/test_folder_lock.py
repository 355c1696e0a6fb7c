"""The lock of a folder that was logged: made of its requirements, from wheels alone, once; and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instar.core.errors import BadInput, Blocked, Unavailable
from instar.core.store import Store
from instar.train import environment, folder_lock, own_environment, tools
from instar.train.bundle import Manifest, load_manifest
from tests.train import wheels
from tests.train.folders import pack, sklearn_files


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels instead of an index, and an empty cache."""
    folder = tmp_path / "wheels"
    wheels.make(folder, "lamp", "1.0", {"lamp.py": ""})
    names = {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1", "UV_FIND_LINKS": str(folder)}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return folder


def manifest(store: Store, requirements: str) -> Manifest:
    files: dict[str, Any] = {**sklearn_files(None), "requirements.txt": requirements.encode()}
    return load_manifest(store.blobs, pack(store, files, inspect=None))


def test_a_version_that_appears_later_changes_no_lock_that_was_made(store: Store, links: Path) -> None:
    asked = manifest(store, "lamp>=1.0  # bright\n")
    assert folder_lock.kept(store, asked) is None
    assert own_environment.name_of(store, asked) == ""  # until it is settled on, it answers from what is here
    made = folder_lock.make(store, asked)
    text = store.blobs.get(made.requirements).decode()
    assert text.startswith("--only-binary :all:\nlamp==1.0 ")
    assert "--hash=sha256:" in text
    wheels.make(links, "lamp", "1.1", {"lamp.py": ""})
    assert folder_lock.make(store, asked) == folder_lock.kept(store, asked) == made
    assert own_environment.name_of(store, asked).startswith("b3:")
    folder_lock.forget(store, asked)
    assert own_environment.name_of(store, asked) == ""
    assert b"lamp==1.1" in store.blobs.get(folder_lock.make(store, asked).requirements)


def test_what_cannot_be_had_is_named_and_kept(store: Store, links: Path) -> None:
    asked = manifest(store, "lamp==3.0\n")
    with pytest.raises(Blocked, match=r"lamp==3\.0"):
        own_environment.settle(store, asked)
    state = own_environment.state_of(store, asked)
    assert state is not None
    assert (state.environment, state.state) == ("", "failed")
    assert "lamp==3.0" in state.reason
    wheels.make(links, "lamp", "3.0", {"lamp.py": ""})
    own_environment.settle(store, asked)
    mended = own_environment.state_of(store, asked)
    assert mended is not None
    assert (mended.state, mended.reason) == ("missing", "")


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org",
        "-r other.txt",
        "./lamp",
        "lamp @ https://example.org/lamp.whl",
        "-e .",
        "git+ssh://x/y",
    ],
)
def test_only_distributions_by_their_names_are_taken(store: Store, links: Path, line: str) -> None:
    with pytest.raises(BadInput, match="more than distributions"):
        folder_lock.make(store, manifest(store, f"lamp==1.0\n{line}\n"))


def test_a_source_distribution_is_never_built(store: Store, links: Path) -> None:
    import io
    import tarfile

    with tarfile.open(links / "shade-1.0.tar.gz", "w:gz") as archive:
        code = b"raise SystemExit('it ran')\n"
        about = tarfile.TarInfo("shade-1.0/setup.py")
        about.size = len(code)
        archive.addfile(about, io.BytesIO(code))
    with pytest.raises(Blocked, match="shade") as raised:
        folder_lock.make(store, manifest(store, "shade==1.0\n"))
    assert "it ran" not in str(raised.value)


def test_a_python_or_a_resolver_that_is_not_here(store: Store, links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Blocked, match="Python is not on this machine"):
        folder_lock.resolve(["lamp"], "3.2.1", "model x")
    monkeypatch.setattr(tools, "uv", lambda: None)
    with pytest.raises(Unavailable, match="uv"):
        folder_lock.resolve(["lamp"], "3.11.1", "model x")


def test_what_is_here_needs_no_lock(store: Store) -> None:
    version = environment.capture().distributions["scikit-learn"]
    assert own_environment.is_here(store, manifest(store, f"scikit_learn == {version}\n# all\n"))
    assert own_environment.is_here(store, manifest(store, ""))
    assert not own_environment.is_here(
        store, manifest(store, f"scikit-learn=={version}\nnumpy>=2\n")
    )  # it may be another
    assert not own_environment.is_here(store, manifest(store, "-r other.txt\n"))
