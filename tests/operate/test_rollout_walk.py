from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from instar.core import journal, lineage
from instar.core.errors import Blocked, Conflict, NotFound
from instar.core.store import Store
from instar.evaluate.compare import PairedSums
from instar.operate import promotion, rollout, rollout_walk
from instar.operate.rollout import Rollout
from instar.operate.rollout_rule import Evidence, Move, Terms
from instar.release import bars
from instar.release.registry import ModelVersion
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Canary, Policy, Shadow

TERMS = Terms(
    shadow=100, steps=(10, 100), bake=timedelta(hours=6), patience=timedelta(days=14), cool_down=timedelta(days=7),
    cost=0.05, errors=0.01, no_worse=0.02, min_rows=200, refit=True,
)  # fmt: skip
Make = Callable[..., ModelVersion]


class Gateways:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told = 0

    def __call__(self, _store: Store) -> None:
        self.told += 1


@pytest.fixture
def publish() -> Gateways:
    return Gateways()


@pytest.fixture
def champion(store: Store, make_version: Make, publish: Gateways) -> ModelVersion:
    version = make_version("rule")
    promotion.promote(store, "flights", "delay", version, "the first", publish=publish)
    return version


def begin(store: Store, version: ModelVersion, publish: Gateways, **more: Any) -> Rollout:
    return rollout_walk.start(store, "flights", "delay", version, TERMS, "actn_1", publish=publish, **more)


def evidence(store: Store, **changes: Any) -> Evidence:
    random = np.random.default_rng(3).random(600)
    equal = PairedSums.of((random < 0.3).astype(float), (random < 0.3).astype(float))
    return replace(Evidence(600, 0, 600, 300, equal, store.clock.event()), **changes)


def policy(store: Store) -> Policy:
    revision = routing.current(store, "delay")
    assert revision is not None
    return revision.policy


def later(store: Store, **span: float) -> None:
    store.clock.advance_to(store.clock.event() + timedelta(**span))  # type: ignore[attr-defined]


def kinds(store: Store, subject: str) -> list[str]:
    with store.database.read() as tx:
        return [entry.kind for entry in journal.entries(tx, "flights", subject=subject)]


