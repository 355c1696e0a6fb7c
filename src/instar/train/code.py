"""The code that made a model: the commit and what differs from it, and a zip of the project's files that stands alone.

The zip is what a bundle keeps: unpickling an object of a class in the project needs that class as it was. Equal files
make equal zips, byte for byte. Of the rest of the project git knows what is committed; what differs, and files that git
does not know yet, are kept within limits. A search of many trials asks git once a trial, and no more than what changed.
"""

from __future__ import annotations

import functools
import io
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from instar.core import ids
from instar.core.blobs import Blobs
from instar.core.errors import BadInput, PipelineError
from instar.plan import notebooks

# Folders that hold no source of the project.
NOT_SOURCE = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
LARGEST_FILE = 2_000_000  # bytes; more is data in a Python file
LARGEST_NOTEBOOK = 50_000_000  # bytes; most of them are outputs, which are not kept
NOTEBOOKS = ".notebooks"  # folder of the zip with the modules that notebooks make
MOST_BYTES = 50_000_000
MOST_UNTRACKED = 10_000_000  # bytes of files that git does not know, without Python files, which the zip has
MOST_DIFFERENCE = 50_000_000  # bytes; more is data that was committed and changed
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_MOST_KNOWN = 8  # captures remembered by a process

_Stats = tuple[tuple[str, int, int, int], ...]


class Code(msgspec.Struct, frozen=True):
    """Which code ran.

    Attributes:
        content: Digest of a zip of the project's Python files and its contract.
        commit: Git commit; None when the project is in no repository.
        diff: Digest of the difference to the commit, as text; None when there is none.
        prefix: Where the project lies in its repository, e.g. `"examples/flights/"`.
        untracked: Digest of a zip of the project's other files that git does not know and does not ignore.
        left_out: What was too large to keep.
    """

    content: str
    commit: str | None = None
    diff: str | None = None
    prefix: str = ""
    untracked: str | None = None
    left_out: tuple[str, ...] = ()


def capture(blobs: Blobs, root: Path) -> Code:
    """Keep the project's code as it is now, and say what it is."""
    root = root.absolute()
    files = sources(root)
    status = _git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z", "--", ".")
    new = list(_untracked(root, status)) if status is not None else []
    key = (root, status, _stats([*files, *new, *_changed(root, status)]))
    known = _known.get(key)
    if known is not None and all(blobs.renew(digest) for digest in parts(known)):
        return known
    found = _capture(blobs, root, status, new)
    while len(_known) >= _MOST_KNOWN:
        _known.pop(next(iter(_known)), None)
    _known[key] = found
    return found


_known: dict[tuple[Path, bytes | None, _Stats], Code] = {}


def describe(code: Code) -> dict[str, Any]:
    """The record's form."""
    found: dict[str, Any] = msgspec.to_builtins(code)
    return found


def described(record: Any) -> Code:
    """The code that a record describes; what an older program did not keep has its default."""
    return msgspec.convert(dict(record), Code)


def parts(code: Code) -> list[str]:
    """Digests of the blobs that belong to it."""
    return [digest for digest in (code.content, code.diff, code.untracked) if digest]


def archive(root: Path) -> bytes:
    """A zip of the project's Python files, notebooks and `instar.toml`, with relative names, in order of name.

    Raises:
        BadInput: The project's source is larger than `MOST_BYTES`.
    """
    files = sources(root)
    if sum(file.stat().st_size for file in files if file.suffix != notebooks.SUFFIX) > MOST_BYTES:
        raise BadInput(
            "its source files are too large to keep with every model", subject=f"project at {root}",
            found=f"more than {MOST_BYTES} bytes", next_step="Move data out of the project's folder.",
        )  # fmt: skip
    return _zip(root, files)


def sources(root: Path) -> list[Path]:
    """The project's Python files, notebooks and contract, in order of name."""
    return sorted(_walk(root), key=lambda file: file.relative_to(root).as_posix())


def digest(root: Path) -> str:
    """Digest of the project's code as it is now, without keeping it."""
    return ids.digest(archive(root))


