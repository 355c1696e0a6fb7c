from __future__ import annotations

from datetime import timedelta

from instar.core.store import Store
from instar.operate import alerts, upkeep
from instar.serve.log import catalogue, erasing, holds, verification
from instar.serve.log.calls import CallLog
from instar.serve.log.retention import Terms
from tests.serve.filled import fill
from tests.serve.test_sealing_damage import ends, flip


def test_a_look_seals_merges_erases_and_lets_go_by_the_contract(store: Store) -> None:
    fill(store, 3)
    erasing.ask(store, "flights", erasing.Selector("entity", "E1"), "request 1")
    upkeep.look(store, "flights", {"delay": Terms(inputs=timedelta(days=1))})
    assert [len(one.segments) for one in catalogue.units(store)] == [1, 2]
    assert {one.lost for one in catalogue.units(store)} == {"inputs, person"}
    assert [one.state for one in erasing.erasures(store)] == ["done"]
    assert verification.verify(store) == []
    upkeep.look(store, "flights", {"delay": Terms(keep=timedelta(days=1))})
    assert CallLog(store).read("delay").is_empty()
    assert verification.verify(store) == []


def test_damage_raises_one_alert_and_not_one_at_each_look(store: Store) -> None:
    made = fill(store, 3)
    flip(made[0].path, ends(made[0].path)[3] + 30)
    upkeep.look(store, "flights", {})
    (alert,) = alerts.alerts(store, "flights", state="open")
    assert (alert.metric, alert.subject) == ("record", made[0].name.id)
    assert "cannot be read" in alert.text
    upkeep.look(store, "flights", {})
    assert len(alerts.alerts(store, "flights")) == 1


def test_a_sealed_file_that_was_touched_is_not_merged_and_raises_an_alert(store: Store) -> None:
    from instar.serve.log import sealing

    fill(store, 3)
    sealing.seal(store)
    touched = catalogue.units(store)[1]
    flip(catalogue.tables_folder(store.folder, "flights") / touched.frames_path, 100)
    for _ in range(2):
        upkeep.look(store, "flights", {})
    (alert,) = alerts.alerts(store, "flights", state="open")
    assert alert.subject == touched.rows_path
    assert touched.id in {one.id for one in catalogue.units(store)}
    assert [fault.segment for fault in verification.verify(store)] == [touched.segments[0]]


def test_a_hold_that_comes_between_lets_an_erasure_wait(store: Store) -> None:
    fill(store, 1)
    upkeep.look(store, "flights", {})
    erasing.ask(store, "flights", erasing.Selector("entity", "E1"), "request 1")
    hold = holds.place(store, "flights", "delay", "case 1")
    upkeep.look(store, "flights", {"delay": Terms(keep=timedelta(days=1))})
    assert [one.state for one in erasing.erasures(store)] == ["asked"]
    assert CallLog(store).read("delay").height == 8
    holds.release(store, "flights", hold.id, "closed")
    upkeep.look(store, "flights", {})
    assert [one.state for one in erasing.erasures(store)] == ["done"]
