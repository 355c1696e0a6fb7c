"""Nobody approves what did not pass, nobody approves alone where four eyes are asked for, and everything ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from instar.core import journal, lineage
from instar.core.clock import EventClock
from instar.core.errors import BadInput, Blocked, Conflict, GateFailed, NotAllowed, NotFound
from instar.core.identity import SYSTEM, Actor, Permission
from instar.core.store import Store
from instar.evaluate.evaluation import Evaluation
from instar.release import approval, bars, registry, waivers
from tests.release.conftest import Judge


def registered(store: Store, found: Evaluation) -> registry.ModelVersion:
    return registry.register(store, "flights", "delay", bundle=found.bundle, origin="recipe", evaluation=found.id)


def acting(store: Store, name: str, kind: str = "user") -> Store:
    return replace(store, actor=Actor(name, kind))


def test_automatic_approves_what_passed(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    given = approval.decide(store, version, found, "automatic", cause="actn_1")
    assert (given.state, given.approved_by, given.proposed_by) == ("approved", "policy automatic", "ada")
    assert (given.bundle, given.evidence, given.contract) == (found.bundle, found.report_json, "b3:contract")
    assert registry.find(store, "flights", "delay@1").state == "approved"
    assert approval.require_approved(store, version) == given
    with store.database.read() as tx:
        entry = journal.entries(tx, "flights", kind="approval")[0]
        above = {edge.source for edge in lineage.up(tx, given.id)}
    assert (entry.subject, entry.body["evidence"], entry.body["cause"]) == (given.id, found.report_json, "actn_1")
    assert above >= {version.id, found.id, found.bundle}


@pytest.mark.parametrize(("p99_ms", "word"), [(50.0, "too slow"), (None, "no load probe ran")])
@pytest.mark.parametrize("policy", ["automatic", "four-eyes"])
def test_failed_and_undecided_are_not_approved(
    store: Store, judge: Judge, p99_ms: float | None, word: str, policy: approval.ApprovalPolicy
) -> None:
    found = judge(p99_ms=p99_ms)
    version = registered(store, found)
    with pytest.raises(GateFailed, match=word):
        approval.decide(acting(store, "bob"), version, found, policy)
    assert approval.approvals(store, "flights") == []
    assert registry.find(store, "flights", "delay@1").state == "registered"
    with pytest.raises(Blocked, match="instar approve delay@1"):
        approval.require_approved(store, version)


def test_four_eyes_are_blocked_while_there_is_one_identity(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    for _ in range(2):  # asking again asks nothing new
        with pytest.raises(Blocked, match="ada is the one who proposed it"):
            approval.decide(store, version, found, "four-eyes")
    asked = approval.approvals(store, "flights", version=version.id)
    assert [(one.state, one.approved_by) for one in asked] == [("asked", None)]
    assert approval.holding(store, version) is None
    assert registry.find(store, "flights", "delay@1").state == "registered"
    with store.database.read() as tx:
        assert len(journal.entries(tx, "flights", kind="approval asked")) == 1
        assert journal.entries(tx, "flights", kind="approval") == []


def test_a_second_person_unblocks(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    with pytest.raises(Blocked):
        approval.decide(store, version, found, "four-eyes")
    given = approval.decide(acting(store, "bob"), version, found, "four-eyes", note="read the report")
    assert (given.approved_by, given.proposed_by, given.reason) == ("bob", "ada", "read the report")
    assert approval.require_approved(store, version) == given


def test_a_controller_is_nobodys_second_pair_of_eyes(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    with pytest.raises(Blocked, match="controller"):
        approval.decide(replace(store, actor=SYSTEM), version, found, "four-eyes")


def test_what_a_controller_proposed_one_person_approves(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(replace(store, actor=SYSTEM), found)
    assert approval.decide(store, version, found, "four-eyes").approved_by == "ada"


def test_asking_again_changes_nothing(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    first = approval.decide(store, version, found, "automatic")
    assert approval.decide(store, version, found, "automatic") == first
    assert approval.approvals(store, "flights") == [first]


def test_evidence_on_another_bundle_is_refused(store: Store, judge: Judge) -> None:
    version = registered(store, judge())
    with pytest.raises(Conflict, match="another bundle"):
        approval.decide(store, version, judge(noise=0.1), "automatic")


def test_who_may_not_approve_does_not(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    reader = replace(store, actor=Actor("eve", permissions=frozenset({Permission.READ, Permission.RELEASE})))
    with pytest.raises(NotAllowed, match="eve"):
        approval.decide(reader, version, found, "automatic")


def test_an_approval_ends_in_event_time_and_can_be_given_anew(store: Store, judge: Judge) -> None:
    assert isinstance(store.clock, EventClock)
    found = judge()
    version = registered(store, found)
    end = store.clock.event() + timedelta(days=30)
    first = approval.decide(store, version, found, "automatic", expires_at=end)
    assert first.holds(end - timedelta(microseconds=1))
    assert not first.holds(end)
    store.clock.advance_to(end)
    with pytest.raises(Blocked):
        approval.require_approved(store, version)
    second = approval.decide(store, version, found, "automatic")
    assert second.id != first.id
    assert approval.holding(store, version) == second


def test_a_withdrawn_approval_allows_nothing(store: Store, judge: Judge) -> None:
    found = judge()
    version = registered(store, found)
    given = approval.decide(store, version, found, "automatic")
    with pytest.raises(BadInput, match="reason"):
        approval.withdraw(store, version, "  ")
    (taken,) = approval.withdraw(store, registry.find(store, version.project, version.id), "the source was wrong")
    assert (taken.id, taken.state) == (given.id, "withdrawn")
    assert approval.holding(store, version) is None
    again = registry.find(store, version.project, version.id)
    assert again.state == "registered"
    with pytest.raises(Conflict, match="no approval"):
        approval.withdraw(store, again, "once more")
    with store.database.read() as tx:
        (entry,) = journal.entries(tx, version.project, kind="approval withdrawn")
    assert (entry.subject, entry.body["reason"]) == (given.id, "the source was wrong")
    assert approval.decide(store, again, found, "automatic").id != given.id


def test_a_waiver_lets_one_gate_pass_until_it_ends(store: Store, judge: Judge) -> None:
    assert isinstance(store.clock, EventClock)
    found = judge(p99_ms=50.0)
    version = registered(store, found)
    end = store.clock.event() + timedelta(days=7)
    given = waivers.waive(store, found, "latency", "a quiet endpoint", end)
    assert given.given_by == "ada"
    assert waivers.effective_verdict(store, found, store.clock.event()).state == "passed"
    assert waivers.effective_verdict(store, found, end).state == "failed"
    assert approval.decide(store, version, found, "automatic").state == "approved"
    with store.database.read() as tx:
        assert journal.entries(tx, "flights", kind="waiver")[0].body["reason"] == "a quiet endpoint"


def test_a_waiver_needs_a_gate_that_stands_a_reason_and_an_end(store: Store, judge: Judge) -> None:
    found, end = judge(p99_ms=50.0), store.clock.event() + timedelta(days=7)
    with pytest.raises(NotFound, match="cost"):
        waivers.waive(store, found, "cost", "it passed anyway", end)
    with pytest.raises(BadInput):
        waivers.waive(store, found, "latency", " ", end)
    with pytest.raises(BadInput):
        waivers.waive(store, found, "latency", "too late", store.clock.event())


def test_a_barred_version_is_not_approved_until_the_cool_down_ends(store: Store, judge: Judge) -> None:
    assert isinstance(store.clock, EventClock)
    found = judge()
    version = registered(store, found)
    end = store.clock.event() + timedelta(days=7)
    bars.bar(store, version, end, "rolled back", "roll_1")
    with pytest.raises(Blocked, match="rolled back"):
        approval.decide(store, version, found, "automatic")
    store.clock.advance_to(end)
    assert approval.decide(store, version, found, "automatic").state == "approved"


def test_a_bar_holds_for_the_same_fit_made_again_and_never_shrinks(store: Store, judge: Judge) -> None:
    version, other = registered(store, judge()), registered(store, judge(noise=0.1))
    again = registered(store, judge(run="run_2"))
    assert again.bundle != version.bundle
    end = store.clock.event() + timedelta(days=7)
    bars.bar(store, version, end, "rolled back", "roll_1")
    bars.bar(store, version, end - timedelta(days=3), "again", "roll_2")
    held = bars.barred(store, again)
    assert held is not None
    assert (held.until, held.cause) == (end, "roll_1")
    assert bars.barred(store, other) is None
    assert bars.barred(store, again, end) is None
