"""The contract of the database port, over SQLite and a real PostgreSQL server."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from instar.adapters import migrations, schema
from instar.app import open_database
from instar.core import journal, lineage
from instar.core.clock import EventClock
from instar.core.database import Database, Instant, Transaction, at_driver, command, fetch, insert
from instar.core.errors import StoreError, StoreFull, StoreTooNew, Unavailable
from instar.core.identity import Actor

CLOCK = EventClock(datetime(2026, 1, 1, tzinfo=UTC))
ADA = Actor("ada")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'instar.db'}"
    fresh: str = request.getfixturevalue("postgres_database")
    return fresh


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = open_database(url)
    schema.load()
    database.write(lambda tx: schema.metadata.create_all(tx))
    yield database
    database.close()


def _append(tx: Transaction, number: int = 0) -> journal.Entry:
    return journal.append(tx, CLOCK, ADA, "p", "test", f"s{number}", {"n": number})


def test_a_write_is_seen_by_the_next_reader(database: Database) -> None:
    database.write(_append, durable=True)
    with database.read() as tx:
        assert [entry.body for entry in journal.entries(tx, "p")] == [{"n": 0}]


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    def fails(tx: Transaction) -> None:
        _append(tx)
        raise ValueError("the user's mistake")

    with pytest.raises(ValueError, match="mistake"):
        database.write(fails)
    with database.read() as tx:
        assert journal.entries(tx, "p") == []


def test_a_reader_keeps_its_snapshot(database: Database) -> None:
    database.write(_append)
    with database.read() as tx:
        before = len(journal.entries(tx, "p"))
        database.write(lambda other: _append(other, 1))
        assert len(journal.entries(tx, "p")) == before == 1


def _append_many(url: str, times: int) -> None:
    database = open_database(url)
    for number in range(times):
        database.write(lambda tx, number=number: _append(tx, number), durable=True)  # type: ignore[misc]
    database.close()


def test_processes_write_in_turns_and_lose_nothing(database: Database, url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_many, args=(url, 40)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    with database.read() as tx:
        found = journal.verify(tx, "p")
    assert found.consistent
    assert found.entries == 120


def test_instants_survive_in_utc_to_the_microsecond(database: Database) -> None:
    moment = datetime(2013, 7, 4, 5, 6, 7, 890123, tzinfo=timezone(timedelta(hours=-4)))
    table = sa.Table("moments", sa.MetaData(), sa.Column("at", Instant))
    database.write(lambda tx: (table.create(tx), tx.execute(table.insert().values(at=moment))))
    with database.read() as tx:
        found = tx.execute(sa.select(table.c.at)).scalar_one()
    assert found == moment
    assert found.tzinfo == UTC


def test_naive_times_are_refused(database: Database) -> None:
    table = sa.Table("moments", sa.MetaData(), sa.Column("at", Instant))
    database.write(table.create)
    with pytest.raises(sa.exc.StatementError, match="naive"):
        database.write(lambda tx: tx.execute(table.insert().values(at=datetime(2026, 1, 1))))


@pytest.mark.parametrize(
    ("harm", "broken_at", "reason"),
    [
        (lambda t: t.update().where(t.c.number == 3).values(body={"n": 99}), 3, "changed"),
        (lambda t: t.update().where(t.c.number == 3).values(actor="eve"), 3, "changed"),
        (lambda t: t.delete().where(t.c.number == 2), 2, "missing"),
        (lambda t: t.delete().where(t.c.number == 5), 5, "missing at its end"),
    ],
)
def test_the_journal_shows_any_edit(
    database: Database, harm: Callable[[sa.Table], sa.Executable], broken_at: int, reason: str
) -> None:
    for number in range(5):
        database.write(lambda tx, number=number: _append(tx, number))  # type: ignore[misc]
    database.write(lambda tx: tx.execute(harm(journal.journal_entry)))
    with database.read() as tx:
        found = journal.verify(tx, "p")
    assert not found.consistent
    assert found.broken_at == broken_at
    assert reason in found.reason


def test_lineage_walks_both_ways_and_ends_in_rings(database: Database) -> None:
    edges = [("bronze", "silver"), ("silver", "gold"), ("bronze", "gold"), ("gold", "model"), ("model", "bronze")]

    def write(tx: Transaction) -> None:
        for source, target in [*edges, edges[0]]:  # one of them twice
            lineage.link(tx, "p", source, "input of", target)

    database.write(write)
    with database.read() as tx:
        down = lineage.down(tx, "bronze")
        nearest = lineage.up(tx, "gold", depth=1)
    assert {(edge.source, edge.target) for edge in down} == set(edges)
    assert [edge.depth for edge in down] == [1, 1, 2, 2, 3]
    assert {edge.source for edge in nearest} == {"bronze", "silver"}


def test_migrations_end_where_the_program_begins(url: str) -> None:
    database = open_database(url)
    migrations.prepare(database)
    migrations.prepare(database)  # a second opening changes nothing
    schema.load()
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with database.read() as tx:
        options = {"include_name": lambda name, kind, _: kind != "table" or name not in ("store_format",)}
        differences = compare_metadata(MigrationContext.configure(tx, opts=options), schema.metadata)
    assert differences == []
    database.close()


def test_a_later_format_is_refused(url: str) -> None:
    database = open_database(url)
    migrations.prepare(database)
    later = migrations.FORMAT + 1
    database.write(lambda tx: tx.execute(sa.update(migrations.store_format).values(number=later)))
    with pytest.raises(StoreTooNew, match=f"format {later}"):
        migrations.prepare(database)
    database.close()


def test_what_the_driver_alone_says_of_a_busy_database_is_tried_again_too(database: Database) -> None:
    """Statements at driver level pass SQLAlchemy by, and so would their errors."""
    if database.dialect != "postgresql":
        pytest.skip("SQLite's writer is alone from the beginning of its transaction")
    raising = "DO $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{}'; END $$"
    ways: list[Callable[[Transaction, str], object]] = [
        fetch, command, lambda tx, text: insert(tx, text, [()]), lambda tx, text: at_driver(tx, text, ()),
    ]  # fmt: skip
    for way in ways:
        calls: list[int] = []

        def work(tx: Transaction, way: Callable[[Transaction, str], object] = way, calls: list[int] = calls) -> str:
            calls.append(1)
            if len(calls) == 1:
                way(tx, raising.format("40001"))
            return "written"

        assert database.write(work) == "written"
        assert len(calls) == 2
        with pytest.raises(StoreFull):
            database.write(lambda tx, way=way: way(tx, raising.format("53100")))  # type: ignore[misc]


def test_a_database_that_goes_away_is_unavailable_and_is_used_again_when_it_is_back(postgres_database: str) -> None:
    """PostgreSQL alone: a file does not go away."""
    database = open_database(postgres_database)
    ending = "SELECT pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(Unavailable, match="cannot be reached"), database.read() as tx:
        tx.exec_driver_sql(ending)
    with pytest.raises(Unavailable, match="cannot be reached"):
        database.write(lambda tx: fetch(tx, ending))
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()
    nowhere = open_database(f"{postgres_database.rpartition(':')[0]}:1/nothing")
    with pytest.raises(Unavailable) as caught, nowhere.read():
        pass
    assert "PostgreSQL runs" in str(caught.value)
    with pytest.raises(Unavailable):
        nowhere.write(lambda tx: None)


def test_an_unknown_database_is_refused_without_showing_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        open_database("mysql://root:secret@127.0.0.1/x")
    assert "secret" not in str(caught.value)


def test_shared_writers_write_at_once_where_the_database_can_and_never_beside_an_exclusive_one(
    database: Database,
) -> None:
    begun = threading.Event()
    together = threading.Barrier(2 if database.dialect == "postgresql" else 1, action=begun.set)
    inside: list[str] = []
    seen: list[list[str]] = []

    def shared(tx: Transaction) -> None:
        together.wait(60)  # on PostgreSQL both are in their transactions by now
        inside.append("shared")
        seen.append([*inside])
        inside.remove("shared")

    def exclusive(tx: Transaction) -> None:
        inside.append("exclusive")
        seen.append([*inside])
        inside.remove("exclusive")

    threads = [threading.Thread(target=database.write, args=(shared,), kwargs={"shared": True}) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)  # who asks for an exclusive turn keeps later shared ones waiting
    threads += [threading.Thread(target=database.write, args=(exclusive,)) for _ in range(2)]
    for thread in threads[2:]:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sum("exclusive" in one for one in seen) == 2
    assert all(one == ["exclusive"] or "exclusive" not in one for one in seen)


def test_a_full_disk_is_said_so_and_nothing_is_written(tmp_path: Path) -> None:
    """SQLite alone: it can be told that its file may not grow."""
    database = open_database(f"sqlite:///{tmp_path / 'instar.db'}")
    schema.load()
    database.write(lambda tx: schema.metadata.create_all(tx))
    rows = [{"n": "x" * 4000} for _ in range(500)]

    def too_much(tx: Transaction) -> None:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")
        for row in rows:
            journal.append(tx, CLOCK, ADA, "p", "test", "s", row)

    def too_much_at_once(tx: Transaction) -> None:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")
        statement = "INSERT INTO journal_head (project, number, digest) VALUES (?, ?, ?)"
        insert(tx, statement, [(f"{number} {row['n']}", 0, "") for number, row in enumerate(rows)])

    for work in (too_much, too_much_at_once):
        with pytest.raises(StoreFull, match="Make room"):
            database.write(work)
    with database.read() as tx:
        assert journal.entries(tx, "p") == []
    database.close()
