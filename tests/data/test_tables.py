"""Table versions: whole or not at all, the same content is the same version, and pinned reads outlive what comes later."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest

from instar import testing
from instar.adapters.blobs_folder import FolderBlobs
from instar.core import journal, lineage
from instar.core.errors import BadInput, CheckFailed, Conflict, Damaged, NotFound, StoreBusy, WrongType
from instar.core.store import Store
from instar.data import column_profile, delta_log, publishing, tables, versions
from instar.data.checks import Check
from instar.data.tables import TableVersion

ONE = pl.DataFrame({"k": [1, 2, 3], "v": ["a", "b", None]})
TWO = pl.DataFrame({"k": [4, 5], "v": ["d", "e"]})


def write(store: Store, frame: pl.DataFrame, **options: Any) -> TableVersion:
    return tables.write_version(store, "shop", "orders", "silver", frame, **options)


def rows(store: Store, version: TableVersion) -> pl.DataFrame:
    return tables.scan(store, version).collect()


def place(store: Store) -> Path:
    return store.folder / "tables" / "shop" / "orders"


def delta_rows(store: Store) -> pl.DataFrame:
    """What any other reader of Delta tables sees."""
    return pl.DataFrame(deltalake.DeltaTable(str(place(store))).to_pyarrow_table())


class PowerFailure(Exception):
    """The process died here."""


@pytest.fixture
def dies_before_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def fail(frame: pl.DataFrame, **options: Any) -> None:
        with monkeypatch.context() as patch:

            def record(*args: Any) -> None:
                raise PowerFailure

            patch.setattr(publishing, "record", record)
            with pytest.raises(PowerFailure):
                write(store, frame, **options)

    return fail


def test_a_version_has_all_that_is_asked_of_it(store: Store) -> None:
    checks = [Check("k is positive", pl.col("k") > 0), Check("v is known", pl.col("v").is_not_null(), "warn")]
    version = write(store, ONE, key=["k"], execution="exec_1", inputs=("tver_0",), cause="user", checks=checks)
    assert version.ref == "orders@1"
    assert (version.rows, version.key, version.schema) == (3, ("k",), {"k": "int64", "v": "text"})
    assert [(check.name, check.passed) for check in version.checks] == [("k is positive", True), ("v is known", False)]
    assert tables.get(store, "shop", version.id) == version == tables.latest(store, "shop", "orders")
    assert rows(store, version).equals(ONE)
    assert column_profile.distinct_count(tables.read_profile(store, version).columns["k"]) == 3
    with store.database.read() as tx:
        [entry] = journal.entries(tx, "shop", kind="table version")
        assert (entry.subject, entry.body["content"]) == (version.id, version.content)
        assert entry.body["failed_checks"] == ["v is known"]
        assert [(edge.source, edge.target) for edge in lineage.up(tx, version.id)] == [
            ("exec_1", version.id),
            ("tver_0", "exec_1"),
        ]
        assert journal.verify(tx, "shop").consistent


def test_other_readers_of_delta_tables_see_the_same_rows(store: Store) -> None:
    at = pl.Series([datetime(2026, 1, 1, tzinfo=UTC)] * 3)
    frame = ONE.with_columns(at=at, local=at.dt.replace_time_zone(None), nested=pl.struct("k", "v"))
    write(store, frame)
    write(store, frame.head(1), mode="append")
    seen = delta_rows(store)
    assert seen.schema == frame.schema
    assert seen.sort("k").equals(pl.concat([frame, frame.head(1)]).sort("k"), null_equal=True)
    assert pl.scan_delta(str(place(store))).select(pl.len()).collect().item() == 4


def test_the_same_content_is_the_same_version(store: Store) -> None:
    first = write(store, ONE, key=["k"])
    again = write(store, ONE.reverse(), key=["k"], execution="exec_2")
    assert again == first
    assert tables.versions(store, "shop", "orders") == [first]
    assert not delta_log.exists(place(store), 1)
    other = write(store, ONE.with_columns(v=pl.lit("z")), key=["k"])
    assert (other.number, other.content != first.content) == (2, True)


def test_equal_content_in_another_store_has_an_equal_digest(store: Store, tmp_path: Path) -> None:
    other = testing.memory_store(tmp_path / "other")
    one = [write(where, ONE, key=["k"], execution=f"exec_{n}") for n, where in enumerate((store, other))]
    assert one[0].content == one[1].content
    assert one[0].id != one[1].id


def test_pinned_reads_survive_what_is_written_later(store: Store) -> None:
    first = write(store, ONE, key=["k"])
    second = write(store, TWO, key=["k"])
    third = write(store, ONE.head(1), mode="append", key=["k"])
    pinned = tables.scan(store, first)
    write(store, ONE.clear(), key=["k"])
    assert pinned.collect().equals(ONE)
    assert rows(store, second).equals(TWO)
    assert rows(store, third)["k"].to_list() == [4, 5, 1]
    assert rows(store, tables.get(store, "shop", "orders")).equals(ONE.clear())
    assert delta_rows(store).height == 0


def test_appends_merge_profile_and_keep_order(store: Store) -> None:
    for number in range(70):  # more than one base manifest
        version = write(store, pl.DataFrame({"k": [number], "v": [str(number % 3)]}), mode="append")
    assert version.rows == version.number == 70
    assert rows(store, version)["k"].to_list() == list(range(70))
    assert rows(store, tables.get(store, "shop", "orders@65"))["k"].to_list() == list(range(65))
    profile = tables.read_profile(store, version)
    assert column_profile.heavy_hitters(profile.columns["v"], 1) == [("0", 24)]
    manifest = versions.read_manifest(store, version.state)
    assert len(manifest.files) < 70
    assert manifest.base is not None
    assert delta_rows(store).height == 70


def test_the_log_is_summarised_now_and_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_log, "CHECKPOINT_EVERY", 4)
    for number in range(6):
        write(store, pl.DataFrame({"k": [number], "v": ["x"]}), mode="append", transaction=f"key {number}")
    assert (place(store) / "_delta_log" / "_last_checkpoint").exists()
    assert sorted(delta_rows(store)["k"]) == list(range(6))
    assert deltalake.DeltaTable(str(place(store))).transaction_version("key 3") == 3


def test_partitions_are_replaced_and_their_order_of_arrival_does_not_count(store: Store, tmp_path: Path) -> None:
    other = testing.memory_store(tmp_path / "other")
    for where, months in ((store, ("01", "02")), (other, ("02", "01"))):
        for month in months:
            write(where, ONE if month == "01" else TWO, mode="replace_partition", partition=month)
    one, two = (tables.get(where, "shop", "orders") for where in (store, other))
    assert one.content == two.content
    assert rows(store, one).equals(rows(other, two))
    replaced = write(store, TWO.head(1), mode="replace_partition", partition="01")
    assert rows(store, replaced)["k"].to_list() == [4, 4, 5]
    assert tables.read_profile(store, replaced).rows == 3
    assert delta_rows(store).height == 3


def test_columns_may_come_later_but_not_change_their_type(store: Store) -> None:
    write(store, ONE)
    version = write(store, pl.DataFrame({"k": [4], "new": [1.5]}), mode="append")
    assert version.schema == {"k": "int64", "v": "text", "new": "float64"}
    assert rows(store, version).to_dicts()[-1] == {"k": 4, "v": None, "new": 1.5}
    assert rows(store, version)["new"].to_list() == [None, None, None, 1.5]
    widened = write(store, pl.DataFrame({"k": pl.Series([5], dtype=pl.Int32), "new": [2]}), mode="append")
    assert rows(store, widened).to_dicts()[-1] == {"k": 5, "v": None, "new": 2.0}
    assert delta_rows(store).height == 5
    with pytest.raises(WrongType, match=r"column v.*\n*[\s\S]*found int64, asked for text"):
        write(store, pl.DataFrame({"v": [7]}), mode="append")
    assert len(tables.versions(store, "shop", "orders")) == 3


def test_a_broken_check_leaves_nothing_but_the_record_of_it(store: Store) -> None:
    first = write(store, ONE)
    with pytest.raises(CheckFailed, match="k is small"):
        write(store, TWO, checks=[Check("k is small", pl.col("k") < 4)])
    assert tables.versions(store, "shop", "orders") == [first]
    assert len(list(place(store).glob("*.parquet"))) == 1
    assert not delta_log.exists(place(store), 1)
    with store.database.read() as tx:
        [entry] = journal.entries(tx, "shop", kind="checks failed")
    assert entry.body["checks"][0]["failing_rows"] == 2


def test_types_without_a_stored_form_are_refused(store: Store) -> None:
    with pytest.raises(WrongType, match="column d"):
        write(store, pl.DataFrame({"d": pl.Series([1], dtype=pl.Duration("us"))}))
    assert tables.latest(store, "shop", "orders") is None
    frame = pl.DataFrame({"c": pl.Series(["x"], dtype=pl.Categorical), "u": pl.Series([1], dtype=pl.UInt32)})
    assert write(store, frame).schema == {"c": "text", "u": "int64"}


@pytest.mark.parametrize("again", [ONE, TWO])
def test_a_first_write_that_died_is_adopted_or_superseded(
    store: Store, dies_before_record: Callable[..., None], again: pl.DataFrame
) -> None:
    dies_before_record(ONE, key=["k"])
    assert tables.latest(store, "shop", "orders") is None
    version = write(store, again, key=["k"])
    assert tables.versions(store, "shop", "orders") == [version]
    assert version.number == 1
    assert version.delta_version == (0 if again is ONE else 1)  # adopted: the commit is the one that died
    assert rows(store, version).equals(again)
    assert delta_rows(store).equals(again)


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_later_write_that_died_is_adopted_or_superseded(
    store: Store, dies_before_record: Callable[..., None], mode: str
) -> None:
    first = write(store, ONE)
    dies_before_record(TWO, mode=mode)
    assert tables.latest(store, "shop", "orders") == first
    assert rows(store, first).equals(ONE)
    adopted = write(store, TWO, mode=mode)
    assert (adopted.number, adopted.delta_version) == (2, 1)
    expected = TWO if mode == "overwrite" else pl.concat([ONE, TWO])
    assert rows(store, adopted).equals(expected)
    assert sorted(delta_rows(store)["k"]) == sorted(expected["k"])

    dies_before_record(ONE.with_columns(k=pl.col("k") + 100), mode=mode)
    superseding = write(store, ONE.with_columns(k=pl.col("k") + 200), mode="overwrite")
    assert (superseding.number, superseding.delta_version) == (3, 3)
    assert delta_rows(store)["k"].to_list() == [201, 202, 203]
    assert [version.number for version in tables.versions(store, "shop", "orders")] == [1, 2, 3]


def test_bytes_that_were_torn_are_not_adopted(store: Store, dies_before_record: Callable[..., None]) -> None:
    dies_before_record(ONE)
    [torn] = place(store).glob("*.parquet")
    torn.write_bytes(b"torn")
    version = write(store, ONE)
    assert rows(store, version).equals(ONE)
    assert delta_rows(store).equals(ONE)


def test_what_another_program_wrote_is_journalled_as_foreign(store: Store) -> None:
    first = write(store, ONE, key=["k"])
    deltalake.write_deltalake(str(place(store)), TWO.to_arrow(), mode="append")
    foreign = tables.latest(store, "shop", "orders")
    assert foreign is not None
    assert (foreign.number, foreign.foreign, foreign.rows, foreign.zone) == (2, True, 5, "silver")
    assert sorted(rows(store, foreign)["k"]) == [1, 2, 3, 4, 5]
    assert rows(store, first).equals(ONE)
    with store.database.read() as tx:
        assert journal.entries(tx, "shop")[-1].body["foreign"] is True
    ours = write(store, TWO, mode="append")
    assert (ours.number, ours.rows) == (3, 7)
    assert delta_rows(store).height == 7


def test_a_write_builds_on_what_another_program_wrote_meanwhile(store: Store) -> None:
    write(store, ONE)
    deltalake.write_deltalake(str(place(store)), TWO.to_arrow(), mode="overwrite")
    version = write(store, ONE.head(1), mode="append")
    assert (version.number, version.rows) == (3, 3)
    assert delta_rows(store).height == 3


def test_a_commit_never_takes_a_number_that_is_taken(store: Store) -> None:
    write(store, ONE)
    with pytest.raises(Conflict, match="commit 0"):
        delta_log.commit(place(store), 0, [], transaction="x", own={}, at_ms=0, schema=None)
    assert not list((place(store) / "_delta_log").glob(".*"))


def test_going_back_copies_nothing(store: Store) -> None:
    first, second = write(store, ONE), write(store, TWO)
    back = tables.restore(store, first)
    assert (back.number, back.content, back.mode) == (3, first.content, "restore")
    assert rows(store, back).equals(ONE)
    assert delta_rows(store).equals(ONE)
    assert len(list(place(store).glob("*.parquet"))) == 2
    assert tables.restore(store, first) == back
    assert tables.at(store, "shop", "orders", second.event_at) == back


def test_references_are_resolved_or_named(store: Store) -> None:
    version = write(store, ONE)
    assert tables.get(store, "shop", "orders@1") == version
    wrongs = {"orders@2": "1 versions", "order": "tables orders", "tver_x": "no table version", "orders@x": "a number"}
    for wrong, words in wrongs.items():
        with pytest.raises(NotFound, match=words):
            tables.get(store, "shop", wrong)
    with pytest.raises(NotFound):
        tables.get(store, "elsewhere", version.id)


@pytest.mark.parametrize("name", ["../evil", ".hidden", "a/b", ""])
def test_names_cannot_lead_out_of_the_store(store: Store, name: str) -> None:
    with pytest.raises(BadInput, match="cannot name a table"):
        tables.write_version(store, "shop", name, "silver", ONE)


def test_unknown_words_are_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="no such mode"):
        write(store, ONE, mode="merge")
    with pytest.raises(BadInput, match="no such zone"):
        tables.write_version(store, "shop", "orders", "platinum", ONE)
    with pytest.raises(BadInput, match="go together"):
        write(store, ONE, mode="replace_partition")


def test_a_lost_file_is_named(store: Store) -> None:
    version = write(store, ONE)
    next(iter(place(store).glob("*.parquet"))).unlink()
    with pytest.raises(Damaged, match="orders@1"):
        tables.scan(store, version)


def test_a_damaged_commit_is_named(store: Store) -> None:
    write(store, ONE)
    (place(store) / "_delta_log" / f"{1:020d}.json").write_text("{not json")
    with pytest.raises(Damaged, match="commit 1"):
        write(store, TWO)


def test_a_second_writer_waits_and_then_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, ONE)
    monkeypatch.setattr(publishing, "LEASE_SECONDS", 0.05)
    with publishing.lease(place(store), "orders"), pytest.raises(StoreBusy, match="table orders"):
        write(store, TWO)


def test_two_processes_take_turns(tmp_path: Path) -> None:
    testing.memory_store(tmp_path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_shared, args=(str(tmp_path), who)) for who in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    store = replace(testing.memory_store(tmp_path), blobs=FolderBlobs(tmp_path / "blobs"))
    version = tables.get(store, "shop", "orders")
    assert (version.number, version.rows) == (10, 10)
    assert delta_rows(store).height == 10


def _append_shared(folder: str, who: int) -> None:
    store = replace(testing.memory_store(Path(folder)), blobs=FolderBlobs(Path(folder) / "blobs"))
    for number in range(5):
        write(store, pl.DataFrame({"k": [who * 100 + number], "v": ["x"]}), mode="append")


def test_the_manifest_has_the_form_that_it_always_had(store: Store) -> None:
    version = write(store, ONE, key=["k"])
    found = json.loads(store.blobs.get(version.manifest))
    [file] = found["files"]
    assert set(file) == {"path", "size", "digest", "rows", "content"}
    found["files"] = [{**file, "path": "part.parquet", "size": 0, "digest": "b3:"}]
    golden = Path(__file__).parent / "golden" / "manifest.json"
    if "INSTAR_RENEW_GOLDEN" in os.environ:
        golden.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(golden.read_text())
