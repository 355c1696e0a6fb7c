"""The catalogue on both databases: a whole life of sealed calls, from sealing to the end of their time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from instar.app import open_store
from instar.core.clock import EventClock
from instar.core.store import Store
from instar.operate import garbage
from instar.serve.log import catalogue, erasing, holds, merging, retention, sealed_table, sealing, verification
from instar.serve.log.calls import CallLog
from instar.serve.log.searching import Query, condition, search
from instar.testing import NOON
from tests.serve.filled import fill


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: Any, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'instar.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
    store = open_store(tmp_path / ".instar", url, EventClock(NOON))
    yield store
    store.database.close()


def test_a_whole_life_of_sealed_calls(any_store: Store) -> None:
    store = any_store
    fill(store, 3)
    before = CallLog(store).read("delay")
    assert len(sealing.seal(store, grace_seconds=-1)) == 3
    assert CallLog(store).read("delay").equals(before)
    merging.merge(store)
    hold = holds.place(store, "flights", "delay", "case 1")
    holds.release(store, "flights", hold.id, "closed")
    erasing.ask(store, "flights", erasing.Selector("entity", "E1"), "request 1")
    (done,) = erasing.carry_out(store)
    assert done.predictions == 6
    retention.expire(store, "flights", {"delay": retention.Terms(inputs=timedelta(days=1))})
    sealing.seal(store, grace_seconds=-1)
    assert verification.verify(store) == []
    name = before["prediction"][3]
    assert CallLog(store).find(name)["prediction"] == name
    found = search(store, CallLog(store), "flights", Query(caller="ada", score=(condition(">=0.5", "score"),), limit=5))
    assert (len(found.rows), found.cursor is None) == (5, False)
    retention.expire(store, "flights", {"delay": retention.Terms(keep=timedelta(days=1))})
    assert catalogue.units(store) == []
    assert verification.verify(store) == []


def test_garbage_is_what_the_contract_keeps_no_longer_and_what_a_crash_left(any_store: Store) -> None:
    store = any_store
    fill(store, 1)
    sealing.seal(store)
    left = catalogue.tables_folder(store.folder, "flights") / "delay__frames" / "day=2020-01-01" / "left.parquet"
    left.parent.mkdir()
    left.write_bytes(b"half a file")
    terms = {"delay": retention.Terms(keep=timedelta(days=30))}
    for dry_run in (True, False):
        report = garbage.collect(store, "flights", dry_run=dry_run, terms=terms)
        found = {item.reason: item for item in report.gone if item.kind == "calls"}
        assert found["its writer was killed half way"].size == len(b"half a file")
        assert found["the contract says keep = 30d"].size > 0
        assert left.exists() == dry_run
        assert CallLog(store).read("delay").is_empty() != dry_run
    assert sealed_table.sweep(store, "flights", "delay") == {}


def test_an_upgrade_names_what_was_sealed_before_as_units(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    from instar.adapters import migrations
    from instar.adapters.database_sqlite import SqliteDatabase

    database = SqliteDatabase(tmp_path / "instar.db")
    facts = (
        "'delay/00002D-000003', 'flights', 'delay', 77, 3, 'sealed', 'call_01HF7YAT0100002D00000000001', "
        "'call_01HF7YAT0100002D00000000009', 1000000, 2000000, 9, 12, 20, 4, '{\"part-0.parquet\": \"b3:aa\"}', 'r', 'c', 3000000"
    )

    def before(tx: Any) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = tx
        command.upgrade(config, "0005")
        tx.exec_driver_sql(f"INSERT INTO segment VALUES ({facts})")

    database.write(before)
    database.write(migrations.walk)
    with database.read() as tx:
        (unit,) = catalogue.units_in(tx)
    store = Store(tmp_path, database, None, EventClock(NOON), None)  # type: ignore[arg-type]
    assert (unit.rows_path, unit.frames_path) == ("delay__predictions/part-0.parquet",) * 2
    assert (unit.segments, unit.predictions, unit.rows_digest) == (("delay/00002D-000003",), 12, "b3:aa")
    assert catalogue.delta_version(store, "flights", "delay") == 4
    (sealed,) = catalogue.segments(store).values()
    assert (sealed.frames, sealed.gaps, sealed.state) == (20, (), "sealed")
    database.close()
