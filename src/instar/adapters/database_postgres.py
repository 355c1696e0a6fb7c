"""The database port on PostgreSQL: the store of a team."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from instar.core.database import T, Transaction, no_room
from instar.core.errors import BadInput, StoreBusy, Unavailable

BUSY_SECONDS = 60.0
# Any constant that no other program uses in this database. One writer at a time, as on SQLite: numbering of versions and
# chaining of the journal then need no further thought.
WRITER_LOCK = 0x1A57A2
DISK_FULL = "53100"
_RETRY = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available
# Too long for its column; a character that its encoding does not have; none: a NUL, which the driver itself refuses.
_UNKEPT = ("22001", "22021", None)
# Classes of what its server says when it goes, has no room for one more connection, or is not there (then: nothing).
_AWAY = ("08", "53", "57P")

_chance = random.Random()  # of its own: a training that records into the store draws the numbers that it would without


class PostgresDatabase:
    """One PostgreSQL database; readers see one snapshot, writers take turns."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(
            sa.engine.make_url(url).set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=16,
            max_overflow=16,
        )

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        try:
            with self._engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise _translated(error) from error

    def write(self, work: Callable[[Transaction], T], *, durable: bool = False, shared: bool = False) -> T:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._write_once(work, durable, shared)
            except sa.exc.DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state == DISK_FULL:
                    raise no_room() from error
                if state not in _RETRY:
                    raise _translated(error) from error
                if time.monotonic() > deadline:
                    raise StoreBusy(
                        f"other writers have been first for more than {BUSY_SECONDS:.0f} s",
                        subject="store",
                        next_step="Try again; nothing was written.",
                    ) from error
                time.sleep(_chance.uniform(0.001, 0.02))

    def _write_once(self, work: Callable[[Transaction], T], durable: bool, shared: bool) -> T:
        with self._engine.connect() as connection, connection.begin():
            lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
            # One round trip for all that begins a transaction of ours.
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = '{int(BUSY_SECONDS * 1000)}ms';"
                f" SET LOCAL synchronous_commit = {'on' if durable else 'off'};"
                f" SELECT {lock}({WRITER_LOCK})"
            )
            return work(connection)

    def close(self) -> None:
        self._engine.dispose()


def _translated(error: sa.exc.DBAPIError) -> Exception:
    """What is no mistake of ours, in our words: a text that is not kept, and a server that is away."""
    state = getattr(error.orig, "sqlstate", None)
    if (
        isinstance(error, sa.exc.DataError) and state in _UNKEPT
    ):  # SQLite would have kept it: it is the caller's to change
        return BadInput(f"the database does not keep that: {_first_line(error)}", subject="store")
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and (state or "08").startswith(_AWAY):
        return Unavailable(
            f"its database cannot be reached: {_first_line(error)}", subject="store",
            next_step="See that PostgreSQL runs and takes connections, then try again.",
        )  # fmt: skip
    return error


def _first_line(error: sa.exc.DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
