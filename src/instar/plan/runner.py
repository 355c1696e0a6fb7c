"""The runner: walks the pipeline and runs exactly the steps whose key is not known, when a user or an action asks for it.

    walk = execute(store, project, pipeline, kinds)     # kinds: the behaviour of each kind of step, by its name

Killed at any moment it leaves a state that the next walk repairs: an output without a good execution is made again, and
making it again changes nothing. A step that fails leaves nothing but the record that it failed. Two processes that run one
project's pipeline take turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from instar.core.errors import Conflict
from instar.core.store import Store
from instar.plan import leases, resuming, revisions
from instar.plan.crew import Manner
from instar.plan.events import Event, Tell, Walk, Walked
from instar.plan.executions import DONE, FAILED, Execution
from instar.plan.keys import Keys
from instar.plan.kinds import StepKind, Stored
from instar.plan.known import Known
from instar.plan.pipeline import Pipeline
from instar.plan.place import Bench
from instar.plan.project import Project
from instar.plan.records import Records, repair
from instar.plan.selection import choose
from instar.plan.walker import Walker
from instar.plan.why import Reason, StepStatus, status, why

__all__ = [
    "Event",
    "Execution",
    "Manner",
    "Reason",
    "StepKind",
    "StepStatus",
    "Stored",
    "Walk",
    "Walked",
    "execute",
    "repair",
    "status",
    "why",
]


def execute(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    kinds: Mapping[str, StepKind],
    targets: Iterable[str] | None = None,
    parameters: Mapping[str, object] | None = None,
    *,
    start: Iterable[str] = (),
    until: Iterable[str] = (),
    force: Iterable[str] = (),
    cause: str = "user",
    on_event: Tell | None = None,
    manner: Manner | None = None,
) -> Walk:
    """Walk the pipeline: run what changed, take the rest from the record.

    Args:
        store: Where records are kept.
        project: Whose pipeline; its contract takes effect.
        pipeline: The steps, as discovered.
        kinds: Behaviour by the step's kind.
        targets: Steps that are wanted, with what they need; None: all.
        parameters: Values by `"step.parameter"`, instead of the defaults.
        start: Walk only these steps and what depends on them; their inputs are read as they are.
        until: Walk only these steps and what they need.
        force: Steps to run even if their result is known.
        cause: Who wants it: `"user"`, or the id of an action or of a schedule's firing.
        on_event: Told what happens, while it happens.
        manner: How many at once, in which processes, what becomes of their output.

    Raises:
        StepFailed: A user's function raised; nothing of the step is kept.
        NotFound: A source that a step needs has no rows yet.
        InstarError: What a stage refused, e.g. CheckFailed.
    """
    wanted = None if targets is None else list(targets)
    forced = frozenset(force)
    selection = choose(pipeline, wanted, start=start, until=until, force=forced)
    keys = Keys(project, pipeline, parameters)
    tell = on_event or (lambda event: None)
    contract = revisions.record_contract(store, project)

    def on_wait(holder: leases.Holder) -> None:
        tell(Event("waiting", detail=f"{holder.actor} runs this pipeline in process {holder.pid}; waiting for its end"))

    with leases.hold(store, f"pipeline/{project.name}", on_wait=on_wait) as lease:
        repair(store, project.name)
        known = Known(store, project, pipeline, kinds, keys, selection.order, selection.taken)
        records = Records(store, project.name, lease, cause=cause, contract=contract, targets=wanted)
        records.begin(_resume(store, project.name, known, selection.order, tell))
        bench = Bench(store, project, pipeline, kinds)
        walker = Walker(bench, keys, known, records, selection.order, manner or Manner(), tell, forced)
        try:
            walker.walk()
        except BaseException:
            with contextlib.suppress(Conflict):  # the lease was lost: whoever has it now has closed this walk
                records.close(FAILED, list(walker.walked.values()))
            raise
        records.close(DONE, list(walker.walked.values()))
        return Walk(records.pipe, contract, tuple(walker.walked.values()), tuple(records.executions))


def _resume(store: Store, project: str, known: Known, order: Sequence[str], tell: Tell) -> str | None:
    """Say what the walk before left, if it did not reach its end; returns its id."""
    with store.database.read() as tx:
        found = resuming.broken_off(tx, project)
    if found is None:
        return None
    before, left = found
    now = {one.step: ingredients for one in left if (ingredients := known.ahead(one.step)) is not None}
    current = sum(known.is_current(name) for name in order)
    tell(Event("resuming", detail=resuming.told(before, left, now, order, current)))
    return before.id
