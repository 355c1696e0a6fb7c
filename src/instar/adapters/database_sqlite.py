"""The database port on SQLite in WAL mode: the default store, for one machine and many processes."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.adapters.write_line import busy, line_of
from instar.core.database import T, Transaction, no_room
from instar.core.errors import StoreError

KEPT_OPEN, MOST_OPEN = 16, 64  # connections: a server reads with as many threads as ask
BUSY_SECONDS = 60.0  # how long a writer waits for others before it gives up
# Larger than SQLite's own 2,000: the pages that a busy run adds to stay in memory. Taken only as far as it is needed.
CACHE_KIB = 8_000
# Twice SQLite's own: pages that are written again and again reach the file half as often; a checkpoint still takes milliseconds.
CHECKPOINT_PAGES = 2_000
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "ceph", "glusterfs"}
)

_chance = random.Random()  # of its own: a training that records into the store draws the numbers that it would without


class SqliteDatabase:
    """One SQLite file; readers never wait, writers wait for each other."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        refuse_network_file_system(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._line = line_of(path)
        self._writer: sa.Connection | None = None  # who has the turn in the line uses it
        self._durable: bool | None = None  # as the writer's connection was told last
        self._engine = sa.create_engine(
            f"sqlite:///{path}",
            connect_args={"timeout": BUSY_SECONDS},
            pool_size=KEPT_OPEN,
            max_overflow=MOST_OPEN - KEPT_OPEN,
            pool_use_lifo=True,  # the one used last: its pages are in memory
        )
        self._process = os.getpid()  # that opened it: a fork may not use its parent's
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        try:
            opened = self._engine.connect()
        except sa.exc.OperationalError as error:
            raise _translated(error) from error
        with opened as connection:
            yield connection

    def write(self, work: Callable[[Transaction], T], *, durable: bool = False, shared: bool = False) -> T:
        deadline = time.monotonic() + BUSY_SECONDS
        with self._line.turn(BUSY_SECONDS):
            while True:
                try:
                    return self._write_once(work, durable)
                except sa.exc.OperationalError as error:
                    if not _busy(error) or time.monotonic() > deadline:
                        raise _translated(error) from error
                    time.sleep(_chance.uniform(0.001, 0.02))

    def _write_once(self, work: Callable[[Transaction], T], durable: bool) -> T:
        # The connection is kept, as there is one writer at a time: to take one from the pool and to give it back takes
        # as long as a short transaction. After an error it is given up, in whatever state it is.
        kept, self._writer = self._writer, None
        writer = kept if kept is not None and self._process == os.getpid() else self._open_writer()
        try:
            if durable != self._durable:
                # The pragma has no effect inside a transaction, so it goes to the driver before SQLAlchemy begins one.
                driver: Any = writer.connection.dbapi_connection
                driver.execute("PRAGMA synchronous=" + ("FULL" if durable else "NORMAL"))
                self._durable = durable
            with writer.begin():
                result = work(writer)
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        return result

    def _open_writer(self) -> sa.Connection:
        self._durable, self._process = None, os.getpid()
        return self._engine.connect().execution_options(instar_begin="BEGIN IMMEDIATE")

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        self._engine.dispose()


def refuse_network_file_system(folder: Path) -> None:
    """Raises StoreError when `folder` lies on a network file system, where SQLite's locks cannot be trusted."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():  # not Linux: nothing to read it from
        return
    target = str(folder.absolute())
    best, kind = "", ""
    for line in mounts.read_text().splitlines():
        _, point, file_system, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if (target == point or target.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, file_system
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            "a store cannot lie on a network file system",
            subject=f"store {folder}",
            found=kind,
            next_step="Put the store on a local disk, or use PostgreSQL: INSTAR_DATABASE=postgresql://…",
        )


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by `_begin`, with the lock that they need, not implicitly by the driver.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")


def _begin(connection: sa.Connection) -> None:
    # At the driver: SQLAlchemy's way to it takes longer than the statement, and this one is sent with every transaction.
    statement = connection.get_execution_options().get("instar_begin", "BEGIN")
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.execute(statement)
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError.instance(
            statement, None, error, connection.dialect.loaded_dbapi.Error, dialect=connection.dialect
        ) from error


def _busy(error: sa.exc.OperationalError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _translated(error: sa.exc.OperationalError) -> Exception:
    if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return no_room()
    return busy(BUSY_SECONDS) if _busy(error) else error
