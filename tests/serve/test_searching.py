from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.core.errors import BadInput, MalformedRequest, NotFound
from instar.core.store import Store
from instar.serve.log import erasing, layout, masking, merging, sealing
from instar.serve.log.calls import CallLog
from instar.serve.log.searching import Condition, Found, Query, condition, search
from instar.serve.traffic import routes
from instar.testing import memory_store
from tests.serve.filled import HOUR, fill
from tests.serve.writing import BEGIN, Segment


def ask(store: Store, **asked: object) -> Found:
    return search(store, CallLog(store), "flights", Query(**asked))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Calls in merged files, in a file of their own and in an open segment, which a search cannot tell apart."""
    store = memory_store(tmp_path_factory.mktemp("searched"))
    fill(store, 3)
    sealing.seal(store, grace_seconds=-1)
    merging.merge(store)
    later = Segment(store.folder, boot=78, number=5)
    later.schema()
    for n in range(4):
        later.call(BEGIN + n * HOUR, ([100.0 * n], ["DL"]), entities=[f"E{n}"])
    later.end()
    sealing.seal(store, grace_seconds=-1)
    open_ = Segment(store.folder, boot=79, number=9)
    open_.schema()
    open_.call(BEGIN, ([5000.0], ["AA"]), entities=["E9"])
    open_.failed(BEGIN, 504)
    lock = layout_lock(store)
    yield store
    lock.release()
    store.database.close()


def layout_lock(store: Store) -> object:
    from instar.serve.log.segments import BootLock

    return BootLock(store.folder / "calls", 79)


def test_each_filter_leaves_what_it_says(mixed: Store) -> None:
    everything = CallLog(mixed).read("delay")
    assert len(ask(mixed, limit=1000).rows) == everything.height
    assert [row["entity"] for row in ask(mixed, entity="E9").rows] == ["E9"]
    assert {row["inputs"]["carrier"] for row in ask(mixed, inputs=(condition("carrier=DL"),)).rows} == {"DL"}
    far = ask(mixed, inputs=(condition("distance > 100"), condition("distance<=300"))).rows
    assert sorted(row["inputs"]["distance"] for row in far) == [200.0, 300.0]
    assert [row["status"] for row in ask(mixed, status=504).rows] == [504]
    assert {row["reason"] for row in ask(mixed, reason="canary").rows} == {"canary"}
    assert ask(mixed, caller="eve").rows == []
    assert ask(mixed, version=9).rows == []
    assert ask(mixed, score=(condition(">0.5", "score"),)).rows == []
    assert (
        len(ask(mixed, score=(condition(">=0.5", "score"),), limit=1000).rows) == everything["score"].drop_nulls().len()
    )
    window = ask(mixed, since=BEGIN + 20 * HOUR, until=BEGIN + 21 * HOUR, limit=1000).rows
    assert {row["at"] for row in window} == {BEGIN + 20 * HOUR}
    assert ask(mixed, request_id="mine", key="key", limit=1000).rows != []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 12), carrier=st.sampled_from([None, "UA", "DL", "AA"]), parts=st.integers(1, 5))
def test_pages_are_newest_first_and_hold_each_prediction_once(
    mixed: Store, limit: int, carrier: str | None, parts: int
) -> None:
    inputs = (condition(f"carrier={carrier}"),) if carrier else ()
    log = CallLog(mixed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layout, "ROWS_IN_GROUP", parts)
        seen: list[str] = []
        cursor = None
        while True:
            found = search(mixed, log, "flights", Query(inputs=inputs, limit=limit, cursor=cursor))
            seen += [row["prediction"] for row in found.rows]
            cursor = found.cursor
            if cursor is None:
                break
            assert len(found.rows) == limit
    rows = log.read("delay").to_dicts()
    if carrier:
        rows = [row for row in rows if (row["inputs"] or {}).get("carrier") == carrier]
    expected = sorted(((row["call"], row["row"]) for row in rows), reverse=True)
    assert seen == [f"{call}/{row}" for call, row in expected]


def test_by_id_one_file_is_opened_of_any_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 5)
    other = Segment(store.folder, boot=99)
    other.schema()
    wanted = other.call(BEGIN)
    other.end()
    sealing.seal(store, grace_seconds=-1)
    log = CallLog(store)
    opened = []
    real = CallLog._rows
    monkeypatch.setattr(CallLog, "_rows", lambda self, unit, which: opened.append(unit.id) or real(self, unit, which))
    assert log.find(wanted)["call"] == wanted
    assert len(opened) <= 2  # of the six that there are, those whose ids reach over it


def test_a_search_never_opens_proofs(mixed: Store) -> None:
    proofs = [path for path in (mixed.folder / "tables").rglob("*.parquet") if "__frames" in str(path)]
    hidden = [path.rename(path.with_suffix(".away")) for path in proofs]
    try:
        assert ask(mixed, caller="ada", limit=1000).rows
        assert CallLog(mixed).read("delay").height
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".parquet"))


def test_files_that_cannot_hold_it_are_not_opened(mixed: Store) -> None:
    assert ask(mixed, caller="eve").files == 0
    assert ask(mixed, since=BEGIN + timedelta(days=400)).files == 0
    assert ask(mixed, caller="ada", limit=1).files <= 3


@pytest.mark.parametrize("text", ["", "carrier", "=UA", "carrier~UA", ">0.5"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        condition(text)


def test_a_condition_is_read_as_people_write_it() -> None:
    assert condition("carrier=UA") == Condition("carrier", "=", "UA")
    assert condition(" a.b >= 1e3 ") == Condition("a.b", ">=", "1e3")
    assert condition("name=a=b") == Condition("name", "=", "a=b")
    assert condition(">0.5", "score") == Condition("score", ">", "0.5")


def test_mistakes_in_a_question_are_named(mixed: Store) -> None:
    with pytest.raises(BadInput, match="carrier"):
        ask(mixed, inputs=(condition("carier=UA"),))
    with pytest.raises(BadInput, match="a number"):
        ask(mixed, inputs=(condition("distance=far"),))
    for limit in (0, 1001):
        with pytest.raises(BadInput):
            ask(mixed, limit=limit)
    with pytest.raises(NotFound):
        ask(mixed, endpoint="other")
    with pytest.raises(MalformedRequest):
        ask(mixed, cursor="nonsense")


def test_other_projects_see_nothing(mixed: Store) -> None:
    assert search(mixed, CallLog(mixed), "other", Query()).rows == []


def test_a_personal_text_is_searched_by_its_mask_and_an_erased_row_says_when_and_why(store: Store) -> None:
    masking.mask_key_file(routes.serve_folder(store.folder))
    fill(store, 1)
    segment = Segment(store.folder, boot=78)
    segment.schema((("distance", "FP64", False), ("carrier", "BYTES", True)))
    from instar.serve.log.record import Personal

    part = Personal({"carrier": erasing.masked(store, "carrier", "of ada")}, ["ada"], None)
    call = segment.call(BEGIN, ([1.0], None), personal=part)
    segment.end()
    sealing.seal(store, grace_seconds=-1)
    (row,) = ask(store, inputs=(condition("carrier=of ada"),)).rows
    assert (row["call"], row["erased"]) == (call, None)
    erasing.ask(store, "flights", erasing.Selector("entity", "ada"), "request 17")
    erasing.carry_out(store)
    assert ask(store, inputs=(condition("carrier=of ada"),)).rows == []
    (row,) = [row for row in ask(store, limit=1000).rows if row["call"] == call]
    assert row["erased"]["why"] == "request 17"
