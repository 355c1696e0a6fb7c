"""Schedules at work: which of the contract's are due, in event time, and the runs that they set off while a server is up.

    [schedule.nightly]                              [schedule.fresh]
    cron = "0 3 * * *"                              on = "new data"
                                                    source = "flights"

Controllers look; what is due is put on the record as a firing and carried out in a process of its own, so that a long run
holds up neither the server nor the rollouts. Times that were missed while nothing looked are made up for once. A firing
whose process died is taken up again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from instar.core.errors import InstarError, NotFound
from instar.core.ids import digest_of
from instar.core.store import Store
from instar.data import tables
from instar.operate import cycle, firing
from instar.operate.firing import ARMED, RUNNING, Firing
from instar.operate.proposal import Loop
from instar.plan import leases, revisions, schedule
from instar.plan.contract import Schedule
from instar.plan.pipeline import Pipeline
from instar.plan.project import parse_contract
from instar.plan.runner import Event, Manner

log = logging.getLogger("instar.schedules")

MOST_TIMES_TAKEN_UP = 5  # a firing whose process dies each time is given up


class Launch(Protocol):
    """Begins firings, each in a process of its own."""

    def begin(self, firing: Firing) -> None:
        """Begin it; it is carried out elsewhere."""

    def lives(self, firing: str) -> bool:
        """Does the process still live that was begun here for the firing of that id?"""


@dataclass(frozen=True)
class Standing:
    """How a schedule stands.

    Attributes:
        name: Its name in the contract.
        when: `cron`, or what it waits for.
        next: The next time that it is due; None when it waits for data.
        due: It would fire now.
        last: Its newest firing.
    """

    name: str
    when: str
    next: datetime | None
    due: bool
    last: Firing | None

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schedule": self.name,
            "when": self.when,
            "next": self.next.isoformat() if self.next else None,
            "due": self.due,
            "last": self.last.record() if self.last else None,
        }


@dataclass(frozen=True)
class Due:
    """Why a schedule fires, and for which moment or state of the data, which it does once."""

    key: str
    cause: str
    moment: datetime
    seen: dict[str, str]


def look(loop: Loop, launch: Launch) -> list[Firing]:
    """Fire what is due, take up what died; returns what was begun.

    A schedule that cannot be looked at (its source is in the pipeline no more) is logged, and holds up no other.
    """
    begun = []
    for name, asked in in_force(loop).items():
        try:
            begun += _look(loop, name, asked, launch)
        except InstarError as error:
            log.error("schedule %s cannot be looked at: %s", name, error)
    return begun


def _look(loop: Loop, name: str, asked: Schedule, launch: Launch) -> list[Firing]:
    last = firing.last(loop.store, loop.project.name, name)
    if last is None:
        _arm(loop, name, asked)
        return []
    if last.state == RUNNING:
        return _take_up(loop, last, launch)
    wanted = due(loop, asked, last)
    return _fire(loop, name, wanted, launch) if wanted is not None else []


def in_force(loop: Loop) -> Mapping[str, Schedule]:
    """The schedules of the contract in effect; of the project's file, where none has taken effect yet."""
    with loop.store.database.read() as tx:
        current = revisions.current(tx, loop.project.name)
    contract = loop.project.contract if current is None else parse_contract(current.text)
    return contract.schedule


def due(loop: Loop, asked: Schedule, last: Firing) -> Due | None:
    """What a schedule fires for now, if for anything, after it fired or was armed last."""
    now = loop.store.clock.event()
    if asked.cron:
        moment = schedule.latest_time(asked.cron, asked.zone, last.due, now)
        if moment is None:
            return None
        first = schedule.next_time(asked.cron, asked.zone, last.due)
        missed = "" if first == moment else f", made up for once; the first that was missed is {first.isoformat()}"
        return Due(moment.isoformat(), f"{asked.cron} ({asked.zone}), due {moment.isoformat()}{missed}", moment, {})
    seen, before = seen_now(loop.store, loop.project.name, loop.pipeline, loop.project.root, asked), _seen(last)
    changed = [name for name in seen if seen[name] != before.get(name)]
    if not changed:
        return None
    return Due(f"{digest_of(seen)} after {last.id}", f"new data in {', '.join(changed)}", now, seen)


def standing(loop: Loop) -> list[Standing]:
    """How the schedules of the contract stand, by name."""
    found = []
    for name, asked in sorted(in_force(loop).items()):
        last = firing.last(loop.store, loop.project.name, name)
        waits = last is not None and last.state != RUNNING and due(loop, asked, last) is not None
        if asked.cron:
            zone = "" if asked.zone == "UTC" else f" {asked.zone}"
            following = schedule.next_time(asked.cron, asked.zone, loop.store.clock.event())
            found.append(Standing(name, asked.cron + zone, following, waits, last))
        else:
            found.append(Standing(name, f"new data in {asked.source or 'any source'}", None, waits, last))
    return found


