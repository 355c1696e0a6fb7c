"""Schedules at work: armed, fired once for what is due or has landed, taken up after a crash, with cause and result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.app import App
from instar.core import journal
from instar.core.clock import EventClock
from instar.core.errors import ContractError, NotFound, PipelineError, UnknownTable
from instar.core.store import Store
from instar.operate import controllers, firing, schedules
from instar.operate.firing import Firing
from instar.operate.proposal import Loop
from instar.plan import executions, importing, leases, revisions, schedule
from instar.plan.project import load_project
from instar.testing import memory_store
from tests.plan.conftest import CONTRACT

STEPS = """
import polars as pl
from instar import silver, source

visits = source("visits", path="data/visits*.csv")
other = source("other", path="data/other*.csv")

@silver()
def clean(visits: pl.DataFrame, least: int = 0) -> pl.DataFrame:
    return visits.select("id").filter(pl.col("id") >= least)
"""
NIGHTLY = '\n[schedule.nightly]\ncron = "0 3 * * *"\ntargets = ["clean"]\nparameters = { "clean.least" = 2 }\n'
FRESH = '\n[schedule.fresh]\non = "new data"\nsource = "visits"\ntargets = ["clean"]\n'
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)


class Here:
    """Carries firings out at once, or leaves them as a process would that died."""

    def __init__(self, world: World) -> None:
        self.world, self.dies, self.begun = world, False, list[str]()

    def begin(self, firing: Firing) -> None:
        self.begun.append(firing.id)
        if not self.dies:
            schedules.carry_out(self.world.loop(), firing.id)

    def lives(self, firing: str) -> bool:
        return False


class World:
    def __init__(self, folder: Path, contract: str) -> None:
        self.root, self.clock = folder / "project", EventClock(MIDNIGHT)
        (self.root / "data").mkdir(parents=True)
        self.write("instar.toml", CONTRACT + contract)
        self.write("pipeline.py", STEPS)
        self.write("data/visits1.csv", "id\n1\n2\n3\n")
        self.write("data/other1.csv", "id\n1\n")
        self.store: Store = memory_store(folder, self.clock)
        self.here = Here(self)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def loop(self) -> Loop:
        return App(self.store, self.root).loop()

    def look(self, *, hours: float = 0.0) -> list[Firing]:
        self.clock.advance_to(self.clock.event() + timedelta(hours=hours))
        return [firing.get(self.store, one.id) for one in schedules.look(self.loop(), self.here)]

    def last(self, name: str) -> Firing:
        found = firing.last(self.store, "small", name)
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, FRESH + NIGHTLY)
    yield made
    made.store.database.close()
    importing.forget()


def test_a_schedule_fires_at_its_time_with_its_targets_and_parameters(world: World) -> None:
    assert world.look() == []
    assert (world.last("nightly").state, world.last("fresh").state) == ("armed", "armed")
    assert world.look(hours=2.9) == []
    (fired,) = world.look(hours=0.2)
    assert (fired.schedule, fired.state) == ("nightly", "done")
    assert fired.due == MIDNIGHT + timedelta(hours=3)
    assert fired.result is not None
    assert fired.result["ran"] == ["visits", "clean"]
    with world.store.database.read() as tx:
        made = executions.last(tx, "small", "clean")
        walk = executions.pipeline_runs(tx, "small")[0]
        entries = [entry.kind for entry in journal.entries(tx, "small") if entry.subject == fired.id]
    assert made is not None
    assert (made.cause, made.parameters, walk.id) == (fired.id, {"least": 2}, fired.pipe)
    assert entries == ["schedule running", "schedule done"]
    assert world.look() == []


def test_missed_times_are_made_up_for_once(world: World) -> None:
    world.look()
    fired = world.look(hours=100)
    assert [one.schedule for one in fired] == ["nightly"]
    assert fired[0].due == MIDNIGHT + timedelta(days=4, hours=3)
    assert "made up for once; the first that was missed is 2026-03-01T03:00:00+00:00" in fired[0].cause
    assert world.look(hours=1) == []


def test_new_data_fires_what_waits_for_it(world: World) -> None:
    world.look()
    world.write("data/other2.csv", "id\n5\n")
    assert world.look() == [], "it waits for another source"
    world.write("data/visits2.csv", "id\n4\n")
    (fired,) = world.look()
    assert (fired.schedule, fired.state, fired.cause) == ("fresh", "done", "new data in visits")
    assert world.look() == []
    (world.root / "data/visits2.csv").unlink()
    assert [one.schedule for one in world.look()] == ["fresh"], "as it was before the last time is new, too"


def test_rows_that_land_in_a_table_are_new_data(tmp_path: Path) -> None:
    world = World(tmp_path, '\n[schedule.fresh]\non = "new data"\n')
    world.write("pipeline.py", STEPS.replace('source("visits", path="data/visits*.csv")', 'source("visits")'))
    from instar.data import ingest
    from instar.data.ingest import Delivery

    def land(name: str) -> None:
        step = world.loop().pipeline.step("visits")
        ingest.land(world.store, "small", step, [Delivery(name, world.root / f"data/{name}", MIDNIGHT)])

    land("visits1.csv")
    assert world.look() == []
    world.write("data/more.csv", "id\n9\n")
    land("more.csv")
    (fired,) = world.look()
    assert (fired.state, fired.cause) == ("done", "new data in visits")
    world.store.database.close()
    importing.forget()


def test_a_failure_is_the_result_and_ends_nothing(world: World) -> None:
    world.look()
    world.write("pipeline.py", STEPS.replace('visits.select("id")', "visits.select(nothing)"))
    (fired,) = world.look(hours=4)
    assert fired.state == "failed"
    assert fired.result is not None
    assert "NameError" in fired.result["error"]
    world.write("pipeline.py", STEPS)
    (again,) = world.look(hours=24)
    assert again.state == "done"


def test_a_firing_whose_process_died_is_taken_up_again_and_not_for_ever(world: World) -> None:
    world.look()
    world.here.dies = True
    (fired,) = world.look(hours=4)
    assert fired.state == "running"
    with leases.hold(world.store, f"firing/{fired.id}"):
        assert world.look() == [], "somebody carries it out"
    (again,) = world.look()
    assert (again.id, again.taken_up) == (fired.id, 1)
    world.here.dies = False
    world.look()
    assert world.last("nightly").state == "done"
    world.here.dies = True
    world.look(hours=24)
    for _ in range(schedules.MOST_TIMES_TAKEN_UP + 1):
        world.look()
    ended = world.last("nightly")
    assert ended.state == "failed"
    assert ended.result is not None
    assert "its process died 6 times" in ended.result["error"]


def test_two_controllers_fire_once(world: World) -> None:
    world.look()
    world.clock.advance_to(MIDNIGHT + timedelta(hours=4))
    loop = world.loop()
    before = world.last("nightly")
    wanted = schedules.due(loop, loop.project.contract.schedule["nightly"], before)
    assert wanted is not None
    begin = {"key": wanted.key, "cause": wanted.cause, "due": wanted.moment}
    assert firing.begin(world.store, "small", "nightly", **begin) is not None
    assert firing.begin(world.store, "small", "nightly", **begin) is None


def test_the_contract_in_effect_counts_not_the_file(world: World) -> None:
    revisions.record_contract(world.store, load_project(world.root))
    world.look()
    world.write("instar.toml", CONTRACT)
    assert [one.schedule for one in world.look(hours=4)] == ["nightly"]
    revisions.record_contract(world.store, load_project(world.root))
    assert world.look(hours=24) == []
    with pytest.raises(NotFound, match="no such schedule"):
        schedules.by_hand(world.loop(), "nightly")


def test_by_hand_and_how_they_stand(world: World) -> None:
    nightly, fresh = sorted(schedules.standing(world.loop()), key=lambda one: one.name != "nightly")
    assert (nightly.when, nightly.next, nightly.last) == ("0 3 * * *", MIDNIGHT + timedelta(hours=3), None)
    assert (fresh.when, fresh.next, fresh.due) == ("new data in visits", None, False)
    one = schedules.by_hand(world.loop(), "nightly")
    ended = schedules.carry_out(world.loop(), one.id)
    assert (ended.state, ended.cause) == ("done", "ada asked for it")
    assert schedules.carry_out(world.loop(), one.id) == ended, "a second process finds it done"
    world.clock.advance_to(MIDNIGHT + timedelta(hours=5))
    standing = {one.name: one for one in schedules.standing(world.loop())}
    assert standing["nightly"].due
    assert standing["nightly"].record()["last"]["state"] == "done"


def test_what_fails_in_a_look_holds_up_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise NotFound("a table is gone")

    world.look()
    # The contract in effect names a source that the pipeline has no more; it is looked at before the other one.
    revisions.record_contract(world.store, world.loop().project)
    world.write("pipeline.py", re.sub(r"\bvisits\b(?!\d|\*)", "guests", STEPS))
    world.write("instar.toml", CONTRACT + NIGHTLY)
    importing.forget()
    world.clock.advance_to(MIDNIGHT + timedelta(hours=4))
    monkeypatch.setattr("instar.operate.cycle.tick", broken)
    controllers.look(world.loop(), world.here)
    assert world.last("nightly").state == "done"
    assert "a table is gone" in caplog.text
    assert "schedule fresh cannot be looked at" in caplog.text


def test_the_controllers_look_at_schedules(world: World) -> None:
    controllers.look(world.loop(), world.here)
    world.clock.advance_to(MIDNIGHT + timedelta(hours=4))
    controllers.look(world.loop(), world.here)
    assert world.last("nightly").state == "done"


def test_the_process_of_a_firing_carries_it_out(tmp_path: Path) -> None:
    from instar.app import open_app

    world = World(tmp_path, NIGHTLY)
    with open_app(world.root) as app:
        one = schedules.by_hand(replace(app).loop(), "nightly")
    command = [sys.executable, "-m", "instar.interfaces.scheduled", "--folder", str(world.root / ".instar")]
    ran = subprocess.run(
        [*command, "--project", str(world.root), "--firing", one.id], env=os.environ, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    with open_app(world.root) as app:
        ended = firing.get(app.store, one.id)
        assert (ended.state, (ended.result or {})["ran"]) == ("done", ["visits", "clean"])
        with app.store.database.read() as tx:
            walk = executions.pipeline_runs(tx, "small")[0]
    assert (walk.cause, walk.actor) == (one.id, "instar")
    world.store.database.close()
    importing.forget()


# What the contract may say.


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('cron = "0 3 * *"', r"schedule\.nightly\.cron"),
        ('cron = "0 3 31 2 *"', r"schedule\.nightly\.cron"),
        ('cron = "0 3 * * *"\non = "new data"', "either cron"),
        ("", "either cron"),
        ('on = "old data"', '"new data"'),
        ('cron = "0 3 * * *"\nsource = "visits"', r"only with on"),
        ('cron = "0 3 * * *"\nzone = "Europe/Berlinn"', "a time zone"),
        ('cron = "0 3 * * *"\ntarget = ["clean"]', "Did you mean 'targets'"),
        ('cron = "0 3 * * *"\njobs = 0', "1 or more"),
    ],
)
def test_a_schedule_that_cannot_be(tmp_path: Path, section: str, says: str) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT + "\n[schedule.nightly]\n" + section)
    with pytest.raises(ContractError, match=says):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("section", "says", "error"),
    [
        ('cron = "0 3 * * *"\ntargets = ["claen"]', "Did you mean 'clean'", UnknownTable),
        ('on = "new data"\nsource = "clean"', "no source of the pipeline", UnknownTable),
        ('cron = "0 3 * * *"\nparameters = { "clean.lest" = 1 }', "Did you mean 'least'", PipelineError),
    ],
)
def test_a_schedule_that_does_not_fit_the_pipeline(
    tmp_path: Path, section: str, says: str, error: type[Exception]
) -> None:
    world = World(tmp_path, "\n[schedule.nightly]\n" + section)
    with pytest.raises(error, match=says):
        world.loop()
    world.store.database.close()
    importing.forget()


def test_a_schedule_leaves_the_revision_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "instar.toml").write_text(CONTRACT)
    before = load_project(tmp_path).revision
    (tmp_path / "instar.toml").write_text(CONTRACT + NIGHTLY)
    assert load_project(tmp_path).revision != before


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(
    MOMENTS,
    st.timedeltas(timedelta(0), timedelta(days=40)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
def test_the_latest_time_is_the_last_of_all_times(since: datetime, span: timedelta, zone: str) -> None:
    now, cron, found = since + span, "30 2 * * 1-5", None
    moment = schedule.next_time(cron, zone, since)
    while moment <= now:
        found, moment = moment, schedule.next_time(cron, zone, moment)
    assert schedule.latest_time(cron, zone, since, now) == found
