"""Tables as outputs of steps: forms, quarantine, checks, key order, lineage, going back, and rows to serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from instar.core import lineage
from instar.core.errors import BadInput, CheckFailed, MissingColumn, NotFound, PipelineError, StepFailed
from instar.core.store import Store
from instar.data import ingest, kind, tables
from instar.data.ingest import Delivery
from instar.plan import runner
from instar.plan.pipeline import Pipeline, discover
from instar.plan.project import Project, load_project

TOML = """
[project]
name = "shop"
objective = "Sell"
owner = "ada"

[problem.sale]
task = "binary"
target = "sold"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }

[problem.sale.split]
by = "event_time"
decide = "14d"
judge = "14d"
refit = true

[problem.sale.outcome]
due = "1d"
"""
CODE = """
import polars as pl
from instar import check, gold, quarantine, silver, source

visits = source("visits", key=["id"], columns={"id": int, "price": float})

@silver(key=["id"])
def clean(visits: pl.LazyFrame) -> pl.LazyFrame:
    rows = visits.select("id", "price").group_by("id").agg(pl.col("price").last())
    return quarantine(rows, negative=pl.col("price") < 0, unknown=pl.col("price").is_null())

@gold(entity="id")
def features(clean: FORM, visits: pl.DataFrame, scale: float = 2.0):
    if isinstance(clean, pl.LazyFrame):
        return clean.with_columns(double=pl.col("price") * scale)
    kind = type(clean).__module__.split(".")[0] + "." + type(clean).__name__
    return pl.DataFrame(clean).with_columns(double=pl.col("price") * scale, form=pl.lit(kind))

@check("clean")
def prices():
    return {"cheap": pl.col("price") < 1000}

@check("features", severity="warn")
def doubles():
    return {"small": pl.col("double") < 15}
