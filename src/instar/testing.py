"""Fakes and contract suites for people who build on Instar: a store for tests, blobs in memory, one suite a port.

store = memory_store(tmp_path)                       # SQLite file and memory blobs, all tables made

class TestMyBlobs(BlobsContract):                    # every adapter of the port passes the same suite
    @pytest.fixture
    def blobs(self, tmp_path): return MyBlobs(tmp_path)
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instar.adapters import schema
from instar.adapters.database_sqlite import SqliteDatabase
from instar.core import ids
from instar.core.blobs import Blobs
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
        self._put_at: dict[str, datetime] = {}
        self._files = Path(tempfile.mkdtemp(prefix="instar-blobs-"))
        weakref.finalize(self, shutil.rmtree, self._files, ignore_errors=True)

    def put(self, data: bytes) -> str:
        digest = ids.digest(data)
        self._data[digest] = bytes(data)
        self._put_at[digest] = datetime.now(UTC)
        return digest

    def put_file(self, path: Path) -> str:
        return self.put(path.read_bytes())

    def adopt(self, path: Path) -> str:
        digest = self.put_file(path)
        path.unlink()
        return digest

    def get(self, digest: str) -> bytes:
        try:
            return self._data[digest]
        except KeyError:
            raise NotFound("the store has no such blob", subject=f"blob {digest}") from None

    def path(self, digest: str) -> Path:
        file = self._files / digest.removeprefix("b3:")
        data = self.get(digest)
        if not file.exists():
            file.write_bytes(data)
        return file

    def has(self, digest: str) -> bool:
        return digest in self._data

    def renew(self, digest: str) -> bool:
        if digest in self._data:
            self._put_at[digest] = datetime.now(UTC)
        return digest in self._data

    def put_at(self, digest: str) -> datetime | None:
        return self._put_at.get(digest) if digest in self._data else None

    def collect(self, digest: str, before: datetime) -> int | None:
        if digest not in self._data or self._put_at[digest] >= before:
            return None
        return len(self._data.pop(digest))

    def leftovers(self, before: datetime, *, remove: bool) -> dict[str, int]:
        return {}

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


class BlobsContract:
    """What every adapter of the blobs port must do. Give it a fixture `blobs`."""

    def test_content_comes_back(self, blobs: Blobs) -> None:
        for data in (b"", b"a", bytes(range(256)) * 1000):
            digest = blobs.put(data)
            assert digest == ids.digest(data)
            assert blobs.get(digest) == data
            assert blobs.path(digest).read_bytes() == data
            assert blobs.has(digest)

    def test_equal_content_is_kept_once(self, blobs: Blobs, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"twice")
        assert blobs.put(b"twice") == blobs.put_file(tmp_path / "file") == blobs.put(b"twice")
        assert list(blobs.digests()) == [ids.digest(b"twice")]

    def test_a_file_is_taken_over(self, blobs: Blobs, tmp_path: Path) -> None:
        for turn in range(2):  # the second time it is there already
            (tmp_path / "file").write_bytes(b"taken")
            assert blobs.adopt(tmp_path / "file") == ids.digest(b"taken")
            assert not (tmp_path / "file").exists(), turn
        assert blobs.get(ids.digest(b"taken")) == b"taken"

    def test_what_is_not_there_is_not_found(self, blobs: Blobs) -> None:
        unknown = ids.digest(b"never put")
        assert not blobs.has(unknown)
        for ask in (blobs.get, blobs.path):
            with pytest.raises(NotFound, match=unknown):
                ask(unknown)

    def test_only_what_nobody_put_lately_is_collected(self, blobs: Blobs) -> None:
        digest, unknown = blobs.put(b"found again"), ids.digest(b"never put")
        before = datetime.now(UTC) - timedelta(hours=1)
        assert blobs.collect(digest, before) is None
        assert blobs.has(digest)
        assert blobs.renew(digest)
        assert not blobs.renew(unknown)
        put = blobs.put_at(digest)
        assert put is not None
        assert put > before
        assert blobs.put_at(unknown) is None
        after = datetime.now(UTC) + timedelta(seconds=1)
        assert blobs.collect(digest, after) == len(b"found again")
        assert blobs.collect(digest, after) is None
        assert not blobs.has(digest)
        assert blobs.put(b"found again") == digest
        assert blobs.has(digest)

    def test_deleted_is_gone_and_deleting_again_is_nothing(self, blobs: Blobs) -> None:
        digest = blobs.put(b"short life")
        blobs.delete(digest)
        blobs.delete(digest)
        assert not blobs.has(digest)
        assert list(blobs.digests()) == []
