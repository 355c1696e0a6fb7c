from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from instar.core import journal
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.serve.log import (
    catalogue,
    erasing,
    holds,
    masking,
    merging,
    record,
    retention,
    sealing,
    segments,
    verification,
)
from instar.serve.log.calls import CallLog
from instar.serve.log.erasing import Selector
from instar.serve.log.record import Personal
from instar.serve.traffic import routes, routing
from tests.serve.filled import BUNDLE, HOUR, fill
from tests.serve.writing import BEGIN, Segment

PERSONAL = (("distance", "FP64", True), ("carrier", "BYTES", True), ("wind", "FP64", False))


@pytest.fixture
def with_people(store: Store) -> Store:
    """Calls of three people: two whose personal part stands apart, one named in the open part."""
    masking.mask_key_file(routes.serve_folder(store.folder))
    fill(store, 1)
    segment = Segment(store.folder, boot=78)
    segment.schema(PERSONAL)
    for n, who in enumerate(("ada", "bob", "ada")):
        mask = erasing.masked(store, "carrier", f"of {who}")
        part = Personal({"carrier": mask, "distance": [None]}, [who], f"key of {who}")
        segment.call(BEGIN + n * HOUR, (None, None, [float(n)]), personal=part)
    segment.end()
    open_ = Segment(store.folder, boot=79)
    open_.schema()
    open_.call(BEGIN, entities=["eve"])
    open_.call(BEGIN + HOUR, ([1.0], ["eve's"]), entities=["bob"])
    open_.end()
    sealing.seal(store)
    return store


def rows(store: Store) -> pl.DataFrame:
    return CallLog(store).read("delay")


def bytes_of(store: Store) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((store.folder / "tables").rglob("*.parquet")))


def frames_of(store: Store) -> str:
    from instar.serve.log import rewriting

    return repr(list(rewriting.frames_in_order(store, catalogue.units(store))))


def test_a_person_whose_part_stands_apart_is_gone_and_the_proof_holds(with_people: Store) -> None:
    store = with_people
    root = {one.id: one.root for one in catalogue.segments(store).values()}
    erasing.ask(store, "flights", Selector("entity", "ada"), "request 17")
    (done,) = erasing.carry_out(store)
    assert (done.state, done.predictions, done.selector) == ("done", 2, None)
    assert verification.verify(store) == []
    assert {one.id: one.root for one in catalogue.segments(store).values()} == root
    left = rows(store)
    assert "ada" not in left["entity"].to_list()
    assert left["entity"].to_list().count("bob") == 2
    gone = left.filter(pl.col("inputs").struct.field("wind").is_in([0.0, 2.0]))
    assert gone["inputs"].struct.field("carrier").to_list() == [None, None]
    assert gone["score"].to_list() == [0.5, 0.5]
    assert "key of ada" not in frames_of(store)
    assert "key of bob" in frames_of(store)


def test_a_person_in_the_open_part_is_gone_with_the_frame(with_people: Store) -> None:
    store = with_people
    erasing.ask(store, "flights", Selector("input", "eve's", "carrier"), "request 18")
    (done,) = erasing.carry_out(store)
    assert done.predictions == 1
    assert verification.verify(store) == []
    assert "eve's" not in frames_of(store)
    assert "eve's" not in repr(rows(store).to_dicts())
    assert "eve" in rows(store)["entity"].to_list()


def test_a_personal_text_is_found_by_its_mask(with_people: Store) -> None:
    erasing.ask(with_people, "flights", Selector("input", "of bob", "carrier"), "request 19")
    (done,) = erasing.carry_out(with_people)
    assert done.predictions == 1
    assert rows(with_people)["entity"].to_list().count("bob") == 1
    assert verification.verify(with_people) == []


def test_nothing_brings_them_back_after_the_grace(with_people: Store) -> None:
    store = with_people
    assert b"key of ada" in bytes_of(store) or True  # compressed: what counts is that no file of before is left
    before = {path for one in catalogue.units(store) for path in one.files}
    erasing.ask(store, "flights", Selector("key", "key of ada"), "request 20")
    erasing.carry_out(store)
    touched = before - {path for one in catalogue.units(store) for path in one.files}
    assert len(touched) == 2
    sealing.seal(store, grace_seconds=-1)
    folder = catalogue.tables_folder(store.folder, "flights")
    assert not any((folder / path).exists() for path in touched)
    assert not list((store.folder / "calls").rglob("*.seg"))
    assert rows(store).height == 13


def test_it_waits_for_open_segments_and_reaches_them(with_people: Store) -> None:
    store = with_people
    late = Segment(store.folder, boot=80)
    late.schema()
    late.call(BEGIN, entities=["ada"])
    lock = segments.BootLock(store.folder / "calls", 80)
    erasing.ask(store, "flights", Selector("entity", "ada"), "request 21")
    assert erasing.carry_out(store) == []
    assert rows(store)["entity"].to_list().count("ada") == 1
    late.end()
    lock.release()
    sealing.seal(store)
    (done,) = erasing.carry_out(store)
    assert done.predictions == 3
    assert "ada" not in rows(store)["entity"].to_list()


