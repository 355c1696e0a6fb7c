"""Fakes and contract suites for people who build on Instar: a store for tests, blobs in memory, one suite a port.

store = memory_store(tmp_path)                       # SQLite file and memory blobs, all tables made

class TestMyBlobs(BlobsContract):                    # every adapter of the port passes the same suite
    @pytest.fixture
    def blobs(self, tmp_path): return MyBlobs(tmp_path)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from instar.adapters import schema
from instar.adapters.database_sqlite import SqliteDatabase
from instar.core import ids
from instar.core.clock import Clock, EventClock
from instar.core.database import Database
from instar.core.errors import NotFound
from instar.core.identity import Actor
from instar.core.store import Store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class MemoryBlobs:
    """The blobs port in memory; files asked for by path are written out on demand."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._files = tempfile.TemporaryDirectory(prefix="instar-blobs-")

    def put(self, data: bytes) -> str:
        digest = ids.digest(data)
        self._data[digest] = bytes(data)
        return digest

    def put_file(self, path: Path) -> str:
        return self.put(path.read_bytes())

    def get(self, digest: str) -> bytes:
        try:
            return self._data[digest]
        except KeyError:
            raise NotFound("the store has no such blob", subject=f"blob {digest}") from None

    def path(self, digest: str) -> Path:
        file = Path(self._files.name) / digest.removeprefix("b3:")
        data = self.get(digest)
        if not file.exists():
            file.write_bytes(data)
        return file

    def has(self, digest: str) -> bool:
        return digest in self._data

    def delete(self, digest: str) -> None:
        self._data.pop(digest, None)

    def digests(self) -> Iterator[str]:
        yield from list(self._data)


def memory_store(folder: Path, clock: Clock | None = None, actor: Actor | None = None) -> Store:
    """A complete store in `folder` for one test: a real SQLite file, blobs in memory, time at noon of 1 January 2026."""
    database = SqliteDatabase(folder / ".instar" / "instar.db")
    create_tables(database)
    return Store(folder / ".instar", database, MemoryBlobs(), clock or EventClock(NOON), actor or Actor("ada"))


def create_tables(database: Database) -> None:
    """Make all tables of all stages at once, without the history of migrations."""
    schema.load()
    database.write(lambda tx: schema.metadata.create_all(tx))
