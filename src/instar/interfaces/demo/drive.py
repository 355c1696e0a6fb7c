"""Replays the year: day by day in event time, data lands, passengers ask over HTTP, flights come down, and the loop turns.

    replay = Replay(app, airline, clock, say)
    replay.open()                               # January and February have landed; the rule answers, a candidate follows
    with ServerTree.start(...) as server:
        replay.run(server.url, until=date(2013, 6, 1))

A day has four parts. After each the clock moves on, outcomes of the flights that are down by then are posted, files that
are due land, and `operate.cycle.tick` looks at what is live. A replay that was stopped goes on where it stopped: asked
flights are found in the log, and all else is done so that doing it again changes nothing.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from instar.app import App
from instar.core.clock import EventClock
from instar.core.identity import SYSTEM
from instar.core.store import Store
from instar.data import ingest, tables
from instar.data.checks import split_quarantine
from instar.data.ingest import Delivery
from instar.data.kind import declared_checks, rows_to_serve
from instar.data.tables import TableVersion
from instar.interfaces.demo import progress as progress_file
from instar.interfaces.demo import rivals
from instar.interfaces.demo.figures import FROZEN, MONTHLY, RULE, ZONE
from instar.interfaces.demo.gateway import Gateway, Truth
from instar.interfaces.demo.progress import Progress
from instar.interfaces.demo.world import Airline, Feed, midnight
from instar.operate import cycle
from instar.operate.outcomes import join
from instar.operate.proposal import Loop
from instar.serve.clients.client import Ask
from instar.serve.log import sealing
from instar.serve.publishing import snapshot

FIRST_DAY = date(2013, 3, 1)
QUICK_END, YEAR_END = date(2013, 6, 1), date(2014, 1, 1)
PARTS = (10, 14, 18, 24)  # ends of the parts of a day, hours on the clock of New York
SPOILED_DAY = date(2013, 4, 15)
SERVED = "delay_features__served"
LONGEST_FLIGHT = timedelta(days=3)  # after its scheduled departure a flight is down or never will be


@dataclass(frozen=True)
class Said:
    """Something to show while the replay runs.

    Attributes:
        at: Event time.
        kind: `"part"` (a part of a day is played), `"alert"`, `"retraining"`, `"rollout"`, `"proposal"`, `"month"`.
        text: One line for people.
    """

    at: datetime
    kind: str
    text: str


class Replay:
    """One replay of the flights of 2013 through one store.

    Args:
        app: The flights project, opened with `clock`.
        airline: The world outside.
        clock: Event time.
        say: Told what happens, while it happens.
    """

    def __init__(self, app: App, airline: Airline, clock: EventClock, say: Callable[[Said], None]) -> None:
        self._store = replace(app.store, actor=SYSTEM)
        self.app, self.clock, self.say = app, clock, say
        self._airline = airline
        self._loop: Loop = replace(app.loop(), store=self._store, publish=_publish)
        self._project, self._pipeline = app.project.name, app.pipeline
        (self._endpoint,) = app.project.contract.problem
        self._gold = next(step.name for step in app.pipeline.steps.values() if step.kind == "gold")
        self.progress: Progress = progress_file.read(self._store.folder)
        self._loop = replace(self._loop, standing=rivals.shadows(self.progress))
        self._due: list[tuple[datetime, str, bool]] = []  # heap of (landed, prediction, late)
        self._in_log: dict[str, str] = {}  # prediction by flight, asked before we were stopped
        self._coming: Feed | None = None
        self._weather: list[pl.DataFrame] = []  # observations of yesterday and of today
        self._begun = time.monotonic()

    @property
    def loop(self) -> Loop:
        """What turns."""
        return self._loop

    @property
    def endpoint(self) -> str:
        return self._endpoint

    def done(self, until: date) -> bool:
        """Is everything before the day `until` played?"""
        return self.progress.until is not None and self.progress.until >= midnight(until)

    def open(self) -> None:
        """Land what there was before the first day, put the rule to work, and send the first model after it."""
        if self.progress.opened:
            return
        for feed in (self._airline.planes(), self._airline.airlines()):
            self.land(feed.name, [feed], mode="overwrite")
        for month in (1, 2):
            self.land("weather", [feed for day in _days_of(month) for feed in self._airline.weather(day)])
            delivery = self._airline.delivery(month)
            self.clock.advance_to(delivery.landed_at)
            self.land("flights", [delivery], partition=_partition(month))
            self.progress.landed_month = month
        self._land_schedule(FIRST_DAY)
        for kind in ("baseline", "model"):
            steps = [step.name for step in self._pipeline.steps.values() if step.kind == kind]
            for made in cycle.turn(self._loop, targets=steps, cause="the demo's beginning").proposals:
                self._tell("proposal", f"{made.candidate.name}: {made.outcome}, {made.reason}")
            self._name_rivals()
        self.progress.opened, self.progress.until = True, self.clock.event()
        self._save()

    def run(self, url: str, until: date) -> None:
        """Play all days before `until` that were not played yet, through the server at `url`."""
        if self.done(until):
            return
        with Gateway(url, self._endpoint) as gateway:
            self._recover()
            assert self.progress.until is not None
            day = max(FIRST_DAY, _local_day(self.progress.until))
            self._weather = [feed.rows for feed in self._airline.weather(day - timedelta(days=1))]
            while day < until:
                self._day(gateway, day)
                day += timedelta(days=1)
            self._settle(gateway)

    # A day.

    def _day(self, gateway: Gateway, day: date) -> None:
        feeds = self._airline.weather(day)
        if feeds:
            self.land("weather", feeds)
        schedule = self._land_schedule(day)
        rows, version = self._serving_rows(day, feeds, schedule)
        begin = midnight(day)
        for hour in PARTS:
            end = midnight(day + timedelta(days=1)) if hour == 24 else _at_hour(day, hour)
            if self.progress.until is None or end > self.progress.until:
                self._part(gateway, rows, version, begin, end)
            begin = end

    def _part(
        self, gateway: Gateway, rows: pl.DataFrame, version: TableVersion, begin: datetime, end: datetime
    ) -> None:
        asked = rows.filter(pl.col("asked_at") >= begin, pl.col("asked_at") < end)
        opening = self.progress.until or begin
        asks, waiting = [], []
        for row in asked.iter_rows(named=True):
            flight = row["flight_id"]
            known = self._in_log.pop(flight, None)
            if known is not None:  # asked before the replay was stopped
                self._expect(known, row)
                continue
            values = {name: row[name] for name in gateway.inputs}
            at = max(row["asked_at"], opening)
            asks.append(Ask(values, event_time=at, key=flight, entity=flight, table_version=version.id))
            waiting.append(row)
        for prediction, row in zip(gateway.ask(asks), waiting, strict=True):
            self._expect(prediction, row)
        self.clock.advance_to(end)
        self._post(gateway, end)
        self.deliver()
        if end >= midnight(SPOILED_DAY) and not self.progress.spoiled:
            self.spoil()
        self._turn()
        self.progress.until = end
        self._save()
        self._tell("part", "")

    def _expect(self, prediction: str, row: dict[str, Any]) -> None:
        if row["landed_at"] is not None:
            heapq.heappush(self._due, (row["landed_at"], prediction, bool(row["late"])))

    def _post(self, gateway: Gateway, now: datetime) -> None:
        known: list[Truth] = []
        while self._due and self._due[0][0] <= now:
            landed, prediction, late = heapq.heappop(self._due)
            known.append(Truth(prediction, late, landed))
        gateway.post(known)

    def _turn(self) -> None:
        ticked = cycle.tick(self._loop)
        for moved in ticked.moved:
            name = f"{self._endpoint}@{moved.rollout.candidate}"
            self._tell("rollout", f"{name} {moved.decision.move.value}: {moved.decision.reason}")
        for alert in ticked.opened:
            self._tell("alert", alert.text)
        for action, made in ticked.retrained:
            words = f"{made.candidate.name}: {made.outcome}, {made.reason}" if made else str(action.result)
            self._tell("retraining", words)

    # What lands.

    def deliver(self) -> None:
        """Land the month's file when it is there, and fit the monthly way on it."""
        month = self.progress.landed_month + 1
        if month > 12:
            return
        if self._coming is None:
            self._coming = self._airline.delivery(month)
        if self._coming.landed_at > self.clock.event():
            return
        self.land("flights", [self._coming], partition=_partition(month))
        sealing.seal(self._store)
        made = rivals.make_gold(self._loop, self._gold, f"the flights of {_partition(month)} have landed")
        version = rivals.refit_monthly(self._loop, self._endpoint, made)
        self.progress.stand(MONTHLY, version.number, self.clock.event())
        self._loop = rivals.keep(self._loop, self._endpoint, self.progress, f"{version.name} is this month's fit")
        self.progress.landed_month, self._coming = month, None
        self.progress.monthly_retrainings += 1
        self._save()
        self._tell("month", f"{_partition(month)} has landed")

    def spoil(self) -> None:
        """Propose the candidate that was fitted on a spoiled month."""
        delivery = self._airline.delivery(self.progress.landed_month)
        made = rivals.propose_spoiled(self._loop, self._endpoint, self._gold, delivery)
        self.progress.spoiled = True
        self._tell("proposal", f"{made.candidate.name}, fitted on a spoiled month: {made.outcome}, {made.reason}")

    def land(
        self, table: str, feeds: Sequence[Feed], partition: str | None = None, mode: str | None = None
    ) -> TableVersion:
        """Land what the airline hands over in a bronze table; what has landed already changes nothing."""
        return ingest.land(
            self._store,
            self._project,
            self._pipeline.step(table),
            [Delivery(feed.name, feed.rows, feed.landed_at) for feed in feeds],
            partition,
            "the airline",
            mode=mode,
            checks=declared_checks(self._pipeline, table),
        )

    def _land_schedule(self, day: date) -> TableVersion:
        rows = self._airline.schedule(day).drop("asked_at")
        delivery = Delivery(f"schedule-{day.isoformat()}", rows, midnight(day))
        step = self._pipeline.step("schedule")
        return ingest.land(self._store, self._project, step, [delivery], cause="the airline", mode="overwrite")

    def _serving_rows(
        self, day: date, feeds: Sequence[Feed], schedule: TableVersion
    ) -> tuple[pl.DataFrame, TableVersion]:
        """The day's rows by the gold function itself, as a table version, and beside each what the driver must know."""
        today = [feed.rows for feed in feeds]
        rows = self._made(tables.scan(self._store, schedule), self._weather + today)
        self._weather = today
        read = [tables.latest(self._store, self._project, name) for name in ("weather", "planes")]
        version = tables.write_version(
            self._store,
            self._project,
            SERVED,
            "gold",
            rows,
            key=self._pipeline.step(self._gold).options["key"],
            order=(),
            inputs=[schedule.id, *(found.id for found in read if found is not None)],
            cause=f"rows to serve on {day.isoformat()}",
        )
        return self._with_fates(day, rows), version

    def _made(self, flights: pl.DataFrame | pl.LazyFrame, observed: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Feature rows of flights and the weather observed of late, by the project's own steps."""
        replaced: dict[str, pl.DataFrame | pl.LazyFrame] = {"clean_flights": flights}
        if observed:
            clean = self._pipeline.step("clean_weather").function
            assert clean is not None
            replaced["clean_weather"], _ = split_quarantine(clean(pl.concat(observed).lazy()).collect())
        return rows_to_serve(self._store, self._project, self._pipeline, self._gold, replaced)

    def _with_fates(self, day: date, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of a day with `asked_at`, and `landed_at` and `late`, which are null for flights that never arrive."""
        flight = ["carrier", "flight", "origin", "time_hour"]
        asked = self._airline.schedule(day).select(*flight, "asked_at")
        rows = rows.drop("late").join(asked, on=flight, how="inner", maintain_order="right")
        return rows.join(self._airline.landings(day), on=flight, how="left", maintain_order="left")

    def _settle(self, gateway: Gateway) -> None:
        """After the last day: wait for the flights that are still in the air."""
        if self._due:
            self.clock.advance_to(max(self._due)[0])
            self._post(gateway, self.clock.event())

    # Going on after a stop.

    def _recover(self) -> None:
        """Find in the log which flights were asked about already, and which of them still have to land."""
        until = self.progress.until
        assert until is not None
        log = self._loop.log.read(self._endpoint, until - LONGEST_FLIGHT, until + timedelta(days=1))
        log = log.filter(pl.col("decision").is_not_null())
        self._in_log = dict(log.filter(pl.col("at") >= until).select("entity", "prediction").iter_rows())
        past = join(self._store, log.filter(pl.col("at") < until)).filter(pl.col("truth").is_null())
        if not past.height:
            return
        first, last = _local_day(past["at"].min()), _local_day(past["at"].max())  # type: ignore[arg-type]
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            flights = self._with_fates(day, self._made(self._airline.schedule(day), []))
            for row in flights.join(past.select("prediction", flight_id="entity"), on="flight_id").iter_rows(
                named=True
            ):
                self._expect(row["prediction"], row)

    def _name_rivals(self) -> None:
        now = self.clock.event()
        rule, frozen = (rivals.first(self._loop, self._endpoint, origin) for origin in ("baseline", "refit"))
        if rule is not None:
            self.progress.stand(RULE, rule.number, now)
        if frozen is not None:
            self.progress.stand(FROZEN, frozen.number, now)
            self.progress.stand(MONTHLY, frozen.number, now)
        self._loop = rivals.keep(self._loop, self._endpoint, self.progress, "what the loop is compared with")

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._begun
        self._begun = now
        progress_file.write(self._store.folder, self.progress)

    def _tell(self, kind: str, text: str) -> None:
        self.say(Said(self.clock.event(), kind, text))


def _publish(store: Store) -> int:
    """Publish routes, and wait until the gateways answer by them."""
    number = snapshot.publish(store)
    snapshot.wait_acknowledged(store, number)
    return number


def _partition(month: int) -> str:
    return f"2013-{month:02d}"


def _days_of(month: int) -> list[date]:
    day, days = date(2013, month, 1), []
    while day.month == month:
        days.append(day)
        day += timedelta(days=1)
    return days


def _at_hour(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)


def _local_day(moment: datetime) -> date:
    return moment.astimezone(ZoneInfo(ZONE)).date()
