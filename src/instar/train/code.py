"""The code that made a model: the commit and what differs from it, and a zip of the project's files that stands alone.

The zip is what a bundle keeps: unpickling an object of a class in the project needs that class as it was. Equal files
make equal zips, byte for byte.
"""

from __future__ import annotations

import io
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from instar.core import ids
from instar.core.blobs import Blobs
from instar.core.errors import BadInput

# Folders that hold no source of the project.
NOT_SOURCE = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
LARGEST_FILE = 2_000_000  # bytes; more is data in a Python file
MOST_BYTES = 50_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


class Code(msgspec.Struct, frozen=True):
    """Which code ran.

    Attributes:
        content: Digest of a zip of the project's Python files and its contract.
        commit: Git commit; None when the project is in no repository.
        diff: Digest of the difference to the commit, as text; None when there is none.
    """

    content: str
    commit: str | None = None
    diff: str | None = None


def capture(blobs: Blobs, root: Path) -> Code:
    """Keep the project's code as it is now, and say what it is."""
    content = blobs.put(archive(root))
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return Code(content)
    diff = _git(root, "diff", "HEAD", "--", ".")
    return Code(content, commit.decode().strip(), blobs.put(diff) if diff else None)


def describe(code: Code) -> dict[str, Any]:
    """The record's form."""
    found: dict[str, Any] = msgspec.to_builtins(code)
    return found


def archive(root: Path) -> bytes:
    """A zip of the project's Python files and its `instar.toml`, with relative names, in order of name.

    Raises:
        BadInput: The project's source is larger than `MOST_BYTES`.
    """
    buffer, total = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sources(root):
            data = file.read_bytes()
            total += len(data)
            if total > MOST_BYTES:
                raise BadInput(
                    "its source files are too large to keep with every model", subject=f"project at {root}",
                    found=f"more than {MOST_BYTES} bytes", next_step="Move data out of the project's folder.",
                )  # fmt: skip
            zipped.writestr(_entry(file.relative_to(root).as_posix()), data)
    return buffer.getvalue()


def sources(root: Path) -> list[Path]:
    """The project's Python files and its contract, in order of name."""
    return sorted(_walk(root), key=lambda file: file.relative_to(root).as_posix())


def digest(root: Path) -> str:
    """Digest of the project's code as it is now, without keeping it."""
    return ids.digest(archive(root))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in NOT_SOURCE or path.is_symlink():
            continue
        if path.is_dir():
            if not (path / "pyvenv.cfg").exists():
                yield from _walk(path)
        elif (path.suffix == ".py" or path.name == "instar.toml") and path.stat().st_size <= LARGEST_FILE:
            yield path


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # as on Unix, whatever this machine is
    return entry


def _git(root: Path, *arguments: str) -> bytes | None:
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