"""


class Shop:
    """A project in a folder, run over a store."""

    def __init__(self, store: Store, root: Path, code: str = CODE) -> None:
        root.mkdir(exist_ok=True)
        (root / "instar.toml").write_text(TOML)
        (root / "pipeline.py").write_text(code.replace("FORM", "pl.LazyFrame"))
        self.store, self.root = store, root

    @property
    def project(self) -> Project:
        return load_project(self.root)

    @property
    def pipeline(self) -> Pipeline:
        return discover(self.project)

    def land(self, **columns: list[Any]) -> None:
        delivery = Delivery("feed", pl.DataFrame(columns), self.store.clock.event())
        ingest.land(self.store, "shop", self.pipeline.step("visits"), [delivery], cause="test", mode="overwrite")

    def run(self) -> runner.Walk:
        pipeline = self.pipeline
        tables_kind = kind.TableKind(self.store, self.project, pipeline)
        kinds = dict.fromkeys(("source", "silver", "gold"), tables_kind)
        return runner.execute(self.store, self.project, pipeline, kinds)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return tables.scan(self.store, tables.get(self.store, "shop", table)).collect().to_dicts()


@pytest.fixture
def shop(store: Store, tmp_path: Path) -> Shop:
    return Shop(store, tmp_path / "shop")


def test_clean_rows_and_quarantine_with_the_reason(shop: Shop) -> None:
    shop.land(id=[3, 1, 2, 4], price=[5.0, 7.0, -1.0, None])
    walk = shop.run()
    assert walk.ran() == ["clean", "features"]
    assert shop.rows("clean") == [{"id": 1, "price": 7.0}, {"id": 3, "price": 5.0}]  # in key order
    assert shop.rows("clean__quarantine") == [
        {"id": 2, "price": -1.0, "_reason": "negative"},
        {"id": 4, "price": None, "_reason": "unknown"},
    ]
    version = tables.get(shop.store, "shop", "clean")
    assert (version.zone, version.key) == ("silver", ("id",))
    assert [check.name for check in version.checks] == ["key id is unique", "cheap"]
    assert tables.get(shop.store, "shop", "clean__quarantine").zone == "quarantine"
    assert [check.passed for check in tables.get(shop.store, "shop", "features").checks] == [True, True]
    with shop.store.database.read() as tx:
        causes = {edge.source for edge in lineage.up(tx, tables.get(shop.store, "shop", "features").id)}
    assert {version.id, tables.get(shop.store, "shop", "visits").id} <= causes


def test_a_broken_check_keeps_the_version_before(shop: Shop) -> None:
    shop.land(id=[1], price=[7.0])
    shop.run()
    before = tables.get(shop.store, "shop", "clean")
    shop.land(id=[1], price=[7000.0])
    with pytest.raises(CheckFailed, match=r"cheap \(fails on 1 of 1 rows\)"):
        shop.run()
    assert tables.get(shop.store, "shop", "clean") == before


def test_going_back_to_old_rows_runs_nothing_again(shop: Shop) -> None:
    shop.land(id=[1], price=[7.0])
    shop.run()
    first = tables.get(shop.store, "shop", "features").content
    shop.land(id=[1], price=[9.0])
    shop.run()
    assert shop.rows("features")[0]["double"] == 18.0
    shop.land(id=[1], price=[7.0])
    assert shop.run().ran() == []
    assert tables.get(shop.store, "shop", "features").content == first
    assert shop.rows("features")[0]["double"] == 14.0


def test_rows_to_serve_are_made_by_the_gold_function(shop: Shop) -> None:
    shop.land(id=[1], price=[7.0])
    shop.run()
    moment = pl.DataFrame({"id": [9]})
    rows = kind.rows_to_serve(shop.store, "shop", shop.pipeline, "features", {"clean": moment})
    assert rows.to_dicts() == [{"id": 9, "price": None, "double": None}]
    with pytest.raises(MissingColumn, match="asked for clean or visits"):
        kind.rows_to_serve(shop.store, "shop", shop.pipeline, "features", {"other": moment})


@pytest.mark.parametrize("form", ["pl.LazyFrame", "pl.DataFrame", "pa.Table", "pd.DataFrame"])
def test_inputs_come_in_the_form_that_the_step_declares(store: Store, tmp_path: Path, form: str) -> None:
    if form == "pd.DataFrame":
        pytest.importorskip("pandas")
    modules = (
        "import pyarrow as pa\n" if form == "pa.Table" else "import pandas as pd\n" if form == "pd.DataFrame" else ""
    )
    shop = Shop(store, tmp_path / "shop", modules + CODE.replace("FORM", form))
    shop.land(id=[1, 2], price=[7.0, 8.0])
    shop.run()
    found = shop.rows("features")
    assert [row["double"] for row in found] == [14.0, 16.0]
    package = {"pl": "polars", "pa": "pyarrow", "pd": "pandas"}[form[:2]]
    assert found[0].get("form", "polars.LazyFrame") == f"{package}.{form[3:]}"


def test_an_unknown_form_is_named(store: Store, tmp_path: Path) -> None:
    shop = Shop(store, tmp_path / "shop", CODE.replace("clean: FORM", "clean: dict"))
    shop.land(id=[1], price=[7.0])
    with pytest.raises(PipelineError, match=r"builtins.dict"):
        shop.run()


def test_what_is_no_table_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    shop = Shop(store, tmp_path / "shop", CODE.replace("return quarantine", "return 3  #"))
    shop.land(id=[1], price=[7.0])
    with pytest.raises(Exception, match="found int"):
        shop.run()
    assert tables.latest(store, "shop", "clean") is None


def test_a_step_that_raises_leaves_nothing(store: Store, tmp_path: Path) -> None:
    shop = Shop(store, tmp_path / "shop", CODE.replace('pl.col("price").last()', 'pl.col("nope").last()'))
    shop.land(id=[1], price=[7.0])
    with pytest.raises(StepFailed, match="nope"):
        shop.run()
    assert tables.latest(store, "shop", "clean") is None


def test_a_double_key_is_an_error_in_silver(store: Store, tmp_path: Path) -> None:
    shop = Shop(store, tmp_path / "shop", CODE.replace('.group_by("id").agg(pl.col("price").last())', ""))
    shop.land(id=[1, 1], price=[7.0, 8.0])
    with pytest.raises(CheckFailed, match="key id is unique"):
        shop.run()


def test_the_files_of_a_source_are_the_whole_table(store: Store, tmp_path: Path) -> None:
    shop = Shop(store, tmp_path / "shop", CODE.replace("key=[", 'path="in/*.csv", key=[', 1))
    (shop.root / "in").mkdir()
    with pytest.raises(BadInput, match=r"in/\*\.csv"):
        shop.run()
    first = shop.root / "in" / "a.csv"
    first.write_text("id,price\n1,7\n")
    os.utime(first, (1_700_000_000, 1_700_000_000))
    assert "visits" in shop.run().ran()
    assert shop.run().ran() == []
    (shop.root / "in" / "b.csv").write_text("id,price\n2,8\n")
    shop.run()
    assert [row["id"] for row in shop.rows("clean")] == [1, 2]
    first.unlink()
    shop.run()
    assert [row["id"] for row in shop.rows("clean")] == [2]


def test_a_table_without_rows_is_named(shop: Shop) -> None:
    with pytest.raises(NotFound, match="table clean: nothing was written"):
        kind.rows_to_serve(shop.store, "shop", shop.pipeline, "features", {})


def test_the_commands_load_nothing_heavy() -> None:
    heavy = "('polars', 'sqlalchemy', 'numpy', 'rich')"
    script = f"import sys, instar.interfaces.cli.data; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
