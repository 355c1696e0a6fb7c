from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import msgspec

from instar.core.clock import EventClock
from instar.core.store import Store
from instar.operate import alerts, route_keeping, traffic
from instar.release.registry import ModelVersion
from instar.serve.publishing import snapshot
from instar.serve.traffic import leases, routes, routing
from instar.serve.traffic.policy import Canary
from tests.operate.test_promotion import promote

Make = Callable[..., ModelVersion]


class Later(EventClock):
    """A clock whose wall is ahead of the true one."""

    def __init__(self, clock: EventClock, ahead: timedelta) -> None:
        super().__init__(clock.event())
        self._ahead = ahead

    def wall(self):  # type: ignore[no-untyped-def]
        return super().wall() + self._ahead


def after(store: Store, span: timedelta) -> Store:
    assert isinstance(store.clock, EventClock)
    store.clock.advance_to(store.clock.event() + timedelta(seconds=1))  # each look has a moment of its own
    return replace(store, clock=Later(store.clock, span))


def with_canary(store: Store, make_version: Make) -> None:
    promote(store, make_version("one"))
    make_version("two")
    now = traffic.current(store, "flights", "delay").policy
    draft = msgspec.structs.replace(now, canary=Canary(2, 10, lease=60))
    traffic.change(store, "flights", "delay", draft, "a test", publish=snapshot.publish)


def test_leases_are_renewed_at_each_look(store: Store, make_version: Make) -> None:
    with_canary(store, make_version)
    begun = leases.read_leases(store.folder)["delay"]
    assert begun.policy == 2
    assert route_keeping.look(after(store, timedelta(seconds=30)), "flights") == alerts.Changed()
    assert leases.read_leases(store.folder)["delay"].renewed > begun.renewed + 25_000_000
    before = leases.read_leases(store.folder)
    route_keeping.look(after(store, timedelta(seconds=50)), "flights", only=["another"])
    route_keeping.look(after(store, timedelta(seconds=50)), "flights", but=["delay"])
    route_keeping.look(after(store, timedelta(seconds=50)), "another")
    assert leases.read_leases(store.folder) == before


def test_controllers_that_are_back_say_for_how_long_nobody_watched(store: Store, make_version: Make) -> None:
    with_canary(store, make_version)
    opened = route_keeping.look(after(store, timedelta(minutes=10)), "flights").opened
    assert [(one.metric, one.subject, one.limit) for one in opened] == [("canary_lease", "delay", 60)]
    assert 590 < opened[0].value < 610
    assert "the champion answer alone" in opened[0].text
    closed = route_keeping.look(after(store, timedelta(minutes=10, seconds=10)), "flights").closed
    assert [one.id for one in closed] == [opened[0].id]


def test_a_champion_before_is_let_go_when_its_time_is_over(store: Store, make_version: Make) -> None:
    one, two = make_version("one"), make_version("two")
    promote(store, one)
    promote(store, two)
    snapshot.publish(store)

    def held() -> list[int]:
        return [version.version for version in routes.read_snapshot(store.folder).endpoints["delay"].held]

    assert held() == [2, 1]
    number = routes.read_snapshot(store.folder).number
    route_keeping.look(after(store, timedelta(seconds=routing.WARM_SECONDS - 60)), "flights")
    assert routes.read_snapshot(store.folder).number == number
    route_keeping.look(after(store, timedelta(seconds=routing.WARM_SECONDS + 60)), "flights")
    assert held() == [2]
    kept = routing.current(store, "delay")
    assert kept is not None
    assert kept.policy.retiring is not None  # the record says what was, whatever the time
