from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from instar.core.errors import MalformedRequest, NotFound
from instar.core.store import Store
from instar.serve.log import decoding, prediction_rows
from instar.serve.log.calls import CallLog
from instar.serve.log.record import Answer, Personal
from tests.serve.writing import BEGIN, Segment

HOUR = timedelta(hours=1)


@pytest.fixture
def log(store: Store) -> CallLog:
    return CallLog(store)


def test_an_endpoint_that_was_never_called_has_an_empty_log(log: CallLog) -> None:
    frame = log.read("delay")
    assert frame.height == 0
    assert frame.columns == list(prediction_rows.SCHEMA)
    assert log.endpoints() == []


def test_a_call_becomes_a_row_for_each_prediction(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    segment.schema()
    call = segment.call(BEGIN, ([1400.0, 200.0], ["UA", None]), rows=2, entities=["E1", "E2"])
    frame = log.read("delay")
    assert frame["prediction"].to_list() == [f"{call}/0", f"{call}/1"]
    assert frame["at"].to_list() == [BEGIN, BEGIN]
    assert frame["entity"].to_list() == ["E1", "E2"]
    assert frame["inputs"].to_list() == [{"distance": 1400.0, "carrier": "UA"}, {"distance": 200.0, "carrier": None}]
    first = frame.row(0, named=True)
    facts = {
        "caller": "ada",
        "endpoint": "delay",
        "policy": 7,
        "reason": "champion",
        "key": "key",
        "version": 3,
        "status": 200,
    }
    assert {name: first[name] for name in facts} == facts
    assert (first["score"], first["decision"], first["threshold"], first["latency_us"]) == (0.5, 1, 0.3, 420)
    assert (first["table_version"], first["request_id"], first["error"]) == ("tver_1", "mine", None)
    said = {
        "version": 3,
        "role": "champion",
        "score": 0.5,
        "decision": 1,
        "threshold": 0.3,
        "error": None,
        "outputs": None,
    }
    assert first["answers"] == [said]


def test_answers_of_shadows_join_their_call_whenever_they_come(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    segment.schema()
    one = segment.call(BEGIN, laters=2)
    two = segment.call(BEGIN + HOUR, laters=1)
    assert log.read("delay")["answers"].list.len().to_list() == [1, 1]
    segment.later(two, Answer(1, "rule", [0.1], [0], 0.3))
    assert log.read("delay")["answers"].list.len().to_list() == [1, 2]
    segment.later(one, Answer(1, "rule", [0.2], [0], 0.3), Answer(2, "frozen", [], [], 0.3, "ValueError: no"))
    segment.call(BEGIN + 2 * HOUR)
    segment.later(one, Answer(4, "monthly", [0.9], [1], 0.3))
    frame = log.read("delay")
    assert frame["answers"].list.len().to_list() == [4, 2, 1]
    assert [(a["version"], a["role"], a["score"], a["error"]) for a in frame["answers"][0]] == [
        (3, "champion", 0.5, None),
        (1, "rule", 0.2, None),
        (2, "frozen", None, "ValueError: no"),
        (4, "monthly", 0.9, None),
    ]
    assert CallLog(store).read("delay").equals(frame)


def test_a_shadow_that_never_answers_holds_nothing_up_for_ever(
    store: Store, log: CallLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "INCOMPLETE_US", 2000)
    segment = Segment(store.folder)
    segment.schema()
    segment.call(BEGIN, laters=1)
    for n in range(9):
        segment.call(BEGIN + n * HOUR)
    assert log.read("delay").height == 10
    assert sum(chunk.frame.height for reader in log._readers.values() for chunk in reader.chunks) == 10


def test_a_failed_call_is_one_row_without_a_decision(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    alone = segment.failed(BEGIN, 400, None)
    assert log.read("delay")["call"].to_list() == [alone]
    segment.schema()
    segment.call(BEGIN + HOUR)
    failed = segment.failed(BEGIN + 2 * HOUR)
    frame = log.read("delay")
    assert frame["status"].to_list() == [400, 200, 503]
    last = frame.row(2, named=True)
    assert (last["call"], last["row"], last["version"], last["reason"]) == (failed, 0, 3, "canary")
    assert (last["score"], last["decision"], last["answers"]) == (None, None, [])
    assert last["error"] == "Unavailable: gone"
    assert frame.filter(pl.col("decision").is_not_null()).height == 1


def test_reading_is_from_since_until_before_until(store: Store, log: CallLog) -> None:
    for number in range(2):
        segment = Segment(store.folder, number=number)
        segment.schema()
        for n in (4, 0, 2):
            segment.call(BEGIN + (n + number) * HOUR)
    hours = [int((at - BEGIN) / HOUR) for at in log.read("delay")["at"]]
    assert hours == [0, 1, 2, 3, 4, 5]
    some = log.read("delay", BEGIN + HOUR, BEGIN + 4 * HOUR)["at"]
    assert [int((at - BEGIN) / HOUR) for at in some] == [1, 2, 3]
    assert log.read("delay", BEGIN + 9 * HOUR).is_empty()
    assert log.read("delay", None, BEGIN).is_empty()
    assert log.read("other").is_empty()


def test_signatures_that_differ_are_joined(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    segment.schema()
    segment.call(BEGIN)
    segment.schema((("carrier", "BYTES", False), ("wind", "INT64", False), ("distance", "INT64", False)), 1)
    segment.call(BEGIN + HOUR, (["DL"], [7], [3]), signature=1)
    segment.call(BEGIN + 2 * HOUR)
    assert log.read("delay")["inputs"].to_list() == [
        {"distance": 1400.0, "carrier": "UA", "wind": None},
        {"distance": 3.0, "carrier": "DL", "wind": 7},
        {"distance": 1400.0, "carrier": "UA", "wind": None},
    ]


def test_the_personal_part_comes_masked_and_goes_when_erased(store: Store, log: CallLog) -> None:
    columns = (("distance", "FP64", True), ("carrier", "BYTES", True))
    segment = Segment(store.folder)
    segment.schema(columns)
    segment.call(
        BEGIN, (None, None), personal=Personal({"carrier": ["masked:1"], "distance": [None]}, ["E1"], "my key")
    )
    segment.call(BEGIN + HOUR, (None, None))
    first, erased = log.read("delay").iter_rows(named=True)
    assert first["inputs"] == {"distance": None, "carrier": "masked:1"}
    assert (first["entity"], first["key"]) == ("E1", "my key")
    assert erased["inputs"] == {"distance": None, "carrier": None}


def test_a_torn_tail_is_not_read_and_what_follows_is(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    segment.schema()
    segment.call(BEGIN)
    whole = segment.path.read_bytes()
    segment.call(BEGIN + HOUR)
    longer = segment.path.read_bytes()
    segment.path.write_bytes(longer[: len(whole) + 20])
    assert log.read("delay").height == 1
    segment.path.write_bytes(longer)
    assert log.read("delay").height == 2


def test_a_prediction_is_found_by_its_id(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    segment.schema()
    one = segment.call(BEGIN, ([1.0, 2.0], ["UA", "DL"]), rows=2)
    other = Segment(store.folder, boot=78)
    other.schema()
    two = other.call(BEGIN)
    assert log.find(f"{one}/1")["inputs"]["carrier"] == "DL"
    assert log.find(two)["prediction"] == f"{two}/0"
    unknown = one[:-1] + ("A" if one[-1] != "A" else "B")
    for wrong in (f"{one}/2", unknown, f"{unknown}/0"):
        with pytest.raises(NotFound):
            log.find(wrong)
    with pytest.raises(MalformedRequest):
        log.find("call_short/0")


def test_a_call_is_seen_from_when_it_is_in_the_log(store: Store, log: CallLog) -> None:
    segment = Segment(store.folder)
    segment.schema()
    one = segment.call(BEGIN)
    assert log.seen(one)
    assert log.seen(f"{one}/0")
    assert not log.seen(one[:8] + "Z" + one[9:])
    assert not log.seen("nonsense")
    two = segment.call(BEGIN)
    assert log.seen(two)
