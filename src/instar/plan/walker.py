"""One walk while it runs: decides of each step whether it has a known result, and has the others attempted.

What may begin is the board's to say, what is known `known`'s, who does it the crew's, and how it is written `records`'.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from instar.core.errors import Conflict, NotFound
from instar.plan import executions, fanout
from instar.plan.attempts import Work, first_line, named
from instar.plan.board import Board
from instar.plan.crew import Crew, Manner, Outcome, Running, Unit
from instar.plan.events import Event, Tell, Walked
from instar.plan.executions import ABANDONED, DONE, FAILED, Execution
from instar.plan.keys import Ingredients, Keys
from instar.plan.kinds import Partitions, Recalls, StepKind, Stored
from instar.plan.known import Known, runs
from instar.plan.pipeline import Step
from instar.plan.place import Bench
from instar.plan.records import Records
from instar.plan.terms import spoken
from instar.plan.timing import Timing
from instar.plan.why import FORCED, NO_OUTPUT, Reason, differences

INPUT_RACES = 5  # how often an input may change under our hands before we give up
LOOK_SECONDS = 1.0  # longest wait before looking at the clock again


@dataclass
class Split:
    """A step that runs by partitions: what its own key is made of, and the parts there are so far."""

    ingredients: Ingredients
    key: str
    contents: Mapping[str, Mapping[str, str]]
    parts: dict[str, Stored] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)


class Walker:
    """The state of one walk.

    Attributes:
        walked: What became of each step so far, in the order in which that was settled.
    """

    def __init__(
        self,
        bench: Bench,
        keys: Keys,
        known: Known,
        records: Records,
        order: Sequence[str],
        manner: Manner,
        tell: Tell,
        force: frozenset[str] = frozenset(),
    ) -> None:
        self._bench, self._keys, self._known, self._records = bench, keys, known, records
        self._keep_going, self._tell, self._force = manner.keep_going, tell, force
        self._clock, self._steps = bench.store.clock, bench.pipeline.steps
        self._number = {name: number for number, name in enumerate(order, 1)}
        needs = {
            Unit(name): [Unit(item.name) for item in self._steps[name].inputs if item.name in self._number]
            for name in order
        }
        self._board: Board[Unit] = Board(needs, manner.jobs, manner.keep_going)
        self._crew = Crew(bench, manner, records.confirm, self._pass_on)
        self._timing = Timing(bench.store, bench.project.name, bench.pipeline, order, known, force, manner.jobs)
        self._tried: dict[Unit, int] = {}
        self._races: dict[Unit, int] = {}
        self._due: dict[Unit, float] = {}  # when a unit that rests is tried again
        self._splits: dict[str, Split] = {}
        self._begun: dict[str, float] = {}
        self._attempted: dict[str, Unit] = {}  # by execution
        self._errors: list[Exception] = []
        self.walked: dict[str, Walked] = {}

    def walk(self) -> None:
        """Walk to the end.

        Raises:
            InstarError: The first thing that failed; what ended well is kept, and what still ran has ended.
        """
        try:
            while not self._board.finished():
                unit = self._board.take()
                if unit is not None:
                    self._begin(unit)
                else:
                    self._wait()
        except BaseException as error:
            for outcome in self._crew.break_off(error):
                self._write(outcome)
                if outcome.error is not None:
                    self._event("failed", outcome.running.unit, detail=first_line(error))
            raise
        finally:
            self._crew.close()
        if self._errors:
            raise self._errors[0]

    # Deciding.

    def _begin(self, unit: Unit) -> None:
        self._begun.setdefault(unit.step, self._clock.monotonic())
        step = self._steps[unit.step]
        try:
            if unit.partition is not None or unit.step in self._splits:
                self._attempt(unit, step)
            else:
                self._decide(unit, step)
        except Conflict:
            raise
        except Exception as error:
            if unit not in self._board.running:
                raise
            self._give_up(unit, error)

    def _decide(self, unit: Unit, step: Step) -> None:
        """Take the step's result from the record, or attempt it."""
        if not runs(step):
            self._settle(unit, self._landed(step))
            return
        kind = self._bench.kinds[step.kind]
        ingredients = self._known.ingredients(step, anew=bool(self._attempted))
        result = None if step.name in self._force else self._result(step, kind, ingredients)
        if result is not None:
            self._settle(unit, result)
        elif step.by and isinstance(kind, Partitions):
            self._split(unit, step, kind, ingredients)
        else:
            self._attempt(unit, step)

    def _landed(self, step: Step) -> Walked:
        digest = self._known.current.get(step.name)
        if digest is None:
            raise NotFound(
                "nothing has landed in it yet",
                subject=f"table {step.name}",
                found="no version",
                asked="at least one",
                next_step=f"Land a file with: instar ingest {step.name} FILE",
            )
        return Walked(step.name, step.kind, "landed", None, None, digest)

    def _result(self, step: Step, kind: StepKind, ingredients: Ingredients) -> Walked | None:
        """A result with this very key, if its record is still there; going back to it makes it current again."""
        done = self._known.results(step, self._known.key(step, ingredients))
        for past in done:
            if past.digest == self._known.current.get(step.name):
                return Walked(step.name, step.kind, "cached", past.id, past.ref, past.digest)
        if done and isinstance(kind, Recalls):
            for past in done:
                recalled = kind.recall(self._bench.project, step, past.ref)
                if recalled is not None:
                    return Walked(step.name, step.kind, "cached", past.id, recalled.ref, recalled.digest)
        return None

    def _split(self, unit: Unit, step: Step, kind: Partitions, ingredients: Ingredients) -> None:
        """Begin the partitions that are new or changed; the parts of the others are there."""
        found = fanout.partitions(self._bench.project, self._bench.pipeline, self._bench.kinds, step)
        split = self._splits[step.name] = Split(ingredients, self._known.key(step, ingredients), found)
        wanted = {name: fanout.of_partition(ingredients, name, of).key() for name, of in found.items()}
        if step.name not in self._force:
            with self._bench.store.database.read() as tx:
                past = executions.results(tx, self._bench.project.name, wanted.values(), steps=[step.name])
            for name, key in wanted.items():
                parts = (Stored(one.ref, one.digest) for one in past.get(key, []))
                part = next((one for one in parts if kind.has_part(self._bench.project, step, name, one)), None)
                if part is not None:
                    split.parts[name] = part
        missing = [name for name in found if name not in split.parts]
        if missing:
            self._timing.parts(step.name, len(missing))
            self._board.split(unit, [Unit(step.name, name) for name in missing])
        else:
            self._attempt(unit, step)

    def _attempt(self, unit: Unit, step: Step) -> None:
        """Begin the next attempt of a unit."""
        self._crew.prove(step)
        split = self._splits.get(step.name)
        if unit.partition is not None:
            assert split is not None
            ingredients = fanout.of_partition(split.ingredients, unit.partition, split.contents[unit.partition])
            key = ingredients.key()
        elif split is not None:
            ingredients, key = split.ingredients, split.key
        else:
            ingredients = self._known.ingredients(step, anew=bool(self._attempted))
            key = self._known.key(step, ingredients)
        number = self._tried[unit] = self._tried.get(unit, 0) + 1
        plain = ingredients.plain()
        execution = self._records.start(
            step.name, step.kind, key, plain, self._reasons(unit, plain), attempt=number, partition=unit.partition
        )
        self._attempted[execution.id] = unit
        self._started(unit, execution)
        files = self._keys.files(step) if step.kind == "source" else ()
        parts = split.parts if split is not None and unit.partition is None else None
        work = Work(execution, step, self._keys.parameters(step), dict(ingredients.inputs), files, parts)
        outcome = self._crew.begin(unit, work)
        if outcome is not None:
            self._ended(outcome)

    def _reasons(self, unit: Unit, plain: Mapping[str, object]) -> list[dict[str, object]]:
        if unit.partition is not None:
            return [msgspec.to_builtins(Reason("partition", unit.partition))]
        good = self._known.good(unit.step)
        found = differences(good.ingredients if good else None, plain)
        found = found or [Reason(FORCED if unit.step in self._force else NO_OUTPUT)]
        return [msgspec.to_builtins(one) for one in found]

    # Waiting.

    def _wait(self) -> None:
        """Until an attempt ends, or one is due again."""
        self._records.flush()
        now = self._clock.monotonic()
        seconds = min([LOOK_SECONDS, *(due - now for due in self._due.values())])
        if seconds > 0 and self._crew.running:
            for outcome in self._crew.hear(seconds):
                self._ended(outcome)
        elif seconds > 0:
            time.sleep(seconds)
        now = self._clock.monotonic()
        for unit in [unit for unit, due in self._due.items() if due <= now]:
            del self._due[unit]
            self._board.wake(unit)

    # Ending.

    def _ended(self, outcome: Outcome) -> None:
        unit, error = outcome.running.unit, outcome.error
        seconds = self._clock.monotonic() - outcome.running.began
        execution = self._write(outcome)
        if error is not None and not isinstance(error, Exception):  # somebody interrupts us
            self._event("failed", unit, seconds, first_line(error), execution.id)
            self._note(unit, FAILED, execution.id, seconds)
            raise error
        if error is not None:
            self._failed(outcome.running, error)
        elif outcome.stored is None:
            self._raced(unit)
        elif unit.partition is not None:
            split = self._splits[unit.step]
            split.parts[unit.partition] = outcome.stored
            split.ran.append(unit.partition)
            self._event("done", unit, seconds, execution=execution.id)
            self._board.done(unit)
        else:
            kept, split_ = outcome.stored, self._splits.get(unit.step)
            ran = tuple(sorted(split_.ran)) if split_ else ()
            kind = self._steps[unit.step].kind
            self._settle(unit, Walked(unit.step, kind, DONE, execution.id, kept.ref, kept.digest, partitions=ran))

    def _write(self, outcome: Outcome) -> Execution:
        """Put an attempt's end on the record; with one job, together with what is written next."""
        begun, log = outcome.running.execution, outcome.log
        if outcome.stored is not None:
            later = not self._crew.running
            return self._records.end(begun, DONE, stored=outcome.stored, log=log, later=later)
        state, error = ABANDONED, "an input changed before it was read"
        if outcome.error is not None:
            state, error = FAILED, first_line(outcome.error)
        with contextlib.suppress(Conflict):  # the lease was lost: whoever has it now has closed this execution
            return self._records.end(begun, state, error=error, log=log)
        return begun

    def _raced(self, unit: Unit) -> None:
        self._tried[unit] -= 1
        self._races[unit] = self._races.get(unit, 0) + 1
        step = self._steps[unit.step]
        if unit.partition is not None or self._races[unit] >= INPUT_RACES:
            raised = Conflict(
                "its inputs changed each time it began" if unit.partition is None else "it changed before it was read",
                subject=named(step, unit.partition),
                found=f"{self._races[unit]} changes",
                next_step="Run it again when nothing lands in its inputs.",
            )
            self._give_up(unit, raised)
            return
        self._known.refresh(step)
        self._board.rest(unit)
        self._board.wake(unit)

    def _failed(self, running: Running, error: Exception) -> None:
        """Try again later, or give up."""
        unit, terms, number = running.unit, running.work.step.terms, self._tried[running.unit]
        if not terms.again(number, error) or (self._errors and not self._keep_going):
            self._give_up(unit, error, running.execution.id)
            return
        seconds = terms.wait_seconds(number)
        self._board.rest(unit)
        self._due[unit] = self._clock.monotonic() + seconds
        detail = f"attempt {number} failed: {first_line(error)}; attempt {number + 1} in {spoken(seconds)}"
        self._event("retrying", unit, detail=detail, execution=running.execution.id)

    def _give_up(self, unit: Unit, error: Exception, execution: str | None = None) -> None:
        """A unit failed for good, and all that waits for it is out of reach."""
        seconds = self._clock.monotonic() - self._begun[unit.step]
        self._errors.append(error)
        lost = self._board.fail(unit)
        self._event("failed", unit, seconds, first_line(error), execution)
        self._note(unit, FAILED, execution, seconds)
        for one in lost:
            if one.step != unit.step:
                self._note(one, "skipped")
                if self._keep_going:
                    self._event("skipped", one, detail=f"{unit.step} failed")

    def _settle(self, unit: Unit, walked: Walked) -> None:
        seconds = self._clock.monotonic() - self._begun[unit.step]
        self.walked[unit.step] = replace(walked, seconds=round(seconds, 6))
        self._known.current[unit.step] = walked.digest
        self._board.done(unit)
        self._timing.settled(unit.step)
        self._event(walked.state, unit, seconds, execution=walked.execution)

    def _note(self, unit: Unit, state: str, execution: str | None = None, seconds: float = 0.0) -> None:
        kind = self._steps[unit.step].kind
        self.walked[unit.step] = Walked(unit.step, kind, state, execution, None, "", round(seconds, 6))

    # Telling.

    def _started(self, unit: Unit, execution: Execution) -> None:
        detail, split = "; ".join(Reason(**one).text for one in execution.reasons[:3]), self._splits.get(unit.step)
        if unit.partition is not None:
            detail = f"{self._steps[unit.step].by} {unit.partition or '(none)'}"
        elif split is not None:
            detail = f"joining {len(split.parts)} partitions, of which {len(split.ran)} ran"
        if execution.attempt > 1:
            detail += f" (attempt {execution.attempt})"
        self._timing.started(unit.step, self._clock.monotonic())
        self._event("started", unit, detail=detail, execution=execution.id)

    def _event(
        self, state: str, unit: Unit, seconds: float = 0.0, detail: str = "", execution: str | None = None
    ) -> None:
        left = self._timing.left(self._clock.monotonic()) if state in ("started", "done") else None
        place = (unit.step, self._number[unit.step], len(self._number))
        self._tell(Event(state, *place, seconds, detail, unit.partition, left, execution))

    def _pass_on(self, execution: str, line: str) -> None:
        unit = self._attempted.get(execution)
        if unit is not None:
            self._event("output", unit, detail=line, execution=execution)
