"""Finding and following what steps printed, asked on the command line and by the API."""

from __future__ import annotations

import time
from collections.abc import Iterator

import sqlalchemy as sa

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.plan import executions, output
from instar.plan.executions import RUNNING, Execution, execution

LOOK_SECONDS = 0.2


def find(store: Store, project: str, name: str) -> list[Execution]:
    """The execution of that id, or all executions of that step in the newest walk that attempted it, in order.

    Raises:
        NotFound: There is none.
    """
    with store.database.read() as tx:
        if name.startswith("exec_"):
            found = executions.get(tx, name)
            several = [found] if found is not None and found.project == project else []
        else:
            of = sa.and_(execution.c.project == project, execution.c.step == name)
            newest = sa.select(execution.c.pipe).where(of).order_by(execution.c.id.desc()).limit(1).scalar_subquery()
            query = sa.select(execution).where(of, execution.c.pipe == newest).order_by(execution.c.id)
            several = [Execution(**row._mapping) for row in tx.execute(query)]
    if not several:
        raise NotFound(
            "nothing of that name was executed",
            subject=f"{'execution' if name.startswith('exec_') else 'step'} {name}",
            next_step="See the steps with instar status; a step that never ran has printed nothing.",
        )
    return several


def follow(store: Store, one: Execution) -> Iterator[str]:
    """What an execution prints from its beginning on, while it does, until it has ended."""
    path = output.live_file(store, one.id)
    while not path.exists():
        now = _now(store, one)
        if now.state != RUNNING:
            yield output.read(store, one.id, now.log)
            return
        time.sleep(LOOK_SECONDS)
    with path.open(encoding="utf-8", errors="replace") as file:  # can be read to its end although its name goes first
        while True:
            running = path.exists() and _now(store, one).state == RUNNING
            text = file.read()
            if text:
                yield text
            elif not running:
                return
            else:
                time.sleep(LOOK_SECONDS)


def _now(store: Store, one: Execution) -> Execution:
    with store.database.read() as tx:
        return executions.get(tx, one.id) or one
