"""The runner: walks the pipeline and runs exactly the steps whose key is not known, when a user or an action asks for it.

    walk = execute(store, project, pipeline, kinds)     # kinds: the behaviour of each kind of step, by its name

Killed at any moment it leaves a state that the next walk repairs: an output without a good execution is made again, and
making it again changes nothing. A step that fails leaves nothing but the record that it failed. Two processes that run one
project's pipeline take turns.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from instar.core import journal, lineage
from instar.core.database import Transaction
from instar.core.errors import Conflict, InstarError, NotFound, StepFailed
from instar.core.ids import new_id
from instar.core.store import Store
from instar.plan import executions, leases, revisions
from instar.plan.executions import ABANDONED, DONE, FAILED, RUNNING, Execution, execution, pipeline_run
from instar.plan.keys import Ingredients, Keys
from instar.plan.kinds import Recalls, StepKind, Stored
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Project
from instar.plan.why import FORCED, NO_OUTPUT, Reason, StepStatus, differences, status, why

INPUT_RACES = 5  # how often an input may change under our hands before we give up

__all__ = [
    "Event",
    "Execution",
    "Reason",
    "StepKind",
    "StepStatus",
    "Stored",
    "Walk",
    "Walked",
    "execute",
    "status",
    "why",
]


@dataclass(frozen=True)
class Event:
    """Something to show while the pipeline runs.

    Attributes:
        state: `"waiting"` (another process runs the pipeline), `"started"`, `"done"`, `"cached"`, `"landed"` or `"failed"`.
        step: The step.
        number, total: The step's place in the walk, from 1.
        seconds: How long it took.
        detail: A line for people.
    """

    state: str
    step: str = ""
    number: int = 0
    total: int = 0
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Walked:
    """What a walk did with one step: `"done"` (it ran), `"cached"` (a known result is current) or `"landed"` (a source)."""

    step: str
    kind: str
    state: str
    execution: str | None
    ref: str | None
    digest: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Walk:
    """One walk of the pipeline that reached its end."""

    id: str
    contract: str
    steps: tuple[Walked, ...] = ()
    executions: tuple[Execution, ...] = field(default=(), repr=False)

    def ran(self) -> list[str]:
        """Names of the steps that were run, in order."""
        return [one.step for one in self.steps if one.state == DONE]

    def step(self, name: str) -> Walked:
        """What was done with the step of that name."""
        return next(one for one in self.steps if one.step == name)


def execute(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    kinds: Mapping[str, StepKind],
    targets: Iterable[str] | None = None,
    parameters: Mapping[str, object] | None = None,
    *,
    cause: str = "user",
    on_event: Callable[[Event], None] | None = None,
    force: Iterable[str] = (),
) -> Walk:
    """Walk the pipeline: run what changed, take the rest from the record.

    Args:
        store: Where records are kept.
        project: Whose pipeline; its contract takes effect.
        pipeline: The steps, as discovered.
        kinds: Behaviour by the step's kind.
        targets: Steps that are wanted, with what they need; None: all.
        parameters: Values by `"step.parameter"`, instead of the defaults.
        cause: Who wants it: `"user"`, or the id of an action.
        on_event: Told what happens, while it happens.
        force: Steps to run even if their result is known.

    Raises:
        StepFailed: A user's function raised; nothing of the step is kept.
        NotFound: A source that a step needs has no rows yet.
        InstarError: What a stage refused, e.g. CheckFailed.
    """
    keys = Keys(project, pipeline, parameters)
    wanted = None if targets is None else list(targets)
    order = pipeline.order(wanted)
    tell = on_event or (lambda event: None)
    contract = revisions.record_contract(store, project)

    def on_wait(holder: leases.Holder) -> None:
        tell(Event("waiting", detail=f"{holder.actor} runs this pipeline in process {holder.pid}; waiting for its end"))

    with leases.hold(store, f"pipeline/{project.name}", on_wait=on_wait) as lease:
        repair(store, project.name)
        walk = _Walker(store, project, pipeline, kinds, keys, lease, cause, contract, tell, frozenset(force))
        return walk.walk(order, wanted)


def repair(store: Store, project: str) -> int:
    """Mark executions whose process died; to be called while the project's lease is held. Returns how many."""
    now = store.clock.wall()

    def work(tx: Transaction) -> int:
        dead = sa.and_(execution.c.project == project, execution.c.state == RUNNING)
        count = tx.execute(execution.update().where(dead).values(state=ABANDONED, ended=now)).rowcount
        walks = sa.and_(pipeline_run.c.project == project, pipeline_run.c.state == RUNNING)
        tx.execute(pipeline_run.update().where(walks).values(state=ABANDONED, ended=now))
        return count

    return store.database.write(work)