def _capture(blobs: Blobs, root: Path, status: bytes | None, new: list[Path]) -> Code:
    content = blobs.put(archive(root))
    commit = _commit(status)
    if commit is None:
        return Code(content)
    left_out: list[str] = []
    changes = _git(root, "diff", "--binary", "--relative", "HEAD", "--", ".") if _is_changed(status) else b""
    if changes is None or len(changes) > MOST_DIFFERENCE:
        left_out.append("the difference to the commit")
        changes = b""
    kept, total = [], 0
    for file in new:
        size = file.stat().st_size
        if size > LARGEST_FILE or total + size > MOST_UNTRACKED:
            left_out.append(file.relative_to(root).as_posix())
            continue
        kept.append(file)
        total += size
    untracked = blobs.put(_zip(root, kept)) if kept else None
    diff = blobs.put(changes) if changes else None
    return Code(content, commit, diff, _prefix(root), untracked, tuple(left_out))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in NOT_SOURCE or path.is_symlink():
            continue
        if path.is_dir():
            if not (path / "pyvenv.cfg").exists():
                yield from _walk(path)
        elif path.suffix == ".py" or path.name == "instar.toml":
            if path.stat().st_size <= LARGEST_FILE:
                yield path
        elif path.suffix == notebooks.SUFFIX and path.stat().st_size <= LARGEST_NOTEBOOK:
            yield path


def _stats(files: Iterable[Path]) -> _Stats:
    found = []
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue
        found.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def _zip(root: Path, files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in files:
            name = file.relative_to(root).as_posix()
            if file.suffix != notebooks.SUFFIX:
                zipped.writestr(_entry(name), file.read_bytes())
                continue
            text, module = _notebook(file)
            zipped.writestr(_entry(name), text)
            if module:
                zipped.writestr(_entry(f"{NOTEBOOKS}/{name.removesuffix(notebooks.SUFFIX)}.py"), module)
    return buffer.getvalue()


def _notebook(file: Path) -> tuple[str, str]:
    """A notebook without outputs, which running it would change, and the module that its tagged cells make."""
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        return notebooks.without_outputs(text, file.name), notebooks.module_text(notebooks.cells_of(text, file.name))
    except PipelineError:  # it is none, which is said where the pipeline needs it
        return text, ""


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # as on Unix, whatever this machine is
    return entry


# What `git status --porcelain=v2 -z` says.


def _commit(status: bytes | None) -> str | None:
    for line in (status or b"").split(b"\0"):
        if line.startswith(b"# branch.oid ") and not line.endswith(b"(initial)"):
            return line.removeprefix(b"# branch.oid ").decode()
    return None


def _is_changed(status: bytes | None) -> bool:
    return any(line[:2] in (b"1 ", b"2 ", b"u ") for line in (status or b"").split(b"\0"))


def _changed(root: Path, status: bytes | None) -> Iterator[Path]:
    fields = {b"1 ": 8, b"2 ": 9, b"u ": 10}  # words before the path
    for line in (status or b"").split(b"\0"):
        if line[:2] in fields:
            yield _place(root, line.split(b" ", fields[line[:2]])[-1])


def _untracked(root: Path, status: bytes) -> Iterator[Path]:
    """New files of the project that its zip of Python files does not have."""
    for line in status.split(b"\0"):
        if not line.startswith(b"? "):
            continue
        file = _place(root, line[2:])
        inside = file.relative_to(root).parts if file.is_relative_to(root) else ()
        hidden = any(part.startswith(".") or part in NOT_SOURCE for part in inside)
        if inside and not hidden and file.suffix != ".py" and file.is_file() and not file.is_symlink():
            yield file


def _place(root: Path, name: bytes) -> Path:
    # Names are below the repository, whatever folder git was asked in.
    return root / name.decode("utf-8", "surrogateescape").removeprefix(_prefix(root))


@functools.cache
def _prefix(root: Path) -> str:
    return (_git(root, "rev-parse", "--show-prefix") or b"").decode().strip()


def _git(root: Path, *arguments: str) -> bytes | None:
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
