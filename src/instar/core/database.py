"""The metadata database, as a port: it offers transactions, never nouns.

Each stage declares its tables on `metadata` and keeps its queries beside them. A reader sees one snapshot; a writer hands
in its work as a function, which is run in a short exclusive transaction and, when another process was first, run again
whole. So the function must do nothing that cannot be done twice: no I/O, no user code.

    database.write(lambda tx: tx.execute(runs.insert().values(id="run_1")))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa

from instar.core.errors import StoreFull

Transaction = sa.Connection
T = TypeVar("T")

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Database(Protocol):
    """A database that many processes share."""

    @property
    def dialect(self) -> str:
        """`"sqlite"` or `"postgresql"`."""

    def read(self) -> AbstractContextManager[Transaction]:
        """One consistent snapshot to read from."""

    def write(self, work: Callable[[Transaction], T], *, durable: bool = False, shared: bool = False) -> T:
        """Run `work` in one exclusive transaction, all or nothing.

        Args:
            work: Called with the open transaction; may be called again when the database was busy.
            durable: The commit must survive a power failure (True where a journal entry is in it).
            shared: Other shared writers may write at the same time, where the database can; exclusive ones still may not.
                Sound only when `work` first locks the one row that all its writes hang on (see `row_lock`).

        Raises:
            StoreBusy: Others held the database for longer than the adapter waits.
        """

    def close(self) -> None:
        """Give all connections back."""


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime, kept as microseconds since 1970: exact, and ordered alike on every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value.isoformat()}: records hold aware times")
        return microseconds(value)

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return moment(int(value))


def microseconds(value: datetime) -> int:
    """An aware time as whole microseconds since 1970."""
    delta = value.astimezone(UTC) - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def moment(value: int) -> datetime:
    """The time of so many microseconds since 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=value)


class Json(sa.types.TypeDecorator[Any]):
    """A JSON value, kept as text with sorted keys so that equal values are equal texts."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else _JSON.encode(value)

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> Any | None:
        return None if value is None else json.loads(value)


def rows_where(index: sa.Index, condition: sa.ColumnElement[bool]) -> None:
    """Have an index hold only the rows that pass a condition.

    It is said when the table is made: to name a database in the declaration loads all that SQLAlchemy knows of that
    database, which every start would pay.
    """

    def say(_table: sa.Table, connection: sa.Connection, **_: Any) -> None:
        index.dialect_kwargs[f"{connection.dialect.name}_where"] = condition

    assert index.table is not None
    sa.event.listen(index.table, "before_create", say)


def row_lock(tx: Transaction) -> str:
    """What a `SELECT` of a shared writer ends with, so that no other writer changes what hangs on the row until the commit."""
    return " FOR NO KEY UPDATE" if tx.dialect.name == "postgresql" else ""


def fetch(tx: Transaction, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """Rows of a query as plain tuples, straight from the driver: for reads of very many rows. Values stand as `?`."""
    driver = _driver(tx)
    try:
        cursor = driver.execute(_marked(tx, statement), values)
        found: list[Any] = cursor.fetchall()
        cursor.close()
    except tx.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(tx, statement, error) from error
    return found


def stream(tx: Transaction, statement: str, values: Sequence[Any] = ()) -> Iterable[Any]:
    """The same rows one by one, for those who make something else of each at once: where the driver can, never all in memory."""
    # PostgreSQL's driver has received all of them anyway, and hands them out quicker together.
    return fetch(tx, statement, values) if tx.dialect.name == "postgresql" else _driver(tx).execute(statement, values)


def command(tx: Transaction, statement: str, values: Sequence[Any] = ()) -> None:
    """Run one statement that returns no rows, straight at the driver. Values stand as `?`."""
    driver = _driver(tx)
    try:
        driver.execute(_marked(tx, statement), values).close()
    except tx.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(tx, statement, error) from error


def insert(tx: Transaction, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run one statement for many rows, straight at the driver. Values stand as `?`."""
    cursor = _driver(tx).cursor()
    try:
        cursor.executemany(_marked(tx, statement), rows)
    except tx.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(tx, statement, error) from error
    finally:
        cursor.close()


def at_driver(tx: Transaction, statement: str, values: Sequence[Any]) -> DriverResult:
    """Run one statement past SQLAlchemy's machinery, where a call of a tenth of a millisecond counts.

    Args:
        statement: With `?` for its values, on every database.
        values: As the driver keeps them: times as microseconds, JSON as text.
    """
    cursor = _driver(tx).cursor()
    try:
        cursor.execute(_marked(tx, statement), tuple(values))
        rows = cursor.fetchall() if cursor.description is not None else []
        return DriverResult([tuple(row) for row in rows], cursor.rowcount)
    except tx.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(tx, statement, error) from error
    finally:
        cursor.close()


def _driver(tx: Transaction) -> Any:
    if not tx.in_transaction():  # the driver's own statements do not make SQLAlchemy begin one
        tx.begin()
    return tx.connection.dbapi_connection


def _marked(tx: Transaction, statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s") if tx.dialect.name == "postgresql" else statement


def _as_sqlalchemy(tx: Transaction, statement: str, error: Exception) -> Exception:
    """A driver's error as SQLAlchemy would raise it: adapters know a busy database and a full disk by that."""
    return sa.exc.DBAPIError.instance(statement, None, error, tx.dialect.loaded_dbapi.Error, dialect=tx.dialect)


class DriverResult(NamedTuple):
    """What a statement gave: its rows, and how many rows it changed."""

    rows: list[tuple[Any, ...]]
    changed: int


_JSON = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False
)  # to make one takes as long as to use it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def no_room() -> StoreFull:
    """What adapters say when the disk of the database is full."""
    return StoreFull(
        "no room is left on the disk of its database",
        subject="store",
        next_step="Make room there, then try again; nothing was written.",
    )