class _Walker:
    """The state of one walk."""

    def __init__(
        self,
        store: Store,
        project: Project,
        pipeline: Pipeline,
        kinds: Mapping[str, StepKind],
        keys: Keys,
        lease: leases.Lease,
        cause: str,
        contract: str,
        tell: Callable[[Event], None],
        force: frozenset[str],
    ) -> None:
        self._store, self._project, self._pipeline, self._kinds = store, project, pipeline, kinds
        self._keys, self._lease, self._cause, self._contract = keys, lease, cause, contract
        self._tell, self._force = tell, force
        self._id = new_id("pipe")
        self._place = ("", 0, 0)
        self._walked: dict[str, Walked] = {}
        self._executions: list[Execution] = []

    def walk(self, order: list[str], targets: list[str] | None) -> Walk:
        self._begin(targets)
        try:
            for number, name in enumerate(order, 1):
                started = self._store.clock.monotonic()
                step = self._pipeline.steps[name]
                self._place = (name, number, len(order))
                try:
                    walked = self._step(step)
                except BaseException as error:
                    seconds = self._store.clock.monotonic() - started
                    self._tell(Event("failed", *self._place, seconds, _first_line(error)))
                    raise
                seconds = self._store.clock.monotonic() - started
                self._walked[name] = Walked(**{**asdict(walked), "seconds": round(seconds, 6)})
                self._tell(Event(walked.state, *self._place, seconds))
        except BaseException:
            with contextlib.suppress(Conflict):  # the lease was lost: whoever has it now has closed this walk
                self._end(FAILED)
            raise
        self._end(DONE)
        return Walk(self._id, self._contract, tuple(self._walked.values()), tuple(self._executions))

    def _step(self, step: Step) -> Walked:
        kind = self._kinds[step.kind]
        if step.kind == "source" and not step.options.get("path"):
            return self._landed(step, kind)
        for _ in range(INPUT_RACES):
            ingredients = self._keys.ingredients(step, self._input_digests(step))
            known = None if step.name in self._force else self._known(step, kind, ingredients)
            if known is not None:
                return known
            walked = self._attempt(step, kind, ingredients)
            if walked is not None:
                return walked
        raise Conflict(
            "its inputs changed each time it began",
            subject=f"step {step.name}",
            found=f"{INPUT_RACES} changes",
            next_step="Run it again when nothing lands in its inputs.",
        )

    def _landed(self, step: Step, kind: StepKind) -> Walked:
        digest = kind.digest(self._project, step.name)
        if digest is None:
            raise NotFound(
                "nothing has landed in it yet",
                subject=f"table {step.name}",
                found="no version",
                asked="at least one",
                next_step=f"Land a file with: instar ingest {step.name} FILE",
            )
        return Walked(step.name, step.kind, "landed", None, None, digest)

    def _input_digests(self, step: Step) -> dict[str, str]:
        """Contents that are current now; a source may have grown since its turn."""
        found = {}
        for item in step.inputs:
            maker = self._pipeline.steps[item.name]
            digest = self._kinds[maker.kind].digest(self._project, item.name)
            if digest is None:
                raise NotFound("it has no output", subject=f"step {item.name}", next_step="Run the step again.")
            found[item.name] = digest
        return found

    def _known(self, step: Step, kind: StepKind, ingredients: Ingredients) -> Walked | None:
        """A result with this very key, if its record is still there; going back to it makes it current again."""
        with self._store.database.read() as tx:
            done = executions.done_with_key(tx, self._project.name, step.name, ingredients.key())
        current = kind.digest(self._project, step.name)
        for past in done:
            if past.digest == current:
                return Walked(step.name, step.kind, "cached", past.id, past.ref, str(past.digest))
        if isinstance(kind, Recalls):
            for past in done:
                recalled = kind.recall(self._project, step, str(past.ref))
                if recalled is not None:
                    return Walked(step.name, step.kind, "cached", past.id, recalled.ref, recalled.digest)
        return None

    def _attempt(self, step: Step, kind: StepKind, ingredients: Ingredients) -> Walked | None:
        """Run the step once; None when an input changed between its key and its reading."""
        inputs: dict[str, object] = {}
        for item in step.inputs:
            inputs[item.name] = self._kinds[self._pipeline.steps[item.name].kind].load(self._project, item, step)
        if self._input_digests(step) != ingredients.inputs:
            return None
        if step.kind == "source":
            inputs["files"] = self._keys.files(step)
        attempt = self._record_start(step, ingredients)
        detail = "; ".join(Reason(**one).text for one in attempt.reasons[:3])
        self._tell(Event("started", *self._place, detail=detail))
        try:
            output = self._call(step, kind, attempt, inputs)
            with self._store.database.read() as tx:
                leases.confirm(tx, self._lease)
            stored = kind.store(self._project, attempt, step, output)
            self._executions.append(self._record_end(attempt, DONE, stored=stored))
        except BaseException as error:
            with contextlib.suppress(Conflict):
                self._record_end(attempt, FAILED, error=_first_line(error))
            raise
        return Walked(step.name, step.kind, DONE, attempt.id, stored.ref, stored.digest)

    def _call(self, step: Step, kind: StepKind, attempt: Execution, inputs: Mapping[str, object]) -> object:
        try:
            return kind.run(self._project, attempt, step, inputs, self._keys.parameters(step))
        except InstarError:
            raise
        except Exception as error:
            raise StepFailed(
                f"its function raised {type(error).__name__}: {error}",
                subject=f"step {step.name}{self._line_of(error)}",
                next_step="Correct the function and run again; nothing of this attempt was kept.",
            ) from error

    def _line_of(self, error: BaseException) -> str:
        """File and line of the project where it went wrong."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in self._pipeline.sources:
                return f" at {frame.filename.removeprefix(str(self._project.root)).lstrip('/')}:{frame.lineno}"
        return ""

    # Records.

    def _begin(self, targets: list[str] | None) -> None:
        values = {
            "id": self._id,
            "project": self._project.name,
            "state": RUNNING,
            "cause": self._cause,
            "actor": self._store.actor.name,
            "contract": self._contract,
            "targets": targets,
            "steps": [],
            "event_at": self._store.clock.event(),
            "started": self._store.clock.wall(),
        }
        self._store.database.write(lambda tx: tx.execute(pipeline_run.insert().values(**values)))

    def _end(self, state: str) -> None:
        steps = [asdict(one) for one in self._walked.values()]
        ran = [one.step for one in self._walked.values() if one.state == DONE]
        ended = self._store.clock.wall()

        def work(tx: Transaction) -> None:
            leases.confirm(tx, self._lease)
            own = pipeline_run.update().where(pipeline_run.c.id == self._id)
            tx.execute(own.values(state=state, steps=steps, ended=ended))
            if ran or state == FAILED:  # a walk that found all as it was changed nothing
                body = {
                    "state": state,
                    "cause": self._cause,
                    "contract": self._contract,
                    "ran": ran,
                    "executions": [one.id for one in self._executions],
                }
                journal.append(
                    tx, self._store.clock, self._store.actor, self._project.name, "pipeline run", self._id, body
                )

        self._store.database.write(work, durable=bool(ran) or state == FAILED)

    def _record_start(self, step: Step, ingredients: Ingredients) -> Execution:
        with self._store.database.read() as tx:
            good = executions.last(tx, self._project.name, step.name, DONE)
        plain = ingredients.plain()
        reasons = differences(good.ingredients if good else None, plain)
        reasons = reasons or [Reason(FORCED if step.name in self._force else NO_OUTPUT)]
        attempt = Execution(
            id=new_id("exec"),
            project=self._project.name,
            pipe=self._id,
            step=step.name,
            kind=step.kind,
            key=ingredients.key(),
            state=RUNNING,
            cause=self._cause,
            actor=self._store.actor.name,
            event_at=self._store.clock.event(),
            started=self._store.clock.wall(),
            ingredients=plain,
            reasons=[asdict(one) for one in reasons],
            parameters=dict(ingredients.parameters),
        )
        self._store.database.write(lambda tx: tx.execute(execution.insert().values(**_values(attempt))))
        return attempt

    def _record_end(
        self, attempt: Execution, state: str, *, stored: Stored | None = None, error: str | None = None
    ) -> Execution:
        changes: dict[str, Any] = {"state": state, "ended": self._store.clock.wall(), "error": error}
        if stored is not None:
            changes |= {"ref": stored.ref, "digest": stored.digest}

        def work(tx: Transaction) -> None:
            leases.confirm(tx, self._lease)
            tx.execute(execution.update().where(execution.c.id == attempt.id).values(**changes))
            if stored is not None:
                lineage.link(tx, self._project.name, attempt.id, "made", stored.ref)

        self._store.database.write(work)
        return Execution(**{**_values(attempt), **changes})


def _values(attempt: Execution) -> dict[str, Any]:
    return {column.name: getattr(attempt, column.name) for column in execution.columns}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
