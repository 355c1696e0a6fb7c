"""The demo's replay on a small invented airline: stopped in the middle, continued, and told from the record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from instar.app import open_app
from instar.core.clock import EventClock
from instar.core.errors import NotFound
from instar.data import tables
from instar.interfaces.demo import progress, report, show, story
from instar.interfaces.demo.drive import FIRST_DAY, SERVED, Replay, Said
from instar.interfaces.demo.world import find_flights, midnight, open_airline
from instar.operate import outcomes
from instar.release import registry
from instar.serve.traffic import routing
from tests.journeys.small_airline import write_files

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
LAST_DAY = date(2013, 3, 4)  # the replay covers three days
# A small airline needs small terms; the words of the contract stay those of the example.
SMALLER = {
    "shadow = 2000": "shadow = 60",
    "min_rows = 14000": "min_rows = 30",
    'window = "28d"': 'window = "2d"',
    "no_worse = 0.05": "no_worse = 0.5",
}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights project over a small airline, replayed up to its first day."""
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("demo") / "flights"
    files = root.parent / "files"
    write_files(files, datetime(2013, 4, 2))
    shutil.copytree(FLIGHTS, root, ignore=shutil.ignore_patterns(".instar", "__pycache__"))
    application = (root / "application.py").read_text()
    (root / "application.py").write_text(
        f"{application}\n\ndef data_folder() -> Path:\n    return Path({str(files)!r})\n"
    )
    contract = (root / "instar.toml").read_text()
    for words, smaller in SMALLER.items():
        assert words in contract
        contract = contract.replace(words, smaller)
    (root / "instar.toml").write_text(contract)
    with replaying(root) as replay:
        replay.open()
    return root


@pytest.fixture
def project(opened: Path, tmp_path: Path) -> Path:
    """A copy of that project and its store, to go on with."""
    shutil.copytree(opened, tmp_path / "flights")
    return tmp_path / "flights"


class Stopped(Exception):
    pass


@contextmanager
def replaying(root: Path, stop_at: int | None = None) -> Iterator[Replay]:
    """A replay of the project; with `stop_at`, it breaks off after so many parts of days."""
    parts: list[Said] = []

    def say(said: Said) -> None:
        if said.kind == "part":
            parts.append(said)
            if len(parts) == stop_at:
                raise Stopped

    clock = EventClock(progress.read(root / ".instar").until or show.BEGINNING)
    with open_app(root, store_folder=root / ".instar", clock=clock) as app:
        replay = Replay(app, open_airline(root), clock, say)
        yield replay


def play(replay: Replay, until: date) -> None:
    with show.serving(replay.app, 0) as server:
        replay.run(server.url, until)


def test_the_product_begins_with_the_rule_and_a_candidate_in_its_shadow(project: Path) -> None:
    with replaying(project) as replay:
        store = replay.loop.store
        rule, judged, refit = registry.versions(store, "flights", "delay")
        assert [one.origin for one in (rule, judged, refit)] == ["baseline", "recipe", "refit"]
        revision = routing.current(store, "delay")
        assert revision is not None
        assert revision.policy.champion == rule.number
        assert [(one.version, one.role) for one in revision.policy.shadows] == [(refit.number, "candidate")]
        assert replay.progress.version_of("frozen") == refit.number == replay.progress.version_of("monthly")
        assert tables.latest(store, "flights", "flights").rows == 59 * 40  # type: ignore[union-attr]
        aside = story.quarantined(replay.loop)["clean_flights"]
        assert aside.keys() == {"cancelled"}


