from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from instar import testing
from instar.core import journal
from instar.core.errors import Conflict, NotFound
from instar.core.store import Store
from instar.operate import actions
from instar.operate.actions import Wanted, wanted
from instar.operate.alerts import Alert

NOW = testing.NOON
DRIFT = Alert("alrt_1", "flights", "delay", "drift_share", "delay", "open", 0.4, 0.2, NOW, NOW, None, "meas_1", "drift")
WHEN = ["drift", "schedule:monthly"]


def not_due(_schedule: str, _last: datetime | None, _now: datetime) -> bool:
    return False


def due(schedule: str, _last: datetime | None, _now: datetime) -> bool:
    return schedule == "monthly"


def retrainings(
    when: list[str], alerts: list[Alert], last: datetime | None = None, is_due=not_due, days: int = 0
) -> list[str]:  # type: ignore[no-untyped-def]
    found = wanted("delay", when, alerts, last, NOW, timedelta(days=days), is_due)
    return [one.cause for one in found if one.kind == "retrain"]


def test_an_open_alert_on_a_named_metric_wants_one_retraining() -> None:
    assert retrainings(WHEN, [DRIFT]) == ["alrt_1"]
    assert retrainings(WHEN, [DRIFT, replace(DRIFT, id="alrt_2", metric="cost")]) == ["alrt_1"]
    assert retrainings(["cost"], [DRIFT]) == []
    assert retrainings(WHEN, [replace(DRIFT, state="closed")]) == []


def test_a_schedule_wants_it_when_it_is_due() -> None:
    assert retrainings(WHEN, [], is_due=due) == ["schedule:monthly"]
    assert retrainings(["drift"], [], is_due=due) == []
    assert retrainings(WHEN, [DRIFT], is_due=due) == ["alrt_1"]  # one retraining, not two


def test_not_before_the_interval_has_passed() -> None:
    assert retrainings(WHEN, [DRIFT], NOW - timedelta(days=6), due, days=7) == []
    assert retrainings(WHEN, [DRIFT], NOW - timedelta(days=7), due, days=7) == ["alrt_1"]


def test_every_open_alert_wants_one_notification() -> None:
    found = wanted("delay", [], [DRIFT, replace(DRIFT, state="closed")], None, NOW, timedelta(0), not_due)
    assert found == [Wanted("notify", "alrt_1", "notify:alrt_1")]


def test_an_action_is_planned_once_and_ends_once(store: Store) -> None:
    asked = Wanted("retrain", "alrt_1", "retrain:alrt_1")
    planned, fresh = actions.request(store, "flights", "delay", asked, "b3:contract")
    again, repeated = actions.request(store, "flights", "delay", asked)
    assert (fresh, repeated) == (True, False)
    assert planned == again
    assert actions.start(store, planned.id).state == "running"
    with pytest.raises(Conflict):
        actions.start(store, planned.id)
    done = actions.finish(store, planned.id, {"rollout": "roll_1"})
    assert (done.state, done.result, done.ended_at) == ("done", {"rollout": "roll_1"}, store.clock.event())
    with pytest.raises(Conflict):
        actions.finish(store, planned.id, {}, failed=True)
    assert actions.actions(store, "flights", kind="retrain") == [done]


def test_what_a_killed_process_left_is_taken_up_and_counted(store: Store) -> None:
    planned, _ = actions.request(store, "flights", "delay", Wanted("retrain", "alrt_1", "k"))
    with pytest.raises(Conflict):
        actions.take_up(store, planned.id)
    actions.start(store, planned.id)
    assert [actions.take_up(store, planned.id)[1] for _ in range(3)] == [1, 2, 3]
    assert actions.finish(store, planned.id, {}).state == "done"


def test_each_change_of_an_action_is_journalled_with_its_cause(store: Store) -> None:
    planned, _ = actions.request(store, "flights", "delay", Wanted("retrain", "schedule:monthly", "k"), "b3:contract")
    actions.start(store, planned.id)
    actions.finish(store, planned.id, {"error": "no rows"}, failed=True)
    with store.database.read() as tx:
        entries = journal.entries(tx, "flights", subject=planned.id)
    assert [entry.kind for entry in entries] == ["action planned", "action running", "action failed"]
    assert {entry.body["cause"] for entry in entries} == {"schedule:monthly"}
    assert entries[-1].body["result"] == {"error": "no rows"}


def test_unknown_action(store: Store) -> None:
    with pytest.raises(NotFound):
        actions.start(store, "actn_none")
