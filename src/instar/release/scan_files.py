"""Inspecting uploaded files: which of them would run code when they are loaded, seen when they arrive and when they are served.

A pickle is known by its first bytes or by its name, a pickle of PyTorch's or a model of skops by the archive around it; each
is held to the allow-list of `scan`. What is refused is kept all the same, as any file is, and flagged; it cannot be served.

    found = inspect_file(path, "model/model.pkl")
    found.kind, found.refused            # -> "pickle", ""
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile

import sqlalchemy as sa

from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import UnsafeModel
from instar.core.store import Store
from instar.release import scan
from instar.release.archives import is_archive, open_archive

# Larger pickles are not followed: an instruction costs microseconds, and weights belong into files of their own.
LARGEST_PICKLE_BYTES = 256 * 1024**2
LARGEST_SCHEMA_BYTES = 64 * 1024**2

_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".ckpt"})
_RUNS_CODE = dict.fromkeys((".keras", ".h5", ".hdf5"), "a model of Keras can hold code")
_PROTOCOLS = {bytes([0x80, number]) for number in range(2, 6)}

finding_table = sa.Table(
    "artifact_finding",
    metadata,
    sa.Column("blob", sa.String(80), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("refused", sa.Text, nullable=False),
    sa.Column("found_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Finding:
    """What a file is as far as loading it goes.

    Attributes:
        kind: `"pickle"`, `"torch"`, `"skops"`, `"other"` for what runs code in another way, or `"data"`.
        refused: Why it may not be loaded; empty when it may.
    """

    kind: str
    refused: str = ""


DATA = Finding("data")


def inspect_file(file: Path, path: str, own_modules: Sequence[str] = ()) -> Finding:
    """What one file is.

    Args:
        file: Where its bytes are.
        path: What it is called in its folder.
        own_modules: Top modules and packages that the folder brings.
    """
    suffix = PurePosixPath(path).suffix.lower()
    with file.open("rb") as opened:
        head = opened.read(4)
    if suffix in _RUNS_CODE:
        return Finding("other", _RUNS_CODE[suffix])
    if is_archive(head):
        return _archive(file, path, own_modules)
    if head[:2] in _PROTOCOLS or suffix in _PICKLES:
        if file.stat().st_size > LARGEST_PICKLE_BYTES:
            return Finding(
                "pickle", f"it is a pickle of more than {LARGEST_PICKLE_BYTES} bytes, which is not inspected"
            )
        return Finding("pickle", _first(scan.inspect(file, own_modules)))
    return DATA


def inspect_folder(store: Store, files: Mapping[str, str], own_modules: Sequence[str]) -> str:
    """Why the files of a folder may not be loaded, the first one's reason; empty when they may."""
    for path, digest in sorted(files.items()):
        found = inspect_file(store.blobs.path(digest), path, own_modules)
        if found.refused:
            return f"its file {path} is not safe to load: {found.refused}"
    return ""


def note(store: Store, blob: str, found: Finding) -> None:
    """Keep what inspecting found in a file, when there is something to say."""
    if not found.refused:
        return

    def work(tx: Transaction) -> None:
        tx.execute(finding_table.delete().where(finding_table.c.blob == blob))
        values = {"blob": blob, "kind": found.kind, "refused": found.refused, "found_at": store.clock.wall()}
        tx.execute(finding_table.insert().values(**values))

    store.database.write(work)


def findings(store: Store, blobs: Sequence[str]) -> dict[str, Finding]:
    """What is flagged of some files, by blob."""
    with store.database.read() as tx:
        rows = tx.execute(sa.select(finding_table).where(finding_table.c.blob.in_(blobs)))
        return {row.blob: Finding(row.kind, row.refused) for row in rows}


def _archive(file: Path | BytesIO, path: str, own_modules: Sequence[str], depth: int = 0) -> Finding:
    try:
        with open_archive(file, path) as archive:
            names = archive.namelist()
            if "schema.json" in names:
                return Finding("skops", _skops(archive, own_modules))
            # PyTorch's pickles lie under the names data.pkl, and in newer archives in archives within the archive.
            pickles = [name for name in names if PurePosixPath(name).suffix.lower() in _PICKLES]
            for name in pickles:
                refused = _entry(archive, name, own_modules, depth)
                if refused:
                    return Finding("torch", refused)
            return Finding("torch" if pickles else "data")
    except UnsafeModel as error:
        return Finding("archive", error.describe().splitlines()[0])


def _entry(archive: ZipFile, name: str, own_modules: Sequence[str], depth: int) -> str:
    if archive.getinfo(name).file_size > LARGEST_PICKLE_BYTES:
        return f"{name} in it is a pickle of more than {LARGEST_PICKLE_BYTES} bytes, which is not inspected"
    data = archive.read(name)
    if not is_archive(data):
        return _first(scan.inspect(data, own_modules, torch=True))
    if depth > 1:
        return "it holds archives in archives in archives"
    return _archive(BytesIO(data), f"{archive.filename or 'archive'}/{name}", own_modules, depth + 1).refused


def _skops(archive: ZipFile, own_modules: Sequence[str]) -> str:
    if archive.getinfo("schema.json").file_size > LARGEST_SCHEMA_BYTES:
        return "its schema is too large to be inspected"
    try:
        schema = json.loads(archive.read("schema.json"))
        own = frozenset(own_modules)
        for module, name in _types(schema):
            why = scan.is_allowed(module, name, own)
            if why:
                return why
    except (ValueError, RecursionError, KeyError) as error:
        return f"its schema cannot be followed ({type(error).__name__})"
    return ""


def _types(schema: Any) -> Iterator[tuple[str, str]]:
    """What skops would import: types to build, functions to refer to. A method or a partial call is none of ours."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__class__" in node:
                yield str(node.get("__module__")), str(node["__class__"])
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _first(found: scan.Findings) -> str:
    return found.refused[0].why if found.refused else ""
