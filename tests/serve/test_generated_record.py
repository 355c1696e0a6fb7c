"""The benchmark's predictions lie in files as those of sealing do, so that what it measures is what people get."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from instar.core.ids import call_id
from instar.core.store import Store
from instar.serve.log import catalogue, sealing
from instar.serve.log.calls import CallLog
from instar.serve.log.searching import Query, condition, search
from tests.serve.writing import Segment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "record"))
    import generated

    yield generated
    sys.modules.pop("generated")


def layout_of(store: Store, unit: catalogue.Unit) -> list[tuple[Any, ...]]:
    with pq.ParquetFile(catalogue.tables_folder(store.folder, unit.project) / unit.rows_path) as file:
        group = file.metadata.row_group(0)
        columns = [group.column(n) for n in range(group.num_columns)]
        return [
            (one.path_in_schema, one.physical_type, one.compression, one.encodings[0] if one.encodings else None)
            for one in columns
            if not one.path_in_schema.startswith("inputs.")
        ]


def test_its_files_have_the_layout_of_sealed_ones(store: Store, generated: Any) -> None:
    segment = Segment(store.folder, endpoint="other")
    segment.schema()
    segment.call()
    segment.end()
    sealing.seal(store)
    generated.fill(store, 1000, 1, in_unit=400)
    generated.fill_small(store, 2, 10, 1000, 86_400_000)
    (sealed,) = catalogue.units(store, endpoint="other")
    made = catalogue.units(store, endpoint="delay")
    assert [one.predictions for one in made] == [400, 400, 200, 10, 10]
    names = [[(name, kind) for name, kind, *_ in layout_of(store, one)] for one in (sealed, made[0])]
    assert names[0] == names[1]
    compressed = [{(name, how) for name, _, how, _ in layout_of(store, one)} for one in (sealed, made[0])]
    assert compressed[0] == compressed[1]
    assert made[0].listed["caller"] == sorted({*made[0].listed["caller"]})


def test_its_calls_are_found(store: Store, generated: Any) -> None:
    generated.fill(store, 1000, 1, in_unit=400)
    log = CallLog(store)
    assert log.read("delay").height == 1000
    begin = int(generated.BEGIN.timestamp()) * 1000
    name = call_id(begin + 86_400 * 500 // 1000 * 1000, generated.BOOT, 500)
    assert log.find(name)["call"] == name
    wide = search(store, log, "flights", Query(inputs=(condition("carrier=UA"),), limit=1000)).rows
    rows = log.read("delay")
    assert len(wide) == rows.filter(pl.col("inputs").struct.field("carrier") == "UA").height
