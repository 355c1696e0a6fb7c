"""Monitors, rollout evidence, outcomes, traces and audits over the real prediction log, open and sealed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from instar.core import frames
from instar.core.ids import call_id
from instar.core.store import Store
from instar.operate import promotion
from instar.operate.audit import verify
from instar.operate.monitor import Reference, watch
from instar.operate.outcomes import Item, post
from instar.operate.pairing import evidence_of
from instar.operate.rollout import Rollout
from instar.operate.rollout_rule import Terms
from instar.operate.trace import backward, forward
from instar.plan.cost import Cost
from instar.plan.project import Monitor, OutcomeTerms, Problem, Split
from instar.release.registry import ModelVersion
from instar.serve.log import record, sealing, segments
from instar.serve.log.calls import CallLog, calls_folder
from instar.testing import NOON

DAY = timedelta(days=1)
BOOT = 7
PROBLEM = Problem(
    task="binary", target="late", metric="cost", cost=Cost(false_negative=3.0, false_positive=1.0, unit="EUR"),
    split=Split(decide=DAY, judge=DAY), outcome=OutcomeTerms(due=DAY), monitor=Monitor(min_rows=10),
)  # fmt: skip
TERMS = Terms(
    shadow=5, steps=(100,), bake=timedelta(hours=1), patience=14 * DAY, cool_down=7 * DAY, cost=0.05, errors=0.01,
    no_worse=0.02, min_rows=1, refit=True,
)  # fmt: skip
ROLLOUT = Rollout(
    "roll_1", "flights", "delay", 2, "b3:2", 1, "shadow", -1, NOON, TERMS, (), None, "test", NOON, None, "", None, None,
    True, NOON,
)  # fmt: skip


def write_segment(store: Store, calls: int = 60) -> list[str]:
    """A day of calls, as a gateway leaves them: version 1 answers, 2 is in shadow and fails on every tenth call."""
    name = segments.SegmentName("delay", BOOT, 0)
    path = name.path(calls_folder(store.folder))
    path.parent.mkdir(parents=True)
    entries: list[record.Entry] = [
        record.Head(record.FORMAT, "delay", BOOT, 0, _us(NOON)),
        record.Schema(0, (("hour", "FP64", False),)),
    ]
    names = []
    for place in range(calls):
        call, at = call_id(1_767_268_800_000 + place, BOOT, place), _us(NOON + DAY * place / calls)
        names.append(f"{call}/0")
        candidate = (
            record.Answer(2, "candidate", [], [], 0.5, "it broke")
            if place % 10 == 0
            else record.Answer(2, "candidate", [0.1], [0], 0.5)
        )
        answers = [record.Answer(1, "champion", [0.9], [1], 0.5), candidate]
        work = record.Work(None, [f"flight-{place}"], None, 0, 1, [[float(place % 24)]], 1, answers, 5, 50)
        entries.append(record.Call(call, at, at, "airline", 1, "champion", 1, None, 200, 2000, 100, None, work))
    dead = call_id(1_767_268_800_000 + calls, BOOT, calls)
    at = _us(NOON + timedelta(hours=1))
    entries.append(record.Call(dead, at, at, "airline", 1, "champion", 1, None, 503, 900, 0, "no worker", None))
    entries.append(record.End(_us(NOON + DAY)))
    written = [record.encode_frame(n, record.encode_entry(entry)) for n, entry in enumerate(entries)]
    path.write_bytes(segments.MAGIC + b"".join(frames.pack(frame) for frame in written))
    return names


def _us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


@pytest.fixture
def names(store: Store, make_version: Callable[..., ModelVersion]) -> list[str]:
    promotion.promote(store, "flights", "delay", make_version("one"), "the first", publish=lambda _store: None)
    return write_segment(store)


@pytest.mark.parametrize("sealed", [False, True])
def test_evidence_and_monitors_over_the_log(store: Store, names: list[str], sealed: bool) -> None:
    if sealed:
        assert sealing.seal(store, grace_seconds=0.0)
    log = CallLog(store)
    posted = post(store, "flights", [Item(name, n % 2) for n, name in enumerate(names)], log.seen)
    assert posted.count("recorded") == 60
    store.clock.advance_to(NOON + 2 * DAY)  # type: ignore[attr-defined]

    frame = log.read("delay", NOON, NOON + 2 * DAY)
    evidence = evidence_of(store, frame, ROLLOUT, PROBLEM.cost, NOON + 2 * DAY)
    assert (evidence.calls, evidence.errors, evidence.paired) == (60, 6, 54)
    # Paired: 30 late ones that the candidate misses at 3, and 24 punctual ones that the champion warns of at 1.
    assert (evidence.cost.n, evidence.cost.a, evidence.cost.b) == (54, 90.0, 24.0)

    found = {one.monitor: one for one in watch(store, "flights", "delay", PROBLEM, log, Reference(1)).measurements}
    assert found["outcomes_missing"].value == 0.0
    assert found["errors"].n == 0  # the window of traffic is the second day, which had none


def test_failed_calls_are_errors_of_the_service(store: Store, names: list[str]) -> None:
    store.clock.advance_to(NOON + DAY)  # type: ignore[attr-defined]
    looked = watch(store, "flights", "delay", PROBLEM, CallLog(store), Reference(1))
    (errors,) = [one for one in looked.measurements if one.monitor == "errors"]
    assert (errors.value, errors.n, errors.state) == (1 / 61, 61, "breach")


@pytest.mark.parametrize("sealed", [False, True])
def test_a_prediction_is_traced_from_the_log(store: Store, names: list[str], sealed: bool) -> None:
    if sealed:
        sealing.seal(store, grace_seconds=0.0)
    found = backward(store, CallLog(store), "flights", names[7])
    assert (found.facts["score"], found.facts["inputs"], found.facts["entity"]) == (0.9, {"hour": 7.0}, "flight-7")
    assert [hop.kind for hop in found.hops] == ["call", "model version", "features"]
    touched = forward(store, CallLog(store), "flights", "delay@1")
    (predictions,) = [hop for hop in touched.hops if hop.kind == "predictions"]
    assert predictions.facts["predictions"] == 60


def test_a_sealed_segment_that_was_edited_is_found(store: Store, names: list[str]) -> None:
    (sealed,) = sealing.seal(store, grace_seconds=0.0)
    segment_check = verify(store, "flights").checks[-1]
    assert (segment_check.holds, segment_check.looked_at) == (True, 1)
    (file,) = (store.folder / "tables" / "flights" / "delay__predictions").glob("day=*/*.parquet")
    file.write_bytes(file.read_bytes()[:-100] + b"x" * 100)
    (fault,) = verify(store, "flights").checks[-1].faults
    assert sealed.id in fault
