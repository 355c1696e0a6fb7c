"""How long a walk will still take, told while it runs, going by how long its steps took before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.plan.board import Board
from instar.plan.executions import DONE, execution

LOOKED_BACK = 5  # executions whose median is taken


def duration_of_parts(tx: Transaction, project: str, step: str) -> float | None:
    """Seconds that one partition of a step took, the median of the newest; None when none was run."""
    own = (execution.c.project == project) & (execution.c.step == step) & (execution.c.state == DONE)
    query = sa.select(execution.c.started, execution.c.ended).where(own, execution.c.partition.isnot(None))
    rows = tx.execute(query.order_by(execution.c.id.desc()).limit(LOOKED_BACK)).all()
    return median((row.ended - row.started).total_seconds() for row in rows) if rows else None


def time_left(
    needs: Mapping[str, Iterable[str]], expected: Mapping[str, float], running: Mapping[str, float], jobs: int
) -> float:
    """Seconds until the last step ends, if each takes as long as before and at most `jobs` run at once. Pure.

    Args:
        needs: Steps that have not ended, in order, and which of these each one waits for.
        expected: Seconds that each takes.
        running: Seconds that those which run have taken so far.

    >>> time_left({"a": [], "b": [], "c": ["a"]}, {"a": 4, "b": 3, "c": 2}, {"a": 1}, jobs=2)
    5.0
    """
    board: Board[str] = Board(needs, jobs)
    now, ends = 0.0, dict[str, float]()
    while not board.finished():
        while (step := board.take()) is not None:
            ends[step] = now + max(0.0, expected[step] - running.get(step, 0.0))
        ended = min(ends, key=ends.__getitem__)
        now = ends.pop(ended)
        board.done(ended)
    return now
