from __future__ import annotations

from datetime import timedelta

import pytest

from instar.core import journal, lineage
from instar.core.clock import EventClock
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.serve.traffic import routing
from instar.serve.traffic.routing import Canary, Revision, Shadow

BUNDLES = {1: "b3:one", 2: "b3:two", 3: "b3:three"}


def make(store: Store, champion: int | None = 1, **more: object) -> Revision:
    options: dict[str, object] = {"bundles": BUNDLES, "cause": "test", **more}
    return routing.set_policy(store, "flights", "delay", champion=champion, **options)  # type: ignore[arg-type]


def test_revisions_are_numbered_journalled_and_never_changed(store: Store) -> None:
    assert routing.current(store, "delay") is None
    first = make(store)
    second = make(store, canary=Canary(2, 5), shadows=[Shadow(3, "frozen")], cause="roll_1", evidence=["appr_1"])
    assert [first.policy.number, second.policy.number] == [1, 2]
    assert routing.current(store, "delay") == second == routing.get(store, "delay", 2)
    assert routing.history(store, "delay") == [first, second]
    assert first.bundles == {1: "b3:one"}
    with store.database.read() as tx:
        entries = journal.entries(tx, "flights", kind="policy revision")
        edges = {(edge.source, edge.target) for edge in lineage.up(tx, second.id)}
    assert [(e.subject, e.actor, e.body["cause"], e.body["number"]) for e in entries] == [
        (first.id, "ada", "test", 1),
        (second.id, "ada", "roll_1", 2),
    ]
    assert edges == {("appr_1", second.id), *((BUNDLES[v], second.id) for v in (1, 2, 3))}


def test_the_same_policy_again_is_no_revision(store: Store) -> None:
    assert make(store) == make(store)
    assert make(store, bundles={1: "b3:other"}).policy.number == 2


def test_who_decided_on_an_old_revision_is_told(store: Store) -> None:
    make(store, expected=0)
    make(store, champion=2, expected=1)
    with pytest.raises(Conflict, match="revision 2"):
        make(store, champion=3, expected=1)


def test_an_endpoint_belongs_to_one_project(store: Store) -> None:
    make(store)
    with pytest.raises(Conflict, match="flights"):
        routing.set_policy(store, "other", "delay", champion=1, bundles=BUNDLES, cause="test")


def test_a_version_without_a_bundle_is_refused_and_nothing_is_kept(store: Store) -> None:
    with pytest.raises(BadInput, match="version 9"):
        make(store, champion=9)
    assert routing.current(store, "delay") is None
    with pytest.raises(NotFound):
        routing.get(store, "delay", 1)


def test_what_answered_at_a_time_is_known(store: Store) -> None:
    clock = store.clock
    assert isinstance(clock, EventClock)
    begin = clock.event()
    first = make(store)
    clock.advance_to(begin + timedelta(days=1))
    second = make(store, champion=2)
    assert routing.as_of(store, "delay", begin - timedelta(seconds=1)) is None
    assert routing.as_of(store, "delay", begin + timedelta(hours=23)) == first
    assert routing.as_of(store, "delay", begin + timedelta(days=9)) == second


def test_endpoints_are_listed_with_their_current_policy(store: Store) -> None:
    make(store)
    latest = make(store, champion=None)
    other = routing.set_policy(store, "press", "tone", champion=1, bundles=BUNDLES, cause="test")
    assert routing.endpoints(store) == [latest, other]
    assert routing.endpoints(store, "press") == [other]
