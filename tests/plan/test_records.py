"""The record of walks on both databases: what is written, what a lost lease prevents, what is asked in bulk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from instar.app import open_database
from instar.core import journal, lineage
from instar.core.errors import Conflict, StepFailed
from instar.core.store import Store
from instar.plan import executions, leases, output, resuming, runner
from instar.plan.executions import DONE, FAILED
from instar.plan.records import Records, repair
from instar.testing import create_tables, memory_store
from tests.plan.small_kinds import FileKind, kinds

STEPS = """
from instar import silver, source

raw = source("raw")

@silver(retries=1, retry_after="0s")
def first(raw):
    return [x + 1 for x in raw]

@silver()
def second(first):
    return sum(first)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = memory_store(tmp_path)
    if request.param == "postgresql":
        store.database.close()
        database = open_database(request.getfixturevalue("postgres_database"))
        create_tables(database)
        store = replace(store, database=database)
    yield store
    store.database.close()


def walk(folder, store: Store, **options) -> runner.Walk:  # type: ignore[no-untyped-def]
    return runner.execute(store, folder.project(), folder.pipeline(), kinds(FileKind(store)), **options)


def test_a_walk_is_on_the_record_of_either_database(folder, any_store: Store) -> None:  # type: ignore[no-untyped-def]
    folder.write({"pipeline.py": STEPS})
    FileKind(any_store).put("raw", [1, 2])
    made = walk(folder, any_store)
    assert made.ran() == ["first", "second"]
    assert walk(folder, any_store).ran() == []
    folder.edit("pipeline.py", "sum(first)", "1 / 0")
    with pytest.raises(StepFailed):
        walk(folder, any_store)
    with any_store.database.read() as tx:
        newest = executions.newest(tx, "small", ["first", "second", "third"])
        good = executions.newest(tx, "small", ["first", "second"], DONE)
        assert (newest["second"].state, newest["second"].error) == (
            FAILED,
            "step second at pipeline.py:12: its function raised ZeroDivisionError: division by zero.",
        )
        assert newest.keys() == {"first", "second"}
        assert good["second"].id == made.step("second").execution
        keys = [one.key for one in good.values()]
        found = executions.results(tx, "small", keys)
        assert {key: [one.ref for one in several] for key, several in found.items()} == {
            one.key: [one.ref] for one in good.values()
        }
        assert executions.results(tx, "small", keys[:1]) == {keys[0]: found[keys[0]]}
        assert good["first"].ingredients["inputs"].keys() == {"raw"}
        assert [edge.relation for edge in lineage.up(tx, str(good["second"].ref), depth=1)] == ["made"]
        assert journal.verify(tx, "small").consistent
        before = resuming.broken_off(tx, "small")
    assert before is not None
    assert [one.step for one in before[1]] == ["second"]


def test_what_was_put_off_is_written_with_the_next_and_not_without_the_lease(any_store: Store) -> None:
    with leases.hold(any_store, "pipeline/small") as lease:
        records = Records(any_store, "small", lease, cause="user", contract="b3:0", targets=None)
        records.begin(None)
        one = records.start("first", "silver", "b3:1", {"parameters": {"rate": 0.5}}, [])
        records.end(one, DONE, stored=runner.Stored("b3:2", "b3:2"), later=True)
        assert _state(any_store, one.id) == "running"
        two = records.start("second", "silver", "b3:3", {}, [], attempt=2, partition="2026-01")
        assert _state(any_store, one.id) == "done"
        with any_store.database.read() as tx:
            kept = executions.get(tx, two.id)
        assert kept == two
        take = leases.lease.update().values(fence=leases.lease.c.fence + 1)
        any_store.database.write(lambda tx: tx.execute(take))
        with pytest.raises(Conflict, match="another process took the lease over"):
            records.end(two, DONE, stored=runner.Stored("b3:4", "b3:4"))
        with pytest.raises(Conflict):
            records.close(DONE, [])
    assert _state(any_store, two.id) == "running"
    assert repair(any_store, "small") == 1
    assert repair(any_store, "small") == 0
    assert _state(any_store, two.id) == "abandoned"


def test_the_next_walk_tidies_up_after_one_that_was_killed_between_two_steps(any_store: Store) -> None:
    with leases.hold(any_store, "pipeline/small") as lease:
        records = Records(any_store, "small", lease, cause="user", contract="b3:0", targets=None)
        records.begin(None)
        one = records.start("first", "silver", "b3:1", {}, [])
        records.end(one, DONE, stored=runner.Stored("b3:2", "b3:2"))
    silent = output.live_file(any_store, one.id)  # as it waits for the next step
    silent.parent.mkdir(exist_ok=True)
    silent.touch()
    assert repair(any_store, "small") == 0
    assert not silent.exists()
    with any_store.database.read() as tx:
        assert [run.state for run in executions.pipeline_runs(tx, "small")] == ["abandoned"]


def _state(store: Store, id_: str) -> str:
    with store.database.read() as tx:
        found = executions.get(tx, id_)
    assert found is not None
    return found.state
