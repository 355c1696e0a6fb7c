from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from instar.core.errors import BadInput
from instar.core.store import Store
from instar.operate.differences import Differences, compare, document, two_versions, wilson
from instar.serve.log import record
from instar.serve.log.calls import CallLog
from instar.serve.log.record import Answer, Tensor
from instar.serve.traffic.policy import Canary, Policy, Shadow
from instar.testing import NOON
from tests.serve.test_tensor_rows import kept
from tests.serve.writing import BEGIN, Segment

UNTIL = NOON + timedelta(hours=1)


def differences(log: Any, **more: Any) -> Differences:
    return compare(log, "delay", 1, 2, since=NOON, until=UNTIL, **more)


def test_pairs_are_counted_over_what_both_answered(log: Any) -> None:
    far = log.add(NOON, {1: 0.2, 2: 0.9})
    for _ in range(3):
        log.add(NOON, {1: 0.6, 2: 0.7})
    log.add(NOON, {1: 0.6, 2: None})  # the shadow failed
    log.add(NOON, {1: 0.6})  # and was not asked here
    log.add(NOON - timedelta(hours=1), {1: 0.1, 2: 0.9})  # before
    found = differences(log)
    one, two = found.versions
    assert (one.asked, one.failed, one.returned) == (6, 0, 6)
    assert (two.asked, two.failed, two.returned) == (5, 1, 0)
    assert one.latency_ms == (2.0, 2.0)
    assert math.isnan(two.latency_ms[0])
    assert (found.whole.pairs, found.whole.disagree) == (4, 1)
    assert found.whole.disagreement.mean == 0.25
    assert found.whole.disagreement.low < 0.25 < found.whole.disagreement.high
    assert found.whole.difference.mean == pytest.approx((0.7 + 3 * 0.1) / 4)
    assert found.apart == pytest.approx(0.25)
    assert (found.worst[0].prediction, found.worst[0].decisions) == (far, (0, 1))
    assert document(found)["versions"][1]["latency_ms"] == {"p50": None, "p99": None}


def test_parts_of_the_traffic_are_looked_at_by_their_inputs(log: Any) -> None:
    for n in range(40):
        hour = float(n % 2)
        log.add(NOON, {1: 0.2, 2: 0.9 if hour else 0.3}, inputs={"hour": hour, "carrier": "UA" if n % 4 else "DL"})
    found = differences(log)
    shares = {part.name: part.disagreement.mean for part in found.slices}
    assert shares["hour=1.0"] == 1.0
    assert shares["hour=0.0"] == 0.0
    assert found.slices[0].name == "hour=1.0"
    assert {part.name for part in differences(log, by=["carrier"]).slices} == {"carrier=DL", "carrier=UA"}
    with pytest.raises(BadInput, match="no such input"):
        differences(log, by=["colour"])


def test_what_cannot_be_compared_is_said(log: Any) -> None:
    assert "asked for nothing" in differences(log).note
    log.add(NOON, {1: 0.2})
    assert "version 2 was asked for nothing" in differences(log).note
    log.add(NOON, {2: 0.2})
    assert "answered by both" in differences(log).note
    log.add(NOON, {1: None, 2: None})
    assert differences(log).whole.pairs == 0
    with pytest.raises(BadInput):
        compare(log, "delay", 1, 1, since=NOON, until=UNTIL)


def test_a_share_has_an_interval() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(5, 100)
    assert (round(low, 4), round(high, 4)) == (0.0215, 0.1118)  # as other tables have it
    assert wilson(100, 100)[1] == 1.0


def test_who_stands_beside_the_champion_is_compared_with_it() -> None:
    policy = Policy("delay", "flights", 1, 1, shadows=(Shadow(3), Shadow(4)))
    assert two_versions(policy, []) == (1, 3)
    assert two_versions(Policy("delay", "flights", 1, 1, Canary(2, 5), (Shadow(3),)), []) == (1, 2)
    assert two_versions(policy, [4, 3]) == (4, 3)
    for named in ([1], [1, 2, 3]):
        with pytest.raises(BadInput):
            two_versions(policy, named)


def test_tensors_are_compared_by_what_they_say(store: Store) -> None:
    """Labels decide, of numbers the farthest counts; what one version has not said, or said with an error, is no pair."""
    segment = Segment(store.folder)
    tensors = (("x", "FP32", (-1, 2), False), ("site", "BYTES", (-1,), False))
    outputs = (("label", "INT64", (-1,)), ("share", "FP32", (-1, 2)), ("word", "BYTES", (-1,)))
    segment.put(record.encode_entry(record.Schema(0, (), tensors, outputs, True)))
    given = [kept("x", "FP32", [[1, 2]]), kept("site", "BYTES", ["eu"])]
    far = ""
    for number in range(24):
        other = said([1 if number == 3 else 0], [[0.75, 0.25]], ["far" if number == 4 else "near"])
        made = segment.tensor_call(
            [given[0], kept("site", "BYTES", ["eu" if number % 2 else "us"])],
            said([0], [[0.5, 0.0 if number == 5 else 0.5]], ["near"]),
            extra=[Answer(2, "shadow", [], [], None, None, other)],
        )
        far = f"{made}/0" if number == 3 else far
    segment.tensor_call(given, said([0], [[0, 0]], ["near"]), extra=[Answer(2, "shadow", [], [], None, "gone")])
    segment.tensor_call(given, said([0], [[0, 0]], ["near"]))
    segment.end()
    found = compare(CallLog(store), "delay", 3, 2, since=None, until=BEGIN + timedelta(days=1))
    one, two = found.versions
    assert [(version.asked, version.failed) for version in (one, two)] == [(26, 0), (25, 1)]
    assert (found.whole.pairs, found.whole.disagree, found.apart) == (24, 2, 0.25)
    assert "farthest" in found.note
    assert far in [one.prediction for one in found.worst]
    assert {worst.decisions for worst in found.worst} == {
        (None, None)
    }  # two outputs decide, so neither is the decision
    assert {part.name for part in found.slices} == {"site=eu", "site=us"}
    assert None not in document(found)["worst"][0]["scores"]
    with pytest.raises(BadInput, match="several values"):
        compare(CallLog(store), "delay", 3, 2, since=None, until=BEGIN + timedelta(days=1), by=["x"])


def said(label: list[int], share: list[list[float]], word: list[str]) -> list[Tensor]:
    return [kept("label", "INT64", label), kept("share", "FP32", share), kept("word", "BYTES", word)]


def test_one_label_alone_is_the_decision_and_needs_no_number(store: Store) -> None:
    segment = Segment(store.folder)
    tensors, outputs = (("x", "FP32", (-1, 1), False),), (("label", "INT64", (-1,)),)
    segment.put(record.encode_entry(record.Schema(0, (), tensors, outputs, True)))
    for label in (0, 1):
        answer = Answer(2, "shadow", [], [], None, None, [kept("label", "INT64", [label])])
        segment.tensor_call([kept("x", "FP32", [[1]])], [kept("label", "INT64", [0])], extra=[answer])
    segment.end()
    found = compare(CallLog(store), "delay", 3, 2, since=None, until=BEGIN + timedelta(days=1))
    assert (found.whole.pairs, found.whole.disagree) == (2, 1)
    assert [(one.decisions, one.scores) for one in found.worst] == [((0, 1), (None, None))]
    assert math.isnan(found.apart)