def test_the_whole_walk_from_shadow_to_champion(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    version = make_version("trees")
    current = begin(store, version, publish, standing=[Shadow(1, "rule")])
    assert (policy(store).champion, policy(store).shadows) == (1, (Shadow(2, "candidate"),))
    assert current.applied

    current, decision = rollout_walk.look(store, current, evidence(store, paired=99), publish=publish)
    assert (decision.move, current.stage) == (Move.WAIT, "shadow")
    current, decision = rollout_walk.look(store, current, evidence(store), publish=publish)
    assert (current.stage, current.step, current.share) == ("canary", 0, 10)
    assert (policy(store).canary, policy(store).shadows) == (Canary(2, 10), ())

    later(store, hours=6)
    current, _ = rollout_walk.look(store, current, evidence(store), publish=publish)
    assert policy(store).canary == Canary(2, 100)
    later(store, hours=6)
    current, decision = rollout_walk.look(store, current, evidence(store), publish=publish)
    assert (decision.move, current.stage, current.ended_at) == (Move.PROMOTE, "champion", store.clock.event())
    assert (policy(store).champion, policy(store).canary) == (2, None)
    assert policy(store).shadows == (Shadow(1, "rule"),)  # the old champion has no other place now, and stands by
    assert rollout.running(store, "delay") is None
    assert kinds(store, current.id) == ["rollout started", "rollout advanced", "rollout advanced", "rollout promoted"]
    assert [look.move for look in rollout.looks(store, current.id)] == ["wait", "advance", "advance", "promote"]
    assert publish.told == 5  # one for each policy: the first champion's, and four of the walk


def test_every_decision_is_journalled_with_its_evidence_and_linked_to_the_policy(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    version = make_version("trees")
    current = begin(store, version, publish, contract="b3:contract")
    rollout_walk.look(store, current, evidence(store), publish=publish)
    with store.database.read() as tx:
        started, advanced = journal.entries(tx, "flights", subject=current.id)
        effects = [edge.target for edge in lineage.down(tx, version.id)]
    assert started.body["terms"]["shadow"] == 100
    assert started.body["contract"] == "b3:contract"
    assert (advanced.body["rule"], advanced.body["evidence"]["paired"]) == ("shadow", 600)
    revision = routing.current(store, "delay")
    assert revision is not None
    assert current.id in revision.cause
    assert {current.id, revision.id} <= set(effects)


def test_a_candidate_that_fails_is_rolled_back_and_barred_until_the_cool_down(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    version = make_version("corrupt")
    current, _ = rollout_walk.look(store, begin(store, version, publish), evidence(store), publish=publish)
    current, decision = rollout_walk.look(store, current, evidence(store, errors=7), publish=publish)
    assert (decision.move, current.stage) == (Move.ROLL_BACK, "rolled back")
    assert (policy(store).champion, policy(store).canary, policy(store).shadows) == (1, None, ())
    with pytest.raises(Blocked, match="barred"):
        begin(store, version, publish)
    later(store, days=7)
    assert bars.barred(store, version) is None
    assert begin(store, version, publish).stage == "shadow"


def test_undecided_bars_nobody(store: Store, champion: ModelVersion, make_version: Make, publish: Gateways) -> None:
    version = make_version("trees")
    current = begin(store, version, publish)
    later(store, days=15)
    current, decision = rollout_walk.look(store, current, evidence(store, paired=3), publish=publish)
    assert (decision.rule, current.stage) == ("patience", "rejected")
    assert policy(store).shadows == ()
    assert begin(store, version, publish).stage == "shadow"


def test_a_newer_candidate_supersedes_and_each_names_the_other(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    first, second = make_version("trees"), make_version("more trees")
    old, _ = rollout_walk.look(store, begin(store, first, publish), evidence(store), publish=publish)
    new = begin(store, second, publish)
    ended = rollout.get(store, old.id)
    assert (ended.stage, ended.superseded_by) == ("superseded", new.id)
    assert "delay@3" in ended.reason
    with store.database.read() as tx:
        assert journal.entries(tx, "flights", subject=new.id)[0].body["supersedes"] == old.id
    assert (policy(store).canary, policy(store).shadows) == (None, (Shadow(3, "candidate"),))
    assert [one.id for one in rollout.rollouts(store, "flights", "delay")] == [new.id, old.id]


def test_starting_the_same_candidate_again_changes_nothing(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    version = make_version("trees")
    assert begin(store, version, publish) == begin(store, version, publish)
    assert len(rollout.rollouts(store, "flights")) == 1


def test_who_may_not_start(store: Store, make_version: Make, publish: Gateways) -> None:
    first = make_version("rule")
    with pytest.raises(Blocked, match="no champion"):
        begin(store, first, publish)
    promotion.promote(store, "flights", "delay", first, "the first", publish=publish)
    with pytest.raises(Conflict, match="champion already"):
        begin(store, first, publish)
    with pytest.raises(Blocked, match="approval"):
        begin(store, make_version("trees", approved=False), publish)


def test_a_crash_between_the_record_and_the_policy_is_finished_at_the_next_start(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    version = make_version("trees")
    current = begin(store, version, publish)

    def crash(_store: Store) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout_walk.look(store, current, evidence(store, errors=100), publish=crash)
    assert not rollout.get(store, current.id).applied
    (settled,) = rollout_walk.resume(store, "flights", publish=publish)
    assert (settled.stage, settled.applied) == ("rejected", True)
    assert bars.barred(store, version) is not None
    assert policy(store).shadows == ()
    assert rollout_walk.resume(store, "flights", publish=publish) == []
    assert kinds(store, current.id) == ["rollout started", "rollout rejected"]


def test_two_controllers_cannot_both_decide(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    seen_by_both = begin(store, make_version("trees"), publish)
    rollout_walk.look(store, seen_by_both, evidence(store), publish=publish)
    again, decision = rollout_walk.look(store, seen_by_both, evidence(store), publish=publish)
    assert decision.move is Move.WAIT  # it read where the rollout stands now: the step has only begun
    assert again.step == 0


def test_an_ended_rollout_is_not_looked_at(
    store: Store, champion: ModelVersion, make_version: Make, publish: Gateways
) -> None:
    current = begin(store, make_version("trees"), publish)
    ended, _ = rollout_walk.look(store, current, evidence(store, errors=100), publish=publish)
    with pytest.raises(Conflict, match="ended"):
        rollout_walk.look(store, ended, evidence(store), publish=publish)


def test_unknown_rollout(store: Store) -> None:
    with pytest.raises(NotFound):
        rollout.get(store, "roll_none")
