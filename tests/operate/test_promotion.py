from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from instar.core.errors import Blocked, Conflict, NotFound
from instar.core.store import Store
from instar.operate import promotion, rollout, rollout_walk
from instar.operate.rollout_rule import Terms
from instar.release.registry import ModelVersion
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Shadow
from instar.serve.traffic.routing import Revision

Make = Callable[..., ModelVersion]
TERMS = Terms(
    shadow=100, steps=(10, 100), bake=timedelta(hours=6), patience=timedelta(days=14), cool_down=timedelta(days=7),
    cost=0.05, errors=0.01, no_worse=0.02, min_rows=200, refit=True,
)  # fmt: skip


def silent(_store: Store) -> None:
    """No gateway runs."""


def promote(store: Store, version: ModelVersion, standing: tuple[Shadow, ...] = ()) -> Revision:
    return promotion.promote(store, "flights", "delay", version, "for a test", standing=standing, publish=silent)


def rollback(store: Store) -> Revision:
    return promotion.rollback(store, "flights", "delay", "for a test", publish=silent)


def test_rollback_returns_to_the_champion_before(store: Store, make_version: Make) -> None:
    first, second = make_version("one"), make_version("two")
    promote(store, first)
    promote(store, second)
    back = rollback(store)
    assert back.policy.champion == 1
    assert back.bundles == {1: first.bundle, 2: second.bundle}  # who retires is kept loaded for a while
    assert back.policy.retiring is not None
    assert back.policy.retiring.version == 2
    assert back.policy.number == 3  # nothing is deleted


def test_rollback_during_a_rollout_ends_it_and_keeps_the_incumbent(store: Store, make_version: Make) -> None:
    first, second, third = make_version("one"), make_version("two"), make_version("three")
    promote(store, first)
    promote(store, second)
    current = rollout_walk.start(store, "flights", "delay", third, TERMS, "actn_1", publish=silent)
    back = rollback(store)
    assert (back.policy.champion, back.policy.shadows, back.policy.canary) == (2, (), None)
    ended = rollout.get(store, current.id)
    assert ended.stage == "superseded"
    assert "ada rolled it back" in ended.reason


def test_promoting_over_a_rollout_ends_it(store: Store, make_version: Make) -> None:
    first, second = make_version("one"), make_version("two")
    promote(store, first)
    rollout_walk.start(store, "flights", "delay", second, TERMS, "actn_1", publish=silent)
    after = promote(store, second, (Shadow(1, "rule"),))
    assert (after.policy.champion, after.policy.shadows) == (2, (Shadow(1, "rule"),))
    assert rollout.running(store, "delay") is None


def test_what_was_never_approved_is_not_promoted(store: Store, make_version: Make) -> None:
    with pytest.raises(Blocked, match="approval"):
        promote(store, make_version("one", approved=False))
    assert routing.current(store, "delay") is None


def test_there_must_be_something_to_return_to(store: Store, make_version: Make) -> None:
    with pytest.raises(NotFound, match="nothing answers"):
        rollback(store)
    promote(store, make_version("one"))
    with pytest.raises(Conflict, match="never was another"):
        rollback(store)
