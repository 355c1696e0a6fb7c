from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from instar import testing
from instar.core import journal
from instar.core.errors import NotFound
from instar.core.ids import new_id
from instar.core.store import Store
from instar.operate import alerts
from instar.operate.measurement import BREACH, OK, TOO_FEW, Measurement, keep, measurements

DAY = timedelta(days=1)


def look(
    store: Store, day: int, value: float, state: str, monitor: str = "cost", consecutive: int = 1
) -> alerts.Changed:
    end = testing.NOON + day * DAY
    store.clock.advance_to(end)  # type: ignore[attr-defined]
    found = measured(store, end, value, state, monitor)

    def work(tx):  # type: ignore[no-untyped-def]
        return alerts.update(tx, store.clock, store.actor, "flights", keep(tx, found), consecutive)

    return store.database.write(work, durable=True)


def measured(store: Store, end: datetime, value: float, state: str, monitor: str) -> Sequence[Measurement]:
    one = Measurement(
        new_id("meas"), "flights", "delay", monitor, "delay", end - DAY, end, value, 0.5, state, 900, store.clock.wall()
    )
    return [one]


def test_an_alert_says_which_metric_how_much_and_since_when(store: Store) -> None:
    assert look(store, 1, 0.4, OK) == alerts.Changed()
    (opened,) = look(store, 2, 0.7, BREACH).opened
    assert (opened.metric, opened.value, opened.limit, opened.since) == ("cost", 0.7, 0.5, testing.NOON + DAY)
    assert "cost of delay is 0.7, the limit is 0.5, since 2026-01-02" in opened.text
    assert opened == alerts.get(store, opened.id)
    assert measurements(store, "flights", monitor="cost", limit=1)[0].id == opened.measurement


def test_it_stays_one_alert_while_it_lasts_and_closes_when_it_is_over(store: Store) -> None:
    first = look(store, 1, 0.7, BREACH).opened
    assert look(store, 2, 0.9, BREACH) == alerts.Changed()
    assert look(store, 3, 0.1, TOO_FEW) == alerts.Changed()
    (closed,) = look(store, 4, 0.3, OK).closed
    assert closed.id == first[0].id
    assert closed.closed_at == testing.NOON + 4 * DAY
    assert [one.state for one in alerts.alerts(store, "flights")] == ["closed"]
    assert look(store, 5, 0.8, BREACH).opened[0].id != closed.id
    with store.database.read() as tx:
        kinds = [entry.kind for entry in journal.entries(tx, "flights")]
    assert kinds == ["alert opened", "alert closed", "alert opened"]


def test_consecutive_breaches_open_it_and_since_is_the_first_of_them(store: Store) -> None:
    assert look(store, 1, 0.7, BREACH, consecutive=3) == alerts.Changed()
    assert look(store, 2, 0.2, OK, consecutive=3) == alerts.Changed()
    for day in (3, 4):
        assert look(store, day, 0.7, BREACH, consecutive=3) == alerts.Changed()
    look(store, 5, 0.0, TOO_FEW, consecutive=3)
    (opened,) = look(store, 6, 0.7, BREACH, consecutive=3).opened
    assert opened.since == testing.NOON + 2 * DAY


def test_metrics_do_not_mix(store: Store) -> None:
    look(store, 1, 0.7, BREACH, "cost")
    look(store, 1, 0.9, BREACH, "errors")
    assert {one.metric for one in alerts.alerts(store, "flights", state="open")} == {"cost", "errors"}
    look(store, 2, 0.1, OK, "errors")
    assert {one.metric for one in alerts.alerts(store, "flights", state="open")} == {"cost"}


def test_a_window_looked_at_twice_is_kept_once(store: Store) -> None:
    assert len(look(store, 1, 0.7, BREACH).opened) == 1
    assert look(store, 1, 0.7, BREACH) == alerts.Changed()
    assert len(measurements(store, "flights")) == 1


def test_unknown_alert(store: Store) -> None:
    with pytest.raises(NotFound):
        alerts.get(store, "alrt_none")
