"""One attempt of a step, in whichever process it runs: read the inputs as the key says, call the function, keep the output."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instar.core.errors import InstarError, StepFailed
from instar.plan import fanout, importing, notebooks
from instar.plan.executions import Execution
from instar.plan.kinds import Partitions, StepKind, Stored
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Project


@dataclass(frozen=True)
class Work:
    """One attempt, as handed to the process that makes it.

    Attributes:
        execution: Its record.
        step: The step; for another process without its function, which is found there in the project's files.
        parameters: What the function is called with besides tables.
        inputs: Content that the inputs must have.
        files: Files of a source.
        parts: Parts to join, for a step that was run by partitions.
        log: Where its output goes; None: nowhere.
    """

    execution: Execution
    step: Step
    parameters: Mapping[str, object]
    inputs: Mapping[str, str]
    files: Sequence[Path] = ()
    parts: Mapping[str, Stored] | None = None
    log: Path | None = None


def attempt(
    project: Project,
    pipeline: Pipeline,
    kinds: Mapping[str, StepKind],
    work: Work,
    may_keep: Callable[[], None],
) -> Stored | None:
    """Run a step, or one partition of it, once.

    Args:
        may_keep: Called when the function has returned; raises when its output must not be kept any more.

    Returns:
        What was kept; None when an input changed between its key and its reading, and nothing was run.

    Raises:
        StepFailed: The function raised.
        InstarError: What a stage refused.
    """
    step, execution = work.step, work.execution
    kind = kinds[step.kind]
    if work.parts is not None:
        assert isinstance(kind, Partitions)
        may_keep()
        return kind.join(project, execution, step, work.parts)
    inputs: dict[str, object] = {}
    for item in step.inputs:
        maker = kinds[pipeline.steps[item.name].kind]
        if execution.partition is not None and pipeline.is_cut(step, item.name):
            assert isinstance(maker, Partitions)
            inputs[item.name] = maker.load_part(project, item, step, execution.partition)
        else:
            inputs[item.name] = maker.load(project, item, step)
    if contents(project, pipeline, kinds, step, execution.partition) != work.inputs:
        return None
    if step.kind == "source":
        inputs["files"] = list(work.files)
    try:
        output = kind.run(project, execution, step, inputs, work.parameters)
    except InstarError:
        raise
    except (Exception, SystemExit) as error:
        raise StepFailed(
            f"its function raised {type(error).__name__}: {error}",
            subject=f"{named(step, execution.partition)}{_line_of(error, project, pipeline)}",
            next_step="Correct the function and run again; nothing of this attempt was kept.",
        ) from error
    may_keep()
    if execution.partition is not None:
        assert isinstance(kind, Partitions)
        return kind.store_part(project, execution, step, output)
    return kind.store(project, execution, step, output)


def contents(
    project: Project, pipeline: Pipeline, kinds: Mapping[str, StepKind], step: Step, partition: str | None
) -> dict[str, str | None]:
    """Content of each input now: of the partition, where the step reads one of it, else of the whole."""
    found: dict[str, str | None] = {}
    for item in step.inputs:
        kind = kinds[pipeline.steps[item.name].kind]
        if partition is not None and pipeline.is_cut(step, item.name):
            assert isinstance(kind, Partitions)
            found[item.name] = kind.partitions(project, item.name).get(partition, fanout.NOTHING)
        else:
            found[item.name] = kind.digest(project, item.name)
    return found


def named(step: Step, partition: str | None) -> str:
    """The step, or its partition, as errors name it."""
    return f"step {step.name}" if partition is None else f"step {step.name}, {step.by} {partition or '(none)'}"


def first_line(error: BaseException) -> str:
    """One line on an error, for the record."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _line_of(error: BaseException, project: Project, pipeline: Pipeline) -> str:
    """File and line of the project where it went wrong."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in pipeline.sources:
            name = frame.filename.removeprefix(str(project.root)).lstrip("/")
            if name.endswith(notebooks.SUFFIX):
                return f" at {name}, {importing.place_of(frame.filename, frame.lineno or 0, pipeline.sources)}"
            return f" at {name}:{frame.lineno}"
    return ""
