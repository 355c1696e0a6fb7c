"""Delivery of what lies in a spool, after its processes died or while they live; and the end of runs that went silent.

sync(root, lambda about: HttpSink("http://127.0.0.1:5000"))       # `instar runs sync`
sync(store.folder / "spool", lambda about: StoreSink(store))      # a server, for the processes on its machine
abandon_silent(store, "flights")
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa

from instar.core.errors import Damaged, InstarError
from instar.core.store import Store
from instar.train import intake, spool
from instar.train.delivery import Delivery, Sink
from instar.train.runs import RUNNING
from instar.train.spool import MAIN, About
from instar.train.spool_position import position_table
from instar.train.tracking_tables import run_table

# A process says every minute that it lives; this is many times that, for a machine that sleeps or a network that is cut.
SILENT_SECONDS = 900.0

DELIVERED, GROWING, BUSY, WAITING = "delivered", "growing", "busy", "waiting"


@dataclass(frozen=True)
class Synced:
    """What became of one run's spool.

    Attributes:
        state: `"delivered"`; `"growing"`: all so far is delivered, and its process lives; `"busy"`: another process
            delivers it right now; `"waiting"`: it could not be delivered, and why.
        sent: Records that were sent now.
    """

    run: str
    project: str
    state: str
    sent: int = 0
    why: str = ""


def sync(
    root: Path,
    find: Callable[[About], Sink | None],
    *,
    grace_seconds: float = spool.GRACE_SECONDS,
    again: bool = True,
) -> list[Synced]:
    """Deliver all spools of a folder, and remove those that were delivered longer ago than the grace.

    Args:
        find: Where a spool goes; None leaves it where it is. Whoever opened the sink closes it.
        again: Ask also after spools that were delivered before: the store may have been put back to a backup.
    """
    spool.sweep(root, grace_seconds)
    return [_one(folder, find) for folder in spool.runs(root) if again or not spool.is_delivered(folder)]


def _one(folder: Path, find: Callable[[About], Sink | None]) -> Synced:
    sent = 0
    try:
        about = spool.about(folder)
    except (OSError, msgspec.DecodeError) as error:
        return Synced(folder.name, "", WAITING, why=f"its about.json cannot be read: {error}")
    try:
        with spool.delivering(folder) as mine:
            if not mine:
                return Synced(about.run, about.project, BUSY, why="its own process delivers it")
            sink = find(about)
            if sink is None and spool.is_delivered(folder):
                return Synced(about.run, about.project, DELIVERED)
            if sink is None:
                return Synced(about.run, about.project, WAITING, why="no server is named for it: --url")
            _cut_tails(folder)
            going = Delivery(folder, sink, place=told(folder.parent))
            sent = going.turn()
            if not going.settled():
                return Synced(about.run, about.project, GROWING, sent)
            spool.mark_delivered(folder)
            return Synced(about.run, about.project, DELIVERED, sent)
    except (InstarError, OSError) as error:
        return Synced(about.run, about.project, WAITING, sent, str(error))


def _cut_tails(folder: Path) -> None:
    """What a dead process left of its last record was never said to be kept."""
    for writer in spool.writers(folder):
        if not spool.is_alive(folder, writer):
            with contextlib.suppress(Damaged):  # the delivery says so
                spool.cut_tail(folder, writer)


def told(root: Path) -> str:
    """Machine and folder of a spool, as the record says where a run's files lie."""
    return f"{socket.gethostname()}:{root}"


def abandon_silent(store: Store, project: str, *, silent_seconds: float = SILENT_SECONDS) -> list[str]:
    """Say of runs whose process is gone, or was not heard of for long, that they are abandoned; returns their ids.

    On the spool's own machine it is known at once whether the process lives; elsewhere silence must do. A run of which
    something is heard again goes on.
    """
    where, at = run_table.c, position_table.c
    query = (
        sa.select(where.id, at.heard, at.place)
        .join(position_table, (at.run == where.id) & (at.writer == MAIN))
        .where(where.project == project, where.state == RUNNING)
    )
    with store.database.read() as tx:
        running = tx.execute(query).all()
    long_ago = store.clock.wall() - timedelta(seconds=silent_seconds)
    found = []
    for run in running:
        alive = _lives(run.id, run.place)
        if alive is False:
            why = intake.DIED
        elif alive is None and run.heard < long_ago:
            why = f"nothing was heard of its process since {run.heard:%Y-%m-%d %H:%M} UTC"
        else:
            continue
        with contextlib.suppress(InstarError):  # deleted in this moment
            if intake.abandon(store, run.id, why):
                found.append(run.id)
    return found


def _lives(run: str, place: str) -> bool | None:
    """Does the process of a run live? None when it cannot be known here."""
    machine, _, folder = place.partition(":")
    file = Path(folder) / run
    if machine != socket.gethostname() or not folder or not (file / f"{MAIN}.frames").exists():
        return None
    return spool.is_alive(file, MAIN)
