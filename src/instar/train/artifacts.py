"""Artifacts: files kept with a run or a logged model under relative paths, written while it trains and read ever after.

The bytes are blobs of the store, so the same file in two runs is kept once; a row says which blob a path is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.core.errors import BadInput, NotFound
from instar.core.store import Store
from instar.train.run_records import require
from instar.train.run_values import check_text
from instar.train.tracking_tables import artifact_table, run_table

LONGEST_PATH = 1000  # characters


@dataclass(frozen=True)
class Entry:
    """One line of a listing: a file with its size in bytes and its blob, or a folder without."""

    path: str
    is_folder: bool
    size: int | None = None
    blob: str | None = None


def log_artifact(store: Store, owner: str, path: str, data: bytes | Path, *, take: bool = False) -> str:
    """Keep a file under a relative path; the same path again replaces it. Returns the blob's digest.

    Args:
        owner: A run's id (or its beginning), or the id of another record that has files.
        take: The file may be moved into the store, which saves the copy.

    Raises:
        BadInput: `path` is absolute, leaves its owner, or is taken by a folder.
        NotFound: The run is not there.
    """
    check_path(path, owner)
    # Blobs first, record second: what the record names is there.
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    if isinstance(data, bytes):
        digest = store.blobs.put(data)
    else:
        digest = store.blobs.adopt(data) if take else store.blobs.put_file(data)

    store.database.write(lambda tx: keep(tx, resolve(tx, owner), path, digest, size))
    return digest


def keep(tx: Transaction, owner: str, path: str, blob: str, size: int) -> None:
    """Say within a transaction that a blob is an owner's file; the path was checked.

    Raises:
        BadInput: The path is taken by a folder, or a part of it by a file.
    """
    at = artifact_table.c
    _refuse_clash(tx, owner, path)
    tx.execute(artifact_table.delete().where(at.owner == owner, at.path == path))
    tx.execute(artifact_table.insert().values(owner=owner, path=path, blob=blob, size=size))


def list_artifacts(store: Store, owner: str, path: str = "") -> list[Entry]:
    """Files and folders directly under a folder, by name; a file's own path gives nothing, as in MLflow.

    Raises:
        NotFound: The run is not there.
    """
    if path:
        check_path(path, owner)
    with store.database.read() as tx:
        name, prefix = resolve(tx, owner), f"{path}/" if path else ""
        rows = tx.execute(sa.select(artifact_table).where(artifact_table.c.owner == name)).all()
    found: dict[str, Entry] = {}
    for row in rows:
        if row.path.startswith(prefix):
            first, *deeper = row.path[len(prefix) :].split("/", 1)
            full = prefix + first
            found[full] = Entry(full, True) if deeper else Entry(full, False, row.size, row.blob)
    return [found[name] for name in sorted(found)]


def all_artifacts(store: Store, owner: str) -> list[Entry]:
    """All files of an owner, by path."""
    with store.database.read() as tx:
        name = resolve(tx, owner)
        rows = tx.execute(
            sa.select(artifact_table).where(artifact_table.c.owner == name).order_by(artifact_table.c.path)
        )
        return [Entry(row.path, False, row.size, row.blob) for row in rows]


def open(store: Store, owner: str, path: str) -> Path:
    """A local file with the artifact's bytes; read it, never write to it.

    Raises:
        NotFound: There is no such artifact.
    """
    return store.blobs.path(find(store, owner, path).blob or "")


def find(store: Store, owner: str, path: str) -> Entry:
    """The file at a path.

    Raises:
        NotFound: There is no such artifact, or it is a folder.
    """
    check_path(path, owner)
    with store.database.read() as tx:
        at = artifact_table.c
        query = sa.select(artifact_table).where(at.owner == resolve(tx, owner), at.path == path)
        row = tx.execute(query).first()
    if row is None:
        raise NotFound("there is no such artifact", subject=owner, found=path)
    return Entry(row.path, False, row.size, row.blob)


def delete(store: Store, owner: str, path: str) -> int:
    """Take a file, or a folder with all in it, off the record; returns how many files. The bytes go at the next collection.

    Raises:
        NotFound: There is neither.
    """
    check_path(path, owner)

    def work(tx: Transaction) -> int:
        at = artifact_table.c
        gone = artifact_table.delete().where(at.owner == resolve(tx, owner), (at.path == path) | _under(path))
        return tx.execute(gone).rowcount

    gone = store.database.write(work)
    if gone == 0:
        raise NotFound("there is no such artifact", subject=owner, found=path)
    return gone


def check_path(path: str, owner: str) -> None:
    """Refuse a path that is absolute or leaves its owner.

    Raises:
        BadInput: It is one, or cannot be kept.
    """
    parts = path.split("/")
    wrong = not path or path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts)
    if wrong or len(path) > LONGEST_PATH or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise BadInput(
            "an artifact's path is relative", subject=owner, found=path[:200], asked="such as plots/roc.png, without .."
        )
    check_text(path, "an artifact's path", repr(path))


def resolve(tx: Transaction, owner: str) -> str:
    """The full id of an owner: runs are looked up, others are taken at their word (their own files know them).

    Raises:
        NotFound: There is no such run.
    """
    if not owner.startswith("run_"):
        return owner
    found: str = tx.execute(sa.select(run_table.c.id).where(run_table.c.key == require(tx, owner))).scalar_one()
    return found


def _refuse_clash(tx: Transaction, owner: str, path: str) -> None:
    at = artifact_table.c
    parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
    query = sa.select(at.path).where(at.owner == owner, at.path.in_(parents) | _under(path))
    clash = tx.execute(query.limit(1)).scalar()
    if clash is not None:
        raise BadInput("a path is a file or a folder, not both", subject=owner, found=clash, asked=path)


def _under(folder: str) -> sa.ColumnElement[bool]:
    # Not LIKE, for which `Plots/` is `plots/` on SQLite.
    return sa.func.substr(artifact_table.c.path, 1, len(folder) + 1) == f"{folder}/"
