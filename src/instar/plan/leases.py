"""Leases: one row that says who may work on something now, so that two processes which run one pipeline take turns.

A lease is free when nobody holds it, when its holder's process is dead, or, for a holder on another machine, when its
heartbeat is old. Each taking counts the fence up; decisions made under a lease confirm the fence in their transaction, so
that one who was thought dead, and wakes, can do no harm.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from instar.core import processes
from instar.core.database import Instant, Transaction, at_driver, metadata
from instar.core.errors import Conflict, InstarError, Unavailable
from instar.core.ids import new_id
from instar.core.store import Store

HEARTBEAT_SECONDS = 5.0
LOST_AFTER = timedelta(seconds=60)  # twelve heartbeats: a holder on another machine is then given up
POLL_SECONDS = 0.1

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("holder", sa.String(60)),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("host", sa.String(300), nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("born", sa.String(60), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("taken", Instant, nullable=False),
    sa.Column("heartbeat", Instant, nullable=False),
)


@dataclass(frozen=True)
class Lease:
    """A lease that is held: `fence` grows with each taking."""

    name: str
    holder: str
    fence: int


@dataclass(frozen=True)
class Holder:
    """Who has a lease that we wait for."""

    actor: str
    host: str
    pid: int


@contextmanager
def hold(
    store: Store, name: str, *, on_wait: Callable[[Holder], None] | None = None, timeout_seconds: float | None = None
) -> Iterator[Lease]:
    """Wait until the lease is free, and hold it for the body of the `with`.

    Args:
        store: Where the row is.
        name: What is leased, e.g. `"pipeline/flights"`.
        on_wait: Called once with the present holder when there is one.
        timeout_seconds: Longest wait; None: for ever.

    Raises:
        Unavailable: Somebody else held it for longer than `timeout_seconds`.
    """
    taken = _wait(store, name, on_wait, timeout_seconds)
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(store, taken, stop), name=f"lease {name}", daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()
        free = lease.update().where(lease.c.name == name, lease.c.fence == taken.fence).values(holder=None)
        store.database.write(lambda tx: tx.execute(free))


def is_held(store: Store, name: str) -> bool:
    """Does somebody who lives hold the lease?"""
    with store.database.read() as tx:
        row = tx.execute(sa.select(lease).where(lease.c.name == name)).first()
    return row is not None and not _is_free(store, row)


def confirm(tx: Transaction, held: Lease) -> None:
    """Prove within a transaction that the lease is still ours.

    Raises:
        Conflict: Somebody else took it.
    """
    # Asked with every write of a walk, so at driver level.
    lock = "" if tx.dialect.name == "sqlite" else " FOR UPDATE"
    found = at_driver(tx, "SELECT fence, holder FROM lease WHERE name = ?" + lock, (held.name,)).rows
    row = found[0] if found else None
    if row != (held.fence, held.holder):
        raise Conflict(
            "another process took the lease over; what this one was doing is not recorded",
            subject=f"lease {held.name}",
            found=f"fence {row[0]}" if row else "no lease",
            asked=f"fence {held.fence}",
            next_step="Run the command again.",
        )


def _wait(store: Store, name: str, on_wait: Callable[[Holder], None] | None, timeout_seconds: float | None) -> Lease:
    started, told = store.clock.monotonic(), False
    while True:
        got = _try(store, name)
        if isinstance(got, Lease):
            return got
        if on_wait is not None and not told:
            on_wait(got)
            told = True
        if timeout_seconds is not None and store.clock.monotonic() - started > timeout_seconds:
            raise Unavailable(
                f"{got.actor} holds it in process {got.pid} on {got.host}",
                subject=f"lease {name}",
                found=f"held for more than {timeout_seconds:g} s",
                next_step="Wait for that command to end, or end it.",
            )
        time.sleep(POLL_SECONDS)


def _try(store: Store, name: str) -> Lease | Holder:
    with store.database.read() as tx:  # waiting must not take writers' turns
        row = tx.execute(sa.select(lease).where(lease.c.name == name)).first()
    if row is not None and not _is_free(store, row):
        return Holder(row.actor, row.host, row.pid)
    holder = new_id("hold")

    def work(tx: Transaction) -> Lease | Holder:
        row = tx.execute(sa.select(lease).where(lease.c.name == name).with_for_update()).first()
        if row is not None and not _is_free(store, row):
            return Holder(row.actor, row.host, row.pid)
        now = store.clock.wall()
        values: dict[str, Any] = {
            "holder": holder,
            "fence": row.fence + 1 if row else 1,
            "host": processes.host(),
            "pid": os.getpid(),
            "born": processes.born(os.getpid()),
            "actor": store.actor.name,
            "taken": now,
            "heartbeat": now,
        }
        if row is None:
            tx.execute(lease.insert().values(name=name, **values))
        else:
            tx.execute(lease.update().where(lease.c.name == name).values(**values))
        return Lease(name, holder, values["fence"])

    return store.database.write(work)


def _is_free(store: Store, row: sa.Row[Any]) -> bool:
    if row.holder is None:
        return True
    if row.host == processes.host():
        return bool(processes.born(row.pid) != row.born)  # dead, or its number was given to another process
    silent: timedelta = store.clock.wall() - row.heartbeat
    return silent > LOST_AFTER


def _beat(store: Store, held: Lease, stop: threading.Event) -> None:
    mine = lease.update().where(lease.c.name == held.name, lease.c.fence == held.fence)
    while not stop.wait(HEARTBEAT_SECONDS):
        try:
            store.database.write(lambda tx: tx.execute(mine.values(heartbeat=store.clock.wall())))
        except InstarError:  # a busy store: the next beat will do, and `confirm` guards the rest
            continue
