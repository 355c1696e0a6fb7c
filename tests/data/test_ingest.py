"""Landing: rows as they came with their origin; a bad delivery is refused whole, with a clear error and nothing written."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from instar.core import journal
from instar.core.errors import CheckFailed, EmptySource, MissingColumn, SourceError, WrongType
from instar.core.store import Store
from instar.data import ingest, tables
from instar.data.checks import Check
from instar.data.ingest import Delivery
from instar.data.tables import TableVersion
from instar.plan.pipeline import Step

AT = datetime(2026, 2, 1, tzinfo=UTC)
VISITS = Step(
    "visits", "source", options={"columns": {"id": int, "page": pl.String, "at": datetime, "score": "float64"}}
)
FREE = Step("visits", "source")
GOOD = "id,page,at,score\n1,007,2026-01-01T10:00:00Z,1.5\n2,home,2026-01-01T11:00:00Z,\n"


def land(store: Store, step: Step, *data: Any, partition: str | None = None, **options: Any) -> TableVersion:
    deliveries = [Delivery(getattr(one, "name", f"feed {n}"), one, AT) for n, one in enumerate(data)]
    return ingest.land(store, "shop", step, deliveries, partition, **options)


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def nothing_was_written(store: Store) -> bool:
    place = store.folder / "tables" / "shop" / "visits"
    with store.database.read() as tx:
        return not journal.entries(tx, "shop") and not list(place.glob("*.parquet")) and not list(place.glob("_delta*"))


def test_rows_land_as_they_came_with_their_origin(store: Store, tmp_path: Path) -> None:
    version = land(store, VISITS, file(tmp_path, "a.csv", GOOD))
    assert (version.zone, version.cause) == ("bronze", "user: a.csv")
    rows = tables.scan(store, version).collect()
    assert rows.to_dicts()[0] == {
        "id": 1, "page": "007", "at": datetime(2026, 1, 1, 10, tzinfo=UTC), "score": 1.5,
        "_source": "a.csv", "_row": 0, "_landed_at": AT,
    }  # fmt: skip
    assert rows["_row"].to_list() == [0, 1]


def test_many_deliveries_are_one_version(store: Store) -> None:
    version = land(store, FREE, pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [2], "b": ["x"]}))
    rows = tables.scan(store, version).collect()
    assert rows.select("a", "b", "_source", "_row").rows() == [(1, None, "feed 0", 0), (2, "x", "feed 1", 0)]


def test_a_retried_delivery_changes_nothing(store: Store, tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", GOOD)
    first = land(store, VISITS, path)
    assert land(store, VISITS, path) == first
    second = land(store, VISITS, file(tmp_path, "b.csv", GOOD))
    assert (second.number, second.rows) == (2, 4)
    assert land(store, VISITS, path) == second


def test_a_partition_replaces_its_former_self(store: Store) -> None:
    for month, values in (("02", [2]), ("01", [1, 1]), ("02", [3])):
        version = land(store, FREE, pl.DataFrame({"a": values}), partition=month)
    assert tables.scan(store, version).collect()["a"].to_list() == [1, 1, 3]
    assert version.partition == "02"


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_other_files(store: Store, tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"id": [1], "page": ["x"], "at": ["2026-01-01T10:00:00Z"], "score": [1]})
    path = tmp_path / f"a{ending}"
    frame.write_parquet(path) if ending == ".parquet" else frame.write_ndjson(path)
    rows = tables.scan(store, land(store, VISITS, path)).collect()
    assert rows.row(0)[:4] == (1, "x", datetime(2026, 1, 1, 10, tzinfo=UTC), 1.0)


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        (
            "a.csv",
            "id,page,score\n1,x,2\n",
            MissingColumn,
            ["visits, delivery a.csv", "found id, page, score", "asked for at"],
        ),
        ("a.csv", GOOD.replace("2,home", "two,home"), WrongType, ["column id", "'two' in row 1", "asked for Int64"]),
        ("a.csv", GOOD.replace("1.5", "much"), WrongType, ["column score", "'much' in row 0", "asked for Float64"]),
        ("a.csv", GOOD.replace("2,home", "2.5,home"), WrongType, ["column id", "2.5 in row 1", "asked for Int64"]),
        ("a.csv", GOOD.replace("2026-01-01T11", "yesterday"), WrongType, ["column at", "in row 1"]),
        ("a.csv", "", EmptySource, ["a.csv", "empty"]),
        ("a.csv", "id,page,at,score\n", EmptySource, ["no rows"]),
        ("a.jsonl", "", EmptySource, ["a.jsonl"]),
        ("a.jsonl", "{oops\n", SourceError, ["a.jsonl", "JSON lines"]),
        ("a.parquet", "not parquet", SourceError, ["a.parquet", "Parquet"]),
        ("a.xlsx", "x", SourceError, ["a.xlsx", "found .xlsx", ".csv, .parquet"]),
        ("a.csv", GOOD.replace("page", "_row"), SourceError, ["_row"]),
    ],
)
def test_bad_sources_say_what_is_wrong_and_leave_nothing(
    store: Store, tmp_path: Path, name: str, text: str, error: type[Exception], words: list[str]
) -> None:
    good = Delivery("good", file(tmp_path, "good.csv", GOOD), AT)
    bad = Delivery(name, file(tmp_path, name, text), AT)
    with pytest.raises(error) as caught:
        ingest.land(store, "shop", VISITS, [good, bad])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert nothing_was_written(store)


def test_missing_file_no_delivery_naive_time(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not there"):
        land(store, FREE, tmp_path / "nope.csv")
    with pytest.raises(EmptySource, match="nothing was delivered"):
        land(store, FREE)
    with pytest.raises(SourceError, match="no time zone"):
        ingest.land(store, "shop", FREE, [Delivery("x", pl.DataFrame({"a": [1]}), AT.replace(tzinfo=None))])
    assert nothing_was_written(store)


def test_deliveries_that_do_not_fit_together_or_the_table(store: Store) -> None:
    with pytest.raises(WrongType, match="different types"):
        land(store, FREE, pl.DataFrame({"a": [1]}), pl.DataFrame({"a": ["x"]}))
    assert nothing_was_written(store)
    first = land(store, FREE, pl.DataFrame({"a": [1]}))
    with pytest.raises(WrongType, match="column a"):
        land(store, FREE, pl.DataFrame({"a": ["x"]}))
    assert tables.latest(store, "shop", "visits") == first


def test_a_key_that_is_not_there(store: Store) -> None:
    with pytest.raises(MissingColumn, match="asked for id"):
        land(store, Step("visits", "source", options={"key": ("id",)}), pl.DataFrame({"a": [1]}))


def test_checks_at_the_door(store: Store) -> None:
    with pytest.raises(CheckFailed, match="positive"):
        land(store, FREE, pl.DataFrame({"a": [-1]}), checks=[Check("positive", pl.col("a") > 0)])
    assert tables.latest(store, "shop", "visits") is None


def test_promises_in_words_python_and_polars() -> None:
    rows = pl.DataFrame({"d": ["2026-01-02"], "f": ["TRUE"], "n": [None], "t": [datetime(2026, 1, 1)]})
    step = Step("visits", "source", options={"columns": {"d": date, "f": "boolean", "n": pl.Int32, "t": "timestamp"}})
    found = ingest._accept(step, Delivery("x", rows, AT))
    assert found.row(0)[:4] == (date(2026, 1, 2), True, None, datetime(2026, 1, 1, tzinfo=UTC))
    assert found.schema["n"] == pl.Int32
    with pytest.raises(WrongType, match="cannot promise"):
        ingest._accept(Step("v", "source", options={"columns": {"d": "money"}}), Delivery("x", rows, AT))
