"""Whatever is done to sealed calls, verification finds it; what is done by the rules, it holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.core import ids
from instar.core.journal import journal_entry
from instar.core.store import Store
from instar.serve.log import catalogue, layout, merging, sealing, verification
from instar.serve.traffic import routing
from instar.testing import memory_store
from tests.serve.filled import BUNDLE, files, fill
from tests.serve.writing import BEGIN, Segment


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed")
    store = memory_store(folder)
    fill(store, 3)
    assert len(sealing.seal(store)) == 3
    assert verification.verify(store) == []
    store.database.close()
    return folder


@pytest.fixture
def sealed(template: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(template, tmp_path / "sealed")
    store = memory_store(tmp_path / "sealed")
    yield store
    store.database.close()


@pytest.fixture(scope="module")
def one_sealed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = memory_store(tmp_path_factory.mktemp("flipped"))
    fill(store)
    sealing.seal(store)
    return store


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_of_any_file_is_found(one_sealed: Store, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(one_sealed)))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :])
    try:
        (fault,) = verification.verify(one_sealed)
        assert path.stem in fault.segment
    finally:
        path.write_bytes(whole)
    assert verification.verify(one_sealed) == []


def unit(store: Store) -> catalogue.Unit:
    return catalogue.units(store)[1]


def place(store: Store, path: str) -> Path:
    return catalogue.tables_folder(store.folder, "flights") / path


def forge(store: Store, path: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Somebody rewrites a file, and its digest in the catalogue and even in the journal."""
    file = place(store, path)
    old = ids.digest_of_file(file)
    frame = change(pl.read_parquet(file))
    if "__frames" in path:
        layout.write_frames(file, (layout.Kept(*row) for row in frame.rows()))
    else:
        layout.write_rows(file, [frame])
    new = ids.digest_of_file(file)
    column = "rows_digest" if "__predictions" in path else "frames_digest"
    changed = sa.update(catalogue.call_unit).where(catalogue.call_unit.c[column] == old).values({column: new})
    store.database.write(lambda tx: tx.execute(changed))

    def rewrite(tx: Any) -> None:
        for row in tx.execute(sa.select(journal_entry)).all():
            if path in row.body.get("made", {}):
                body = {**row.body, "made": {**row.body["made"], path: new}}
                mine = (journal_entry.c.project == row.project, journal_entry.c.number == row.number)
                tx.execute(sa.update(journal_entry).where(*mine).values(body=body))

    store.database.write(rewrite)


def edit_a_score(store: Store) -> None:
    forge(store, unit(store).rows_path, lambda rows: rows.with_columns(pl.lit(0.99).alias("score")))


def edit_an_input(store: Store) -> None:
    change = pl.col("inputs").struct.with_fields(pl.lit(1.0).alias("distance"))
    forge(store, unit(store).rows_path, lambda rows: rows.with_columns(change))


def remove_a_row(store: Store) -> None:
    forge(store, unit(store).rows_path, lambda rows: rows.slice(1))


def add_a_row(store: Store) -> None:
    forge(store, unit(store).rows_path, lambda rows: pl.concat([rows, rows.head(1)]))


def swap_two_calls(store: Store) -> None:
    turned = pl.concat_list("call").list.first().reverse()
    forge(store, unit(store).rows_path, lambda rows: rows.with_columns(turned.alias("call")))


def remove_a_frame(store: Store) -> None:
    forge(store, unit(store).frames_path, lambda frames: frames.slice(1))


def remove_the_last_frame(store: Store) -> None:
    forge(store, unit(store).frames_path, lambda frames: frames.slice(0, frames.height - 1))


def reorder_frames(store: Store) -> None:
    forge(store, unit(store).frames_path, lambda frames: frames.reverse())


def edit_a_frame(store: Store) -> None:
    change = pl.when(pl.col("sequence") == 2).then(pl.lit(b"\x94\x02\xa1x\x00\x90")).otherwise(pl.col("metadata"))
    forge(store, unit(store).frames_path, lambda frames: frames.with_columns(change.alias("metadata")))


def remove_a_file(store: Store) -> None:
    place(store, unit(store).rows_path).unlink()


def remove_a_file_of_frames(store: Store) -> None:
    place(store, unit(store).frames_path).unlink()


