"""The code of a run, written out again into an empty folder, when the run is to be repeated and the project has moved on.

The zip of Python files stands alone. Where the run's commit is known to the project's repository, the folder gets all other
files of it as well, with the changes and the new files that were there. Declared files come back from the store.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

from instar.core.blobs import Blobs
from instar.core.errors import Blocked, NotFound
from instar.train import code
from instar.train.code import Code


def restore(blobs: Blobs, recorded: Code, folder: Path, *, repository: Path | None = None) -> list[str]:
    """Write the code of a run into `folder`, which is made.

    Args:
        repository: A folder in the repository that may know the commit.

    Returns:
        What could not be restored, one line each. The Python files and the contract always are.

    Raises:
        Blocked: The zip of the code is not in the store any more.
    """
    if not blobs.has(recorded.content):
        raise Blocked(
            "its code is not in the store any more", subject=f"code {recorded.content}",
            next_step="Restore the store from a backup.",
        )  # fmt: skip
    folder.mkdir(parents=True)
    notes = [f"{name} was too large to keep, and is not there" for name in recorded.left_out]
    if recorded.commit is not None:
        notes += _checkout(blobs, recorded, folder, repository)
    _unzip(blobs.get(recorded.content), folder)
    if recorded.untracked is not None:
        _unzip(blobs.get(recorded.untracked), folder)
    if code.digest(folder) != recorded.content:  # the commit has Python files which the run's folder had not
        for file in code.sources(folder):
            file.unlink()
        _unzip(blobs.get(recorded.content), folder)
    return notes


def restore_files(blobs: Blobs, files: Mapping[str, str], folder: Path) -> list[str]:
    """Write the declared files of a step, by their digests; returns what is gone, one line each."""
    gone = []
    for name, digest in files.items():
        target = folder / name
        try:
            data = blobs.get(digest)
        except NotFound:
            gone.append(f"the declared file {name} was too large to keep, or is gone")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return gone


def _checkout(blobs: Blobs, recorded: Code, folder: Path, repository: Path | None) -> list[str]:
    files = _archive(repository, recorded) if repository is not None else None
    if files is None:
        return [f"commit {recorded.commit} is not in a repository here: files that are not Python are not there"]
    with zipfile.ZipFile(io.BytesIO(files)) as archive:
        archive.extractall(folder)
    if recorded.diff is None:
        return []
    # Within a repository git would take the folder for a part of that one, and leave its files alone.
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent.resolve()), "GIT_DIR": str(folder / ".none")}
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"], input=blobs.get(recorded.diff), cwd=folder, env=alone,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    return (
        [] if done.returncode == 0 else ["the changes to its commit could not be applied to files that are not Python"]
    )


def _archive(repository: Path, recorded: Code) -> bytes | None:
    """The project's files in the commit, as a zip; None when the repository does not know it."""
    if shutil.which("git") is None:
        return None
    tree = f"{recorded.commit}:{recorded.prefix}" if recorded.prefix else str(recorded.commit)
    top = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False
    )
    if top.returncode != 0:
        return None
    done = subprocess.run(
        ["git", "-C", top.stdout.strip(), "archive", "--format=zip", tree],
        capture_output=True,
        check=False,
        timeout=300,
    )
    return done.stdout if done.returncode == 0 else None


def _unzip(data: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)  # our own zips: names are relative and leave no folder
