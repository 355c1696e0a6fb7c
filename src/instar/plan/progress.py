"""How long a walk will still take, told while it runs, going by how long its steps took before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.plan.board import Board
from instar.plan.executions import DONE, execution

LOOKED_BACK = 5  # executions of a step whose median is taken


def durations(tx: Transaction, project: str, steps: Iterable[str]) -> dict[str, float]:
    """Seconds that each step took, the median of its newest executions that ended well; unknown steps are left out."""
    return _durations(tx, project, steps, execution.c.partition.is_(None))


def durations_of_parts(tx: Transaction, project: str, steps: Iterable[str]) -> dict[str, float]:
    """Seconds that one partition of each step took."""
    return _durations(tx, project, steps, execution.c.partition.isnot(None))


def _durations(tx: Transaction, project: str, steps: Iterable[str], which: sa.ColumnElement[bool]) -> dict[str, float]:
    found = {}
    for step in steps:
        own = sa.and_(execution.c.project == project, execution.c.step == step, execution.c.state == DONE, which)
        query = sa.select(execution.c.started, execution.c.ended).where(own)
        rows = tx.execute(query.order_by(execution.c.id.desc()).limit(LOOKED_BACK)).all()
        if rows:
            found[step] = median((row.ended - row.started).total_seconds() for row in rows)
    return found


def time_left(
    needs: Mapping[str, Iterable[str]], expected: Mapping[str, float], running: Mapping[str, float], jobs: int
) -> float | None:
    """Seconds until the last step ends, if each takes as long as before and at most `jobs` run at once.

    Args:
        needs: Steps that have not ended, in order, and which of these each one waits for.
        expected: Seconds that each takes.
        running: Seconds that those which run have taken so far.

    Returns:
        None when it is not known of one of them how long it takes.

    >>> time_left({"a": [], "b": [], "c": ["a"]}, {"a": 4, "b": 3, "c": 2}, {"a": 1}, jobs=2)
    5.0
    """
    if any(step not in expected for step in needs):
        return None
    board: Board[str] = Board(needs, jobs)
    now, ends = 0.0, dict[str, float]()
    while not board.finished():
        while (step := board.take()) is not None:
            ends[step] = now + max(0.0, expected[step] - running.get(step, 0.0))
        ended = min(ends, key=ends.__getitem__)
        now = ends.pop(ended)
        board.done(ended)
    return now