def remove_it_from_the_delta_table(store: Store) -> None:
    from deltalake import DeltaTable

    table = DeltaTable(str(catalogue.table_folder(store.folder, "flights", "delay")))
    table.delete(f"segment = '{unit(store).segments[0]}'")


def add_to_the_delta_table(store: Store) -> None:
    table = str(catalogue.table_folder(store.folder, "flights", "delay"))
    pl.read_delta(table).head(1).write_delta(table, mode="append")


def statement(made: sa.Executable) -> Callable[[Store], None]:
    return lambda store: store.database.write(lambda tx: tx.execute(made))


def forget_the_segment(store: Store) -> None:
    name = unit(store).segments[0]
    statement(sa.delete(catalogue.segment).where(catalogue.segment.c.id == name))(store)


def forget_the_unit(store: Store) -> None:
    statement(sa.delete(catalogue.call_unit).where(catalogue.call_unit.c.id == unit(store).id))(store)


def forget_the_segment_and_its_unit(store: Store) -> None:
    remove_it_from_the_delta_table(store)
    forget_the_segment(store)
    forget_the_unit(store)


TOUCHES: list[Callable[[Store], None]] = [
    edit_a_score, edit_an_input, remove_a_row, add_a_row, swap_two_calls, remove_a_frame, remove_the_last_frame,
    reorder_frames, edit_a_frame, remove_a_file, remove_a_file_of_frames, remove_it_from_the_delta_table,
    add_to_the_delta_table, forget_the_segment, forget_the_unit, forget_the_segment_and_its_unit,
]  # fmt: skip


@pytest.mark.parametrize("touch", TOUCHES, ids=lambda touch: touch.__name__)
def test_whatever_is_touched_is_found(sealed: Store, touch: Callable[[Store], None]) -> None:
    touch(sealed)
    assert verification.verify(sealed) != []


