"""An empty store is made in one piece, and it is the store to which the walk along all migrations leads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.adapters import migrations
from instar.adapters.database_sqlite import SqliteDatabase
from instar.adapters.migrations import newest
from instar.core.database import Transaction


@pytest.fixture
def walked(tmp_path: Path) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "walked.db")
    database.write(migrations.walk)
    yield database
    database.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "fresh.db")
    yield database
    database.close()


def _content(tx: Transaction) -> dict[str, object]:
    """The schema by name, and the rows of every table."""
    found: dict[str, object] = {}
    for kind, name, sql in tx.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all():
        found[f"{kind} {name}"] = sql
        if kind == "table" and name != "store_format":
            found[f"rows of {name}"] = sorted(tuple(row) for row in tx.exec_driver_sql(f'SELECT * FROM "{name}"'))
    return found


def test_the_file_says_what_the_walk_makes(walked: SqliteDatabase) -> None:
    """After a migration was added: `python -m instar.adapters.migrations.newest` writes the file again."""
    with walked.read() as tx:
        assert newest.FILE.read_text(encoding="utf-8") == newest.written(tx)


def test_both_ways_end_in_the_same_store(
    walked: SqliteDatabase, fresh: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "walk", None)  # not called for an empty store
    migrations.prepare(fresh)
    with walked.read() as tx, fresh.read() as other:
        assert _content(other) == _content(tx)
        assert len(_content(tx)) > 100


def test_a_fresh_store_has_no_step_left_to_take(fresh: SqliteDatabase) -> None:
    migrations.prepare(fresh)
    with fresh.read() as tx:
        before = _content(tx)
    fresh.write(migrations.walk)
    with fresh.read() as tx:
        assert _content(tx) == before


def test_what_is_not_empty_is_left_to_the_walk(fresh: SqliteDatabase) -> None:
    def work(tx: Transaction) -> bool:
        tx.exec_driver_sql("CREATE TABLE another (id INTEGER)")
        return newest.create(tx)

    assert fresh.write(work) is False
