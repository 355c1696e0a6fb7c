"""What a walk goes on from when the one before did not reach its end: what failed there, and what changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instar.core.database import Transaction
from instar.plan import executions
from instar.plan.executions import ABANDONED, FAILED, Execution, PipelineRun
from instar.plan.keys import Ingredients
from instar.plan.why import differences

MOST_NAMED = 3  # failed steps and changes that are named; the others are counted


def broken_off(tx: Transaction, project: str) -> tuple[PipelineRun, list[Execution]] | None:
    """The last walk and its executions that did not end well, if it did not reach its end."""
    found = executions.pipeline_runs(tx, project, limit=1)
    if not found or found[0].state not in (FAILED, ABANDONED):
        return None
    left = {one.step: one for one in executions.of_walk(tx, found[0].id, (FAILED, ABANDONED))}
    return found[0], list(left.values())


def told(
    before: PipelineRun,
    left: Sequence[Execution],
    now: Mapping[str, Ingredients],
    order: Sequence[str],
    current: int,
) -> str:
    """One line on what is resumed.

    Args:
        before: The walk that was broken off.
        left: Its executions that did not end well, the last of each step.
        now: What the keys of steps are made of now, where that is known.
        order: Steps of the walk that resumes.
        current: How many steps are taken from the record.
    """
    words = [f"{current} step{'' if current == 1 else 's'} current"]
    for one in left[:MOST_NAMED]:
        how = f"{one.step} failed with: {one.error}" if one.state == FAILED else f"{one.step} was broken off"
        since = _since(one, now.get(one.step)) if one.step in order else "it is not among the steps of this run"
        words.append(f"{how.rstrip('.')}; {since}")
    if len(left) > MOST_NAMED:
        words.append(f"{len(left) - MOST_NAMED} more did not end well")
    return f"resuming {before.id}: " + ", ".join(words)


def _since(one: Execution, now: Ingredients | None) -> str:
    """What changed since an execution failed."""
    if now is None:
        return "an input of it comes first"
    changes = differences(one.ingredients, now.plain())
    if not changes:
        return "nothing of it changed since"
    more = f" and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
    return "since then " + ", ".join(change.text for change in changes[:MOST_NAMED]) + more