def test_each_flight_is_asked_once_however_often_the_replay_is_stopped(project: Path) -> None:
    with replaying(project, stop_at=6) as replay, pytest.raises(Stopped):
        play(replay, LAST_DAY)
    with replaying(project) as replay:
        # Killed between the calls of a part and the note that it was played: the place is one part behind the log.
        replay.progress.until = midnight(date(2013, 3, 2))
        progress.write(replay.loop.store.folder, replay.progress)
    with replaying(project) as replay:
        play(replay, LAST_DAY)
        airline, loop = open_airline(project), replay.loop
        days = [FIRST_DAY + timedelta(days=number) for number in range(3)]
        schedule = pl.concat([airline.schedule(day) for day in days])
        fates = pl.concat([airline.landings(day) for day in days])
        log = loop.log.read("delay")
        assert log["status"].unique().to_list() == [200]
        assert log.height == log["entity"].n_unique() == schedule.height == 120
        assert log.filter(pl.col("at") > pl.lit(midnight(LAST_DAY))).is_empty()
        joined = outcomes.join(loop.store, log)
        assert joined["truth"].count() == fates.height < schedule.height
        assert joined["truth"].sum() == fates["late"].sum()
        served = {one.id for one in tables.versions(loop.store, "flights", SERVED)}
        assert set(log["table_version"]) == served
        roles = set(log["answers"].explode().struct.field("version"))
        assert roles == {replay.progress.version_of("rule"), replay.progress.version_of("frozen")}

        told = story.tell(replay.app, loop, replay.progress, FIRST_DAY, LAST_DAY, 1.0)
        assert told["totals"]["predictions"] == 120
        assert told["totals"]["outcomes"] == fates.height
        assert told["months"][0]["late_share"] == pytest.approx(fates["late"].mean())
        assert told["totals"]["promotions"] >= 1
        assert told["trace"]["prediction"] in set(log["prediction"])
        assert any("schedule@" in line and "(row)" in line for line in told["trace"]["back"])
        assert any("predictions of delay" in line for line in told["trace"]["forward"])
        assert any(event["kind"] == report.PROMOTION for event in told["events"])


def test_the_monthly_way_is_a_shadow_and_never_a_candidate(project: Path) -> None:
    with replaying(project) as replay:
        store = replay.loop.store
        replay.clock.advance_to(midnight(date(2013, 4, 2)))
        replay.deliver()
        monthly = registry.versions(store, "flights", "delay")[-1]
        assert monthly.origin == "ad hoc"
        assert replay.progress.version_of("monthly") == monthly.number
        assert replay.progress.monthly_retrainings == 1
        policy = routing.current(store, "delay").policy  # type: ignore[union-attr]
        assert (monthly.number, "monthly") in [(one.version, one.role) for one in policy.shadows]
        assert policy.canary is None
        replay.deliver()  # April has not landed
        assert replay.progress.landed_month == 3


def test_a_candidate_from_a_spoiled_month_does_not_come_through(project: Path) -> None:
    with replaying(project) as replay:
        store = replay.loop.store
        before = routing.current(store, "delay").policy  # type: ignore[union-attr]
        airline, days = open_airline(project), [FIRST_DAY + timedelta(days=number) for number in range(31)]
        replay.land("weather", [feed for day in days for feed in airline.weather(day)])
        replay.clock.advance_to(midnight(date(2013, 4, 2)))
        replay.deliver()
        replay.spoil()
        spoiled = registry.versions(store, "flights", "delay")[-1]
        assert spoiled.origin == "ad hoc"
        assert spoiled.state == "rejected"
        after = routing.current(store, "delay").policy  # type: ignore[union-attr]
        assert after.champion == before.champion
        assert spoiled.number not in after.versions
        rejected = [event for event in story.events_of(replay.loop, "delay") if event.kind == report.REJECTION]
        assert [event.subject for event in rejected] == [spoiled.name]


def test_the_flights_project_is_found_from_a_clone_and_missed_elsewhere(tmp_path: Path) -> None:
    assert find_flights(FLIGHTS) == FLIGHTS
    assert find_flights(FLIGHTS.parents[1]) == FLIGHTS
    assert find_flights(FLIGHTS / "deeper") == FLIGHTS
    assert find_flights(tmp_path) == FLIGHTS  # beside the source that is installed


def test_an_airline_without_flights_says_what_to_install(project: Path, tmp_path: Path) -> None:
    application = project / "application.py"
    text = application.read_text().replace("return Path(", "raise NoFlights('none here') or Path(")
    application.write_text(text)
    with pytest.raises(NotFound, match="instar\\[demo\\]"):
        open_airline(project)