def carry_out(loop: Loop, id_: str, on_event: Callable[[Event], None] | None = None) -> Firing:
    """Run what a firing asks for, and say on the record what came of it; a failure is its result.

    Raises:
        NotFound: The contract has no such schedule any more.
        Unavailable: Another process carries it out.
        Conflict: It has ended.
    """
    with leases.hold(loop.store, f"firing/{id_}", timeout_seconds=0):
        one = firing.get(loop.store, id_)
        asked = _schedule(loop, one.schedule)
        if one.state != RUNNING:
            return one
        try:
            made = cycle.turn(
                loop, targets=asked.targets or None, parameters=asked.parameters, cause=id_, on_event=on_event,
                manner=Manner(jobs=asked.jobs),
            )  # fmt: skip
        except InstarError as error:
            log.error("schedule %s failed: %s", one.schedule, error)
            return firing.finish(loop.store, id_, {"error": str(error)}, failed=True)
        proposals = [{"version": p.candidate.name, "outcome": p.outcome} for p in made.proposals]
        return firing.finish(loop.store, id_, {"ran": made.walk.ran(), "proposals": proposals}, pipe=made.walk.id)


def by_hand(loop: Loop, name: str) -> Firing:
    """Put a firing on the record that somebody asks for now; it is then to be carried out.

    Raises:
        NotFound: The contract has no such schedule.
    """
    asked, now = _schedule(loop, name), loop.store.clock.event()
    seen = seen_now(loop.store, loop.project.name, loop.pipeline, loop.project.root, asked)
    cause = f"{loop.store.actor.name} asked for it"
    key = f"by hand {loop.store.clock.wall().isoformat()}"
    one = firing.begin(loop.store, loop.project.name, name, key=key, cause=cause, due=now, seen={"seen": seen})
    assert one is not None
    return one


def seen_now(store: Store, project: str, pipeline: Pipeline, root: Path, asked: Schedule) -> dict[str, str]:
    """The state of the sources that a schedule on new data looks at, by name."""
    if not asked.on:
        return {}
    names = [asked.source] if asked.source else [step.name for step in pipeline.steps.values() if step.kind == "source"]
    found = {}
    for name in names:
        pattern = pipeline.step(name).options.get("path")
        if pattern:
            files = sorted(file for file in root.glob(pattern) if file.is_file())
            stats = [(file.relative_to(root).as_posix(), file.stat()) for file in files]
            found[name] = digest_of([[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats])
        else:
            version = tables.latest(store, project, name)
            found[name] = version.content if version else ""
    return found


def _arm(loop: Loop, name: str, asked: Schedule) -> None:
    seen = seen_now(loop.store, loop.project.name, loop.pipeline, loop.project.root, asked)
    firing.begin(
        loop.store, loop.project.name, name, key="armed", cause="seen for the first time", due=loop.store.clock.event(),
        state=ARMED, seen={"seen": seen},
    )  # fmt: skip


def _fire(loop: Loop, name: str, wanted: Due, launch: Launch) -> list[Firing]:
    one = firing.begin(
        loop.store, loop.project.name, name, key=wanted.key, cause=wanted.cause, due=wanted.moment,
        seen={"seen": wanted.seen},
    )  # fmt: skip
    if one is None:  # another controller was first
        return []
    log.info("schedule %s fires: %s", name, wanted.cause)
    launch.begin(one)
    return [one]


def _take_up(loop: Loop, one: Firing, launch: Launch) -> list[Firing]:
    """Begin a firing again whose process is gone."""
    if launch.lives(one.id) or leases.is_held(loop.store, f"firing/{one.id}"):
        return []
    if firing.get(loop.store, one.id).state != RUNNING:  # it ended just now
        return []
    if one.taken_up >= MOST_TIMES_TAKEN_UP:
        firing.finish(loop.store, one.id, {"error": f"its process died {one.taken_up + 1} times"}, failed=True)
        return []
    log.warning("the process of schedule %s died; it is begun again", one.schedule)
    again = firing.take_up(loop.store, one.id)
    launch.begin(again)
    return [again]


def _schedule(loop: Loop, name: str) -> Schedule:
    found = in_force(loop)
    if name not in found:
        raise NotFound(
            "the contract in effect has no such schedule",
            subject=f"schedule {name}",
            asked=", ".join(found) or f"a section [schedule.{name}]",
            next_step="After an edit of instar.toml: instar apply",
        )
    return found[name]


def _seen(one: Firing) -> dict[str, str]:
    seen: dict[str, str] = (one.result or {}).get("seen", {})
    return seen
