"""The metadata database, as a port: it offers transactions, never nouns.

Each stage declares its tables on `metadata` and keeps its queries beside them. A reader sees one snapshot; a writer hands
in its work as a function, which is run in a short exclusive transaction and, when another process was first, run again
whole. So the function must do nothing that cannot be done twice: no I/O, no user code.

    database.write(lambda tx: tx.execute(runs.insert().values(id="run_1")))
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

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

    def write(self, work: Callable[[Transaction], T], *, durable: bool = False) -> T:
        """Run `work` in one exclusive transaction, all or nothing.

        Args:
            work: Called with the open transaction; may be called again when the database was busy.
            durable: The commit must survive a power failure (True where a journal entry is in it).

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
        delta = value.astimezone(UTC) - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        seconds, microseconds = divmod(int(value), 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


class Json(sa.types.TypeDecorator[Any]):
    """A JSON value, kept as text with sorted keys so that equal values are equal texts."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> Any | None:
        return None if value is None else json.loads(value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
