"""Why a step runs, or would: names what changed since its last good execution, down to the helper or the constant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from instar.core.store import Store
from instar.plan import executions
from instar.plan.executions import Execution
from instar.plan.keys import Keys
from instar.plan.kinds import StepKind
from instar.plan.known import Known, runs
from instar.plan.pipeline import Pipeline
from instar.plan.project import Project

NEVER, NO_OUTPUT, UPSTREAM, FORCED = "never ran", "output", "upstream", "forced"
# Section of the ingredients, and how a change in it is spoken of.
_SECTIONS = {
    "parts": "code",
    "checks": "check",
    "distributions": "library",
    "inputs": "input",
    "partitions": "partition",
    "parameters": "parameter",
    "options": "option",
    "files": "file",
    "variables": "variable",
}


@dataclass(frozen=True)
class Reason:
    """One thing that changed.

    Attributes:
        what: `"code"`, `"check"`, `"library"`, `"python"`, `"input"`, `"parameter"`, `"option"`, `"file"`, `"variable"`,
            or `"never ran"`, `"output"` (it is gone, or another one is current), `"upstream"` (an input will run first).
        name: Which one, e.g. `"pipeline.LIMIT"`.
        before: Its digest or value then; None when it is new.
        after: Its digest or value now; None when it is gone.
    """

    what: str
    name: str = ""
    before: Any = None
    after: Any = None

    @property
    def text(self) -> str:
        """One clause for people."""
        if self.what == NEVER:
            return "it never ran to its end"
        if self.what == NO_OUTPUT:
            return "its output is gone, or another one is current"
        if self.what == FORCED:
            return "it was asked for by force"
        if self.what == UPSTREAM:
            return f"its input {self.name} will run first"
        if self.before is None:
            return f"{self.what} {self.name} is new"
        if self.after is None:
            return f"{self.what} {self.name} is gone"
        if isinstance(self.before, str) and self.before.startswith("b3:"):
            return f"{self.what} {self.name} changed"
        return f"{self.what} {self.name} changed from {self.before} to {self.after}"


@dataclass(frozen=True)
class StepStatus:
    """How a step stands.

    Attributes:
        step: Its name.
        kind: Its kind.
        state: `"current"`, `"stale"` (it would run), `"never"`, `"failed"`, `"running"`; a source that is fed from outside
            is `"landed"` or `"empty"`.
        reasons: Why it would run; for a current step, why it ran the last time.
        last: Its newest execution.
        digest: Content digest of the current output.
        unresolved: What of its code cannot be followed, and should be declared.
    """

    step: str
    kind: str
    state: str
    reasons: tuple[Reason, ...] = ()
    last: Execution | None = None
    digest: str | None = None
    unresolved: tuple[str, ...] = ()

    @property
    def would_run(self) -> bool:
        return self.state in ("stale", "never", "failed", "running")

    def record(self) -> dict[str, Any]:
        """As JSON values, without the long list of what its key is made of."""
        last = self.last
        return {
            "step": self.step,
            "kind": self.kind,
            "state": self.state,
            "reasons": [{**asdict(reason), "text": reason.text} for reason in self.reasons],
            "digest": self.digest,
            "last": None
            if last is None
            else {
                "execution": last.id,
                "state": last.state,
                "cause": last.cause,
                "actor": last.actor,
                "ref": last.ref,
                "started": last.started.isoformat(),
                "ended": last.ended.isoformat() if last.ended else None,
                "error": last.error,
            },
            "unresolved": list(self.unresolved),
        }


def why(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    kinds: Mapping[str, StepKind],
    step: str,
    parameters: Mapping[str, object] | None = None,
) -> StepStatus:
    """How one step stands, and why.

    Raises:
        UnknownTable: The pipeline has no such step.
    """
    pipeline.step(step)
    return survey(store, project, pipeline, kinds, pipeline.order([step]), parameters)[step]


def status(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    kinds: Mapping[str, StepKind],
    parameters: Mapping[str, object] | None = None,
) -> list[StepStatus]:
    """How all steps stand, in the order of the pipeline."""
    return list(survey(store, project, pipeline, kinds, pipeline.order(), parameters).values())


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Reason]:
    """What changed between the ingredients of two executions; `before` is None when there was none."""
    if before is None:
        return [Reason(NEVER)]
    found = []
    if before.get("python") != after["python"]:
        found.append(Reason("python", "version", before.get("python"), after["python"]))
    for section, what in _SECTIONS.items():
        old, new = before.get(section, {}), after.get(section, {})
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                found.append(Reason(what, name, old.get(name), new.get(name)))
    return found


def reasons_of(execution: Execution) -> tuple[Reason, ...]:
    """The reasons that were recorded with an execution."""
    return tuple(Reason(**one) for one in execution.reasons)


def survey(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    kinds: Mapping[str, StepKind],
    names: Sequence[str],
    parameters: Mapping[str, object] | None = None,
    *,
    taken: Sequence[str] = (),
    force: Iterable[str] = (),
) -> dict[str, StepStatus]:
    """How some steps stand, each after its inputs: what a walk of just these would do. Nothing is written.

    Args:
        taken: Inputs of these steps that would not be walked.
        force: Steps that would run although their result is known.
    """
    keys, forced = Keys(project, pipeline, parameters), set(force)
    known = Known(store, project, pipeline, kinds, keys, names, taken)
    last, good = known.newest(names), known.newest(names, executions.DONE)
    found: dict[str, StepStatus] = {}
    for name in names:
        step = pipeline.steps[name]
        current = known.current.get(name)
        if not runs(step):
            found[name] = StepStatus(name, step.kind, "landed" if current else "empty", digest=current)
            continue
        inputs = {item.name: known.current.get(item.name) or "" for item in step.inputs}
        now = known.ahead(name) or keys.ingredients(step, inputs)
        same = known.results(step, known.key(step, now))
        reasons = [Reason(UPSTREAM, item.name) for item in step.inputs if _runs_first(found.get(item.name))]
        if name in forced:
            reasons.append(Reason(FORCED))
        if not any(one.digest == current for one in same):
            before = good.get(name)
            reasons += differences(before.ingredients if before else None, now.plain()) or [Reason(NO_OUTPUT)]
        newest = last.get(name)
        state = "stale" if name in good else "never"
        if newest is not None and newest.state in (executions.FAILED, executions.RUNNING) and reasons:
            state = newest.state
        if not reasons:
            state = "current"
            made = next(one for one in same if one.digest == current)
            reasons = list(reasons_of(_record(store, good.get(name), made.id)))
        found[name] = StepStatus(name, step.kind, state, tuple(reasons), newest, current, now.unresolved)
    return found


def _runs_first(status: StepStatus | None) -> bool:
    return status is not None and status.would_run


def _record(store: Store, good: Execution | None, id_: str) -> Execution:
    if good is not None and good.id == id_:
        return good
    with store.database.read() as tx:
        found = executions.get(tx, id_)
    assert found is not None
    return found
