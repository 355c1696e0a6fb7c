"""Steps that run once for each partition of their input: which run again, one version of all, bad rows by partition."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from instar.app import kinds_of
from instar.core.errors import CheckFailed, PipelineError, StepFailed, WrongType
from instar.core.store import Store
from instar.data import ingest, tables
from instar.data.ingest import Delivery
from instar.plan import executions, importing, runner
from instar.plan.pipeline import discover
from instar.plan.project import load_project
from instar.plan.runner import Event, Walk
from tests.plan.conftest import CONTRACT

STEPS = """
import polars as pl
from instar import gold, silver, source
from instar.data.checks import quarantine

sales = source("sales", by="month")
prices = source("prices")

def cents(column):
    return pl.col(column) * 100

@silver(key=["id"], by="month")
def clean(sales: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    rows = sales.select("id", "amount").with_columns(cents("amount").alias("cents"), prices=pl.lit(prices.height))
    return quarantine(rows, negative=pl.col("amount") < 0)

@gold(entity="id", by="month")
def features(clean: pl.LazyFrame) -> pl.LazyFrame:
    return clean.with_columns(double=pl.col("amount") * 2)

@silver()
def total(clean: pl.LazyFrame) -> pl.LazyFrame:
    return clean.select(pl.col("amount").sum())
"""
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class World:
    def __init__(self, root, store: Store) -> None:
        self.root, self.store = root, store
        root.mkdir()
        (root / "instar.toml").write_text(CONTRACT)
        (root / "pipeline.py").write_text(STEPS)
        self.events: list[Event] = []
        self.land("prices", None, [1])
        for month, first in (("2026-01", 0), ("2026-02", 10), ("2026-03", 20)):
            self.land("sales", month, [first + 1, first + 2])

    def land(self, table: str, partition: str | None, ids: list[int], amounts: list[int] | None = None) -> None:
        project = load_project(self.root)
        rows = pl.DataFrame({"id": ids, "amount": amounts or ids})
        mode = "overwrite" if partition is None else None
        delivery = Delivery(f"{table} {partition}", rows, NOON)
        step = discover(project).step(table)
        ingest.land(self.store, "small", step, [delivery], partition=partition, mode=mode)

    def edit(self, old: str, new: str) -> None:
        text = (self.root / "pipeline.py").read_text()
        assert old in text
        (self.root / "pipeline.py").write_text(text.replace(old, new))

    def walk(self, **options) -> Walk:
        project = load_project(self.root)
        pipeline = discover(project)
        self.events.clear()
        return runner.execute(
            self.store,
            project,
            pipeline,
            kinds_of(self.store, project, pipeline),
            on_event=self.events.append,
            **options,
        )

    def why(self, step: str) -> list[str]:
        project = load_project(self.root)
        pipeline = discover(project)
        found = runner.why(self.store, project, pipeline, kinds_of(self.store, project, pipeline), step)
        return [reason.text for reason in found.reasons]

    def table(self, name: str) -> pl.DataFrame:
        version = tables.latest(self.store, "small", name)
        assert version is not None
        return tables.scan(self.store, version).collect()

    def files(self, name: str) -> dict[str, str]:
        version = tables.latest(self.store, "small", name)
        assert version is not None
        return {file.partition or "": file.path for file in tables.files(self.store, version)}


@pytest.fixture
def world(tmp_path, store: Store):  # type: ignore[no-untyped-def]
    yield World(tmp_path / "project", store)
    importing.forget()


def test_each_partition_runs_once_and_then_only_what_changed(world: World) -> None:
    first = world.walk()
    assert first.step("clean").partitions == ("2026-01", "2026-02", "2026-03")
    assert world.table("clean")["id"].to_list() == [1, 2, 11, 12, 21, 22]
    assert world.walk().ran() == []
    before = world.files("clean")
    world.land("sales", "2026-02", [13, 14])
    world.land("sales", "2026-04", [31])
    assert world.why("clean")[:3] == [
        "input sales changed", "partition 2026-02 changed", "partition 2026-04 is new",
    ]  # fmt: skip
    again = world.walk()
    assert again.step("clean").partitions == ("2026-02", "2026-04")
    assert again.step("features").partitions == ("2026-02", "2026-04"), (
        "it reads partitions of what was made by partitions"
    )
    assert again.ran() == ["clean", "features", "total"]
    assert world.table("features")["id"].to_list() == [1, 2, 13, 14, 21, 22, 31]
    after = world.files("clean")
    assert {month for month in before if after[month] == before[month]} == {"2026-01", "2026-03"}


def test_it_is_one_version_with_one_content_however_it_came_about(world: World, tmp_path) -> None:
    world.walk()
    world.land("sales", "2026-02", [13, 14])
    world.walk()
    version = tables.latest(world.store, "small", "clean")
    assert version is not None
    assert (version.number, version.mode, version.rows) == (2, "partitions", 6)
    assert version.key == ("id",)
    from instar.testing import memory_store

    other = World(tmp_path / "other", memory_store(tmp_path / "elsewhere"))
    other.land("sales", "2026-02", [13, 14])
    other.walk()
    whole = tables.latest(other.store, "small", "clean")
    assert whole is not None
    assert whole.content == version.content
    assert tables.read_profile(other.store, whole) == tables.read_profile(world.store, version)
    other.store.database.close()


def test_a_helper_a_whole_input_and_force_run_all(world: World) -> None:
    months = ("2026-01", "2026-02", "2026-03")
    world.walk()
    world.edit("* 100", "* 10")
    assert world.walk(targets=["clean"]).step("clean").partitions == months
    world.land("prices", None, [1, 2])
    assert world.walk(targets=["clean"]).step("clean").partitions == months
    assert world.walk(targets=["clean"], force=["clean"]).step("clean").partitions == months
    world.edit("* 10", "* 100")
    assert world.walk(targets=["clean"]).step("clean").partitions == months


def test_going_back_recalls_the_whole_and_no_partition_runs(world: World) -> None:
    world.walk(targets=["clean"])
    first = tables.latest(world.store, "small", "clean")
    world.land("sales", "2026-02", [13, 14])
    world.walk(targets=["clean"])
    world.land("sales", "2026-02", [11, 12])
    assert world.walk(targets=["clean"]).ran() == []
    last = tables.latest(world.store, "small", "clean")
    assert first is not None
    assert last is not None
    assert last.content == first.content


def test_what_ended_well_before_a_failure_is_not_run_again(world: World) -> None:
    world.edit("    rows = sales", "    if sales['id'][0] == 11: raise ValueError('a bad month')\n    rows = sales")
    with pytest.raises(StepFailed, match=r"step clean, month 2026-02 at pipeline\.py:\d+: .*a bad month"):
        world.walk()
    assert tables.latest(world.store, "small", "clean") is None, "no half version"
    world.land("sales", "2026-02", [15, 16])
    walk = world.walk()
    assert walk.step("clean").partitions == ("2026-02", "2026-03")
    with world.store.database.read() as tx:
        parts = executions.listed(tx, "small", step="clean")
    assert sorted((one.partition or "", one.state) for one in parts if one.partition) == [
        ("2026-01", "done"), ("2026-02", "done"), ("2026-02", "failed"), ("2026-03", "done"),
    ]  # fmt: skip


def test_bad_rows_are_kept_aside_by_partition(world: World) -> None:
    world.land("sales", "2026-01", [1, 2, 3], [1, -2, 3])
    world.land("sales", "2026-02", [11, 12], [-11, 12])
    world.walk(targets=["clean"])
    assert world.table("clean")["id"].to_list() == [1, 3, 12, 21, 22]
    assert world.table("clean__quarantine")["id"].to_list() == [2, 11]
    world.land("sales", "2026-01", [1, 2, 3])
    world.walk(targets=["clean"])
    assert world.table("clean__quarantine")["id"].to_list() == [11], "what did not change stays"
    world.land("sales", "2026-02", [11, 12])
    world.walk(targets=["clean"])
    assert world.table("clean__quarantine").height == 0
    assert world.table("clean")["id"].to_list() == [1, 2, 3, 11, 12, 21, 22]


def test_a_key_must_be_unique_over_all_partitions(world: World) -> None:
    world.walk(targets=["clean"])
    world.land("sales", "2026-02", [1, 12])
    with pytest.raises(CheckFailed, match="key id is unique"):
        world.walk(targets=["clean"])
    assert world.table("clean")["id"].to_list() == [1, 2, 11, 12, 21, 22]


def test_a_column_without_a_type_takes_that_of_the_others(world: World) -> None:
    world.edit("prices=pl.lit(prices.height))", "note=pl.when(pl.lit(sales['id'][0] > 5)).then(pl.lit('x')))")
    world.edit(
        "    rows = sales",
        "    if sales['id'][0] == 1: return sales.select('id', 'amount', note=pl.lit(None))\n    rows = sales",
    )
    world.walk(targets=["clean"])
    assert world.table("clean").filter(pl.col("id") == 1)["note"].to_list() == [None]
    assert world.table("clean").schema["note"] == pl.String


def test_types_that_differ_are_named(world: World) -> None:
    world.edit("prices=pl.lit(prices.height))", "note=pl.lit('x' if sales['id'][0] > 5 else 1))")
    with pytest.raises(WrongType, match=r"table clean, column note: two partitions have different types"):
        world.walk(targets=["clean"])


def test_a_step_by_what_no_input_is_by(world: World) -> None:
    world.edit('@silver(key=["id"], by="month")', '@silver(key=["id"], by="week")')
    with pytest.raises(PipelineError, match="none of its inputs is declared by 'week'"):
        discover(load_project(world.root))


def test_a_walk_that_was_told_to_says_which_partition(world: World) -> None:
    world.walk(targets=["clean"])
    started = [(e.partition, e.detail) for e in world.events if e.state == "started"]
    assert started == [
        ("2026-01", "month 2026-01"), ("2026-02", "month 2026-02"), ("2026-03", "month 2026-03"),
        (None, "joining 3 partitions, of which 3 ran"),
    ]  # fmt: skip


def test_rows_without_a_partition_are_one_too(world: World) -> None:
    world.land("sales", None, [1, 2])
    world.walk(targets=["clean"])
    assert world.files("clean").keys() == {""}
    assert world.table("clean")["id"].to_list() == [1, 2]


def test_lineage_goes_through_the_joined_version(world: World) -> None:
    from instar.core import lineage

    world.walk(targets=["clean"])
    version = tables.latest(world.store, "small", "clean")
    sales = tables.latest(world.store, "small", "sales")
    assert version is not None
    assert sales is not None
    with world.store.database.read() as tx:
        found = {(edge.source, edge.relation) for edge in lineage.up(tx, version.id)}
    assert (sales.id, "input of") in found
    assert (version.execution, "made") in found
