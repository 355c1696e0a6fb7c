from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.operate import promotion, rollout_walk
from instar.operate.live import live
from instar.operate.rollout_rule import Terms
from instar.release import registry
from instar.release.registry import ModelVersion
from instar.serve.traffic.derived import champion_of
from instar.serve.traffic.policy import Shadow
from instar.testing import NOON

TERMS = Terms(
    shadow=0, steps=(25, 100), bake=timedelta(hours=6), patience=timedelta(days=14), cool_down=timedelta(days=7),
    cost=0.05, errors=0.01, no_worse=0.02, min_rows=200, refit=True,
)  # fmt: skip


def silent(_store: Store) -> None:
    """No gateway runs."""


def test_what_answered_at_a_time_since_when_and_why(store: Store, make_version: Callable[..., ModelVersion]) -> None:
    first, second = make_version("one"), make_version("two")
    promotion.promote(store, "flights", "delay", first, "the first", publish=silent)
    store.clock.advance_to(NOON + timedelta(days=1))  # type: ignore[attr-defined]
    rolled = rollout_walk.start(
        store, "flights", "delay", second, TERMS, "actn_1", standing=[Shadow(1, "rule")], publish=silent
    )
    store.clock.advance_to(NOON + timedelta(days=2))  # type: ignore[attr-defined]
    promotion.promote(store, "flights", "delay", second, "by hand", standing=[Shadow(1, "rule")], publish=silent)

    assert live(store, "flights", NOON - timedelta(hours=1)) == []
    (before,) = live(store, "flights", NOON + timedelta(hours=5))
    assert [(one.version, one.role, one.share) for one in before.answering] == [("delay@1", "champion", 100.0)]
    assert (before.policy, before.since, before.actor, before.cause) == (1, NOON, "ada", "the first")
    (during,) = live(store, "flights", NOON + timedelta(days=1, hours=5), "delay")
    assert [(one.version, one.role, one.share) for one in during.answering] == [
        ("delay@1", "champion", 100.0),
        ("delay@2", "candidate", 0.0),
    ]
    assert (during.rollout, during.stage) == (rolled.id, "shadow")
    (now,) = live(store, "flights")
    assert [(one.version, one.role, one.id) for one in now.answering] == [
        ("delay@2", "champion", second.id),
        ("delay@1", "rule", first.id),
    ]
    assert now.rollout is None


def test_shares_of_a_canary_add_up(store: Store, make_version: Callable[..., ModelVersion]) -> None:
    from instar.evaluate.compare import PairedSums
    from instar.operate.rollout_rule import Evidence

    promotion.promote(store, "flights", "delay", make_version("one"), "the first", publish=silent)
    current = rollout_walk.start(store, "flights", "delay", make_version("two"), TERMS, "actn_1", publish=silent)
    assert champion_of(store, "delay", "challenger") == 2
    evidence = Evidence(10, 0, 10, 10, PairedSums(), store.clock.event())
    rollout_walk.look(store, current, evidence, publish=silent)
    (now,) = live(store, "flights")
    assert [(one.version, one.role, one.share) for one in now.answering] == [
        ("delay@1", "champion", 75.0),
        ("delay@2", "canary", 25.0),
    ]
    assert now.stage == "canary"
    assert [champion_of(store, "delay", alias) for alias in ("champion", "challenger")] == [1, 2]


def test_unknown_endpoint(store: Store) -> None:
    assert live(store, "flights") == []
    assert champion_of(store, "delay", "champion") == registry.FREE
    with pytest.raises(NotFound):
        live(store, "flights", endpoint="delay")