@pytest.mark.parametrize("touch", TOUCHES[:9], ids=lambda touch: touch.__name__)
def test_and_so_it_is_where_files_were_merged(
    sealed: Store, touch: Callable[[Store], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting_parts(), "PART_ROWS", 4)
    assert len(merging.merge(sealed)) == 1  # of the two units whose rows have the same columns
    monkeypatch.setitem(globals(), "unit", lambda store: max(catalogue.units(store), key=lambda one: one.predictions))
    assert verification.verify(sealed) == []
    touch(sealed)
    assert verification.verify(sealed) != []


def rewriting_parts() -> Any:
    from instar.serve.log import rewriting

    return rewriting


COLUMNS = {
    "segment": ("calls", "predictions", "frames", "root", "chain", "first_call", "last_call", "boot", "number", "endpoint"),
    "call_unit": ("rows_path", "frames_path", "rows_digest", "frames_digest", "predictions", "first_call", "last_call",
                  "first_at", "last_at", "segments", "listed"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in COLUMNS.items() for c in columns])
def test_an_edited_line_of_the_catalogue_is_found(sealed: Store, table: str, column: str) -> None:
    owner = {"segment": catalogue.segment, "call_unit": catalogue.call_unit}[table]
    with sealed.database.read() as tx:
        row = tx.execute(sa.select(owner).order_by(owner.c.id)).first()
    assert row is not None
    old = row._mapping[column]
    new = {
        int: lambda: old + 1,
        str: lambda: old[:-1] + ("1" if old[-1] != "1" else "2"),
        list: lambda: [*old, "x"],
        dict: lambda: {"caller": ["eve"]},
    }
    value = new[type(old)]() if type(old) in new else old.replace(year=old.year - 1)
    statement(sa.update(owner).where(owner.c.id == row.id).values({column: value}))(sealed)
    assert verification.verify(sealed) != []


def test_a_segment_cannot_be_taken_out_of_its_chain_even_by_who_rewrites_the_journal(sealed: Store) -> None:
    forget_the_segment_and_its_unit(sealed)
    with sealed.database.read() as tx:
        subjects = [
            row.subject for row in tx.execute(sa.select(journal_entry).where(journal_entry.c.kind == "segment sealed"))
        ]
    statement(sa.delete(journal_entry).where(journal_entry.c.subject == subjects[1]))(sealed)
    found = verification.verify(sealed)
    assert [fault.segment for fault in found] == [subjects[2]]
    assert "does not follow the segment before it" in found[0].reason


def test_files_can_be_opened_in_part(sealed: Store) -> None:
    remove_a_file(sealed)
    seen: list[tuple[int, int]] = []
    assert verification.verify(sealed, sample=0.0) == []
    latest = max(one.last_at for one in catalogue.units(sealed))
    assert verification.verify(sealed, since=latest.replace(year=latest.year + 1)) == []
    assert verification.verify(sealed, progress=lambda done, total: seen.append((done, total))) != []
    assert seen[-1][0] == seen[-1][1] == sum(one.predictions for one in catalogue.units(sealed))


def test_a_store_of_the_format_before_is_read_verified_and_merged(store: Store) -> None:
    """One file with the frames in a column beside the rows, as stores before format 3 sealed."""
    fill(store, 3)
    sealing.seal(store)
    for one in catalogue.units(store):
        as_before(store, one)
    from instar.serve.log.calls import CallLog

    before = CallLog(store).read("delay")
    assert before.height == 26
    assert verification.verify(store) == []
    merging.merge(store)
    assert all(one.rows_path != one.frames_path for one in catalogue.units(store) if len(one.segments) > 1)
    assert verification.verify(store) == []
    assert CallLog(store).read("delay").equals(before)


def as_before(store: Store, one: catalogue.Unit) -> None:
    rows = pl.read_parquet(place(store, one.rows_path)).drop("erased")
    kept = [frame for _, found in layout.frames_by_segment(place(store, one.frames_path)) for frame in found]
    names = ("sequence", "metadata", "salt", "personal", "personal_digest")
    beside = [[{name: getattr(frame, name) for name in names} for frame in kept], *([[]] * (rows.height - 1))]
    dtype = pl.List(pl.Struct({name: pl.Int64 if name == "sequence" else pl.Binary for name in names}))
    whole = rows.with_columns(
        pl.Series("frames", beside, dtype=dtype), prediction=pl.lit("x"), endpoint=pl.lit("delay")
    )
    whole.write_parquet(place(store, one.rows_path))
    digest = ids.digest_of_file(place(store, one.rows_path))
    values = {"rows_digest": digest, "frames_digest": digest, "frames_path": one.rows_path}
    statement(sa.update(catalogue.call_unit).where(catalogue.call_unit.c.id == one.id).values(values))(store)

    def rewrite(tx: Any) -> None:
        for row in tx.execute(sa.select(journal_entry).where(journal_entry.c.subject == one.segments[0])).all():
            body = {name: value for name, value in row.body.items() if name not in ("made", "took", "gaps")}
            body |= {"files": {one.rows_path.split("/", 1)[1]: digest}, "delta_version": 0}
            mine = (journal_entry.c.project == row.project, journal_entry.c.number == row.number)
            tx.execute(sa.update(journal_entry).where(*mine).values(body=body))

    store.database.write(rewrite)


def test_a_restored_copy_of_the_tables_verifies(sealed: Store, tmp_path: Path) -> None:
    tables = sealed.folder / "tables"
    shutil.copytree(tables, tmp_path / "kept")
    remove_a_file(sealed)
    shutil.rmtree(tables)
    shutil.copytree(tmp_path / "kept", tables)
    assert verification.verify(sealed) == []


def test_an_open_segment_that_is_removed_is_missed(store: Store) -> None:
    """Gateways number their segments without holes; one without a call is passed over, and the journal says so."""
    routing.set_policy(store, "flights", "delay", champion=3, bundles={3: BUNDLE}, cause="test")
    made = [Segment(store.folder, number=number) for number in range(5)]
    for segment in made:
        if segment is not made[1]:
            segment.schema()
            segment.call(BEGIN)
        segment.end()
    made[3].path.unlink()
    missed = verification.verify(store)
    assert [(fault.segment, "never sealed" in fault.reason) for fault in missed] == []  # nothing is sealed yet
    sealing.seal(store)
    sealing.seal(store, grace_seconds=-1)
    assert [(fault.segment, "never sealed" in fault.reason) for fault in verification.verify(store)] == [
        (made[3].name.id, True)
    ]
