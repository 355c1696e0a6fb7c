"""The controllers: what turns the loop by itself while a server is up, one process at a time for each project.

Every few seconds: take in the spools of runs that nobody delivered, seal closed segments of the prediction log, then look at
rollouts, monitors, alerts and policies. All of it follows the record, so another process may take over after a crash, and
nothing is decided twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from instar.core.errors import Conflict, InstarError
from instar.core.store import Store
from instar.plan import leases
from instar.serve.traffic import routing
from instar.train import spool, syncing
from instar.train.intake import StoreSink

if TYPE_CHECKING:
    from instar.operate.proposal import Loop
    from instar.operate.schedules import Launch
    from instar.plan.project import Project

log = logging.getLogger("instar.controllers")

EVERY_SECONDS = 10.0
LEASE_WAIT_SECONDS = 2.0  # between two looks whether the other controller still lives


def wait_for_work(
    store: Store, name: str, project: Project | None, stop: threading.Event, every_seconds: float = EVERY_SECONDS
) -> bool:
    """Take in what training processes leave, until there is more to do; False when `stop` is set first.

    What controls endpoints and schedules brings all stages into memory: a server that only tracks runs does without.

    Args:
        name: Of the project that the server works for.
        project: Its contract, if it has one.
    """
    while True:
        try:
            if routing.endpoints(store) or (project is not None and project.contract.schedule):
                return True
            take_in(store, name)
        except InstarError:
            log.exception("a look at project %s failed; the next one tries again", name)
        if stop.wait(every_seconds):
            return False


def run(loop: Loop, stop: threading.Event, every_seconds: float = EVERY_SECONDS, launch: Launch | None = None) -> None:
    """Turn until `stop` is set, under the project's lease for controllers.

    Args:
        launch: Begins what a schedule asks for, in a process of its own.

    An error ends one look, not the loop: it is logged, and the next look sees the same record.
    """
    name = f"controllers/{loop.project.name}"
    while not stop.is_set():
        try:
            with leases.hold(loop.store, name, timeout_seconds=LEASE_WAIT_SECONDS):
                while not stop.wait(every_seconds):
                    look(loop, launch)
        except InstarError as error:
            log.info("controllers of %s wait: %s", loop.project.name, error.what)


def look(loop: Loop, launch: Launch | None = None) -> None:
    """One look: take in what training processes left, seal, tick, then begin what is scheduled.

    What fails is logged, and holds up nothing that comes after it.
    """
    from instar.operate import cycle, schedules, upkeep

    _in_its_turn(loop, lambda: take_in(loop.store, loop.project.name))
    terms = upkeep.terms_of(loop.project.contract)
    _in_its_turn(loop, lambda: upkeep.look(loop.store, loop.project.name, terms))
    _in_its_turn(loop, lambda: cycle.tick(loop))
    if launch is not None:
        _in_its_turn(loop, lambda: schedules.look(loop, launch))


def _in_its_turn(loop: Loop, work: Callable[[], object]) -> None:
    try:
        work()
    except Conflict as error:
        log.info(
            "somebody else decided at the same time; the next look at %s sees it: %s", loop.project.name, error.what
        )
    except InstarError:
        log.exception("a look at project %s failed; the next one tries again", loop.project.name)


def take_in(store: Store, project: str) -> None:
    """Runs whose process died before it delivered all, on this machine; and those of which nothing is heard."""
    sink = StoreSink(store, close_model=_close_model)
    root = store.folder / spool.FOLDER
    for one in syncing.sync(root, lambda about: sink if about.url is None else None, again=False):
        if one.state == syncing.DELIVERED and one.sent:
            log.info("took in %d records of run %s, which its process left", one.sent, one.run)
    syncing.abandon_silent(store, project)


def _close_model(store: Store, model: str) -> None:
    from instar.release import packing

    packing.close(store, model)


def run_without_project(store: Store, name: str, stop: threading.Event, every_seconds: float = EVERY_SECONDS) -> None:
    """Where the store is used without a contract: take in runs, seal what endpoints log, keep routes, until `stop` is set."""
    from instar.operate import route_keeping, upkeep

    while not stop.wait(every_seconds):
        try:
            take_in(store, name)
            upkeep.look(store, name, {})
            route_keeping.look(store, name)
        except InstarError:
            log.exception("a look at the store failed; the next one tries again")