def test_a_log_that_had_it_decoded_forgets_it(with_people: Store) -> None:
    late = Segment(with_people.folder, boot=80)
    late.schema()
    late.call(BEGIN, entities=["ada"])
    log = CallLog(with_people)
    assert log.read("delay")["entity"].to_list().count("ada") == 3
    late.end()
    sealing.seal(with_people)
    erasing.ask(with_people, "flights", Selector("entity", "ada"), "request 22")
    erasing.carry_out(with_people)
    assert "ada" not in log.read("delay")["entity"].to_list()


def test_the_journal_and_the_record_never_hear_whom(with_people: Store) -> None:
    erasing.ask(with_people, "flights", Selector("entity", "ada"), "request 23")
    erasing.carry_out(with_people)
    with with_people.database.read() as tx:
        entries = journal.entries(tx, "flights")
    kinds = [one.kind for one in entries if "eras" in one.kind]
    assert kinds == ["erasure asked", "calls erased", "erasure done"]
    # As a value: three letters also come by chance in a digest.
    assert not [one for one in entries if "'ada'" in repr(one.body)]
    assert erasing.erasures(with_people, "flights")[0].selector is None


def test_merged_files_are_erased_from_and_erased_files_are_merged(with_people: Store) -> None:
    store = with_people
    merging.merge(store)
    erasing.ask(store, "flights", Selector("entity", "ada"), "request 24")
    erasing.carry_out(store)
    merging.merge(store)
    assert verification.verify(store) == []
    assert "ada" not in rows(store)["entity"].to_list()


def test_a_reason_and_a_value_are_asked_for(with_people: Store) -> None:
    for selector, why in ((Selector("entity", "ada"), " "), (Selector("entity", ""), "request")):
        with pytest.raises(BadInput):
            erasing.ask(with_people, "flights", selector, why)


def test_a_hold_stops_erasure_and_age_until_it_is_released(with_people: Store) -> None:
    store = with_people
    hold = holds.place(store, "flights", "delay", "case 4", until=BEGIN + timedelta(days=9))
    with pytest.raises(Conflict) as refused:
        erasing.ask(store, "flights", Selector("entity", "ada"), "request 25")
    assert hold.id in str(refused.value)
    old = {"delay": retention.Terms(keep=timedelta(days=1))}
    assert retention.expire(store, "flights", old) == []
    with pytest.raises(NotFound):
        holds.release(store, "flights", "hold_1", "done")
    holds.release(store, "flights", hold.id, "case 4 is closed")
    assert holds.standing(store, "flights") == []
    assert retention.expire(store, "flights", old) != []


def test_what_is_kept_no_longer_goes_and_says_by_which_policy(with_people: Store, tmp_path: Path) -> None:
    store = with_people
    terms = {"delay": retention.Terms(keep=timedelta(days=100_000), inputs=timedelta(days=1))}
    planned = retention.expire(store, "flights", terms, dry_run=True)
    assert rows(store)["inputs"].struct.field("carrier").null_count() < 10
    assert [one.unit.id for one in retention.expire(store, "flights", terms)] == [one.unit.id for one in planned]
    assert retention.expire(store, "flights", terms) == []
    assert verification.verify(store) == []
    left = rows(store)
    assert left.height == 13
    assert left.schema["inputs"] == pl.Struct([])
    assert left["score"].null_count() == 1  # of the failed call
    assert "eve's" not in frames_of(store)
    terms = {"delay": retention.Terms(keep=timedelta(days=1))}
    retention.expire(store, "flights", terms)
    assert verification.verify(store) == []
    assert rows(store).is_empty()
    with store.database.read() as tx:
        policies = {
            (one.kind, one.body["policy"])
            for one in journal.entries(tx, "flights")
            if "policy" in one.body and "dropped" in one.kind
        }
    assert policies == {("inputs dropped", "inputs = 1d"), ("calls dropped", "keep = 1d")}


@pytest.mark.parametrize("first", [True, False])
def test_failed_calls_beside_an_erased_one_of_a_tensor_model_are_proven_still(store: Store, first: bool) -> None:
    """A failed call alone has no outputs; beside one that was answered it had nulls."""
    routing.set_policy(store, "flights", "delay", champion=3, bundles={3: BUNDLE}, cause="test")
    segment = Segment(store.folder)
    schema = record.Schema(0, (), (("x", "FP32", (-1, 1), False),), (("score", "FP32", (-1, 1)),), True)
    segment.put(record.encode_entry(schema))
    if first:
        segment.failed()
    one = [record.Tensor(name, "FP32", (1, 1), bytes(4)) for name in ("x", "score")]
    segment.tensor_call(one[:1], one[1:], entities=["ada"])
    segment.failed(BEGIN + HOUR)
    segment.end()
    sealing.seal(store)
    erasing.ask(store, "flights", Selector("entity", "ada"), "request 24")
    assert [done.predictions for done in erasing.carry_out(store)] == [1]
    assert verification.verify(store) == []
