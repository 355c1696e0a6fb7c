"""The steps of a project: how its Python files declare them at planning time, and how they hang together.

A step's name is the name of its output, its parameters name its inputs, and their annotations say in which form it wants
them. A decorated function stays an ordinary function: the decorator only leaves a note on it.

    flights = source("flights", by="month")

    @silver(key=["flight"])
    def clean_flights(flights: pl.LazyFrame) -> pl.LazyFrame: ...

    pipeline = discover(project)
    pipeline.order()                                    # ["flights", "clean_flights", …]
"""

from __future__ import annotations

import difflib
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from instar.core.errors import CycleError, PipelineError, UnknownTable
from instar.plan import importing

if TYPE_CHECKING:
    from instar.plan.project import Project

F = TypeVar("F", bound=Callable[..., Any])

TABLE_KINDS = ("source", "silver", "gold")  # steps whose output is a table
MODEL_KINDS = ("model", "baseline")  # steps whose output is a bundle
SEVERITIES = ("error", "warn")
DEFAULT_FORM = "polars.DataFrame"  # of an input whose parameter has no annotation
_NOTE = "__instar_note__"


@dataclass(frozen=True)
class Input:
    """A table that a step reads.

    Attributes:
        name: The table, which is the step that makes it.
        form: `"polars.LazyFrame"`, `"polars.DataFrame"`, `"pandas.DataFrame"`, `"pyarrow.Table"`, …
    """

    name: str
    form: str = DEFAULT_FORM


@dataclass(frozen=True)
class Step:
    """One step, as declared.

    Attributes:
        name: Name of the step and of its output.
        kind: `"source"`, `"silver"`, `"gold"`, `"model"` or `"baseline"`.
        function: The user's function; None for a source.
        inputs: Tables it reads, in the order of the function's parameters.
        parameters: Parameters with a default, and the default.
        options: What the decorator was given. source: `by`, `columns`, `key`, `landed`, `path`; silver: `key`; gold:
            `entity`, `event_time`, `created_time`, `key`; model: `problem`, `search`, `seed`; baseline: `problem`; all
            but source also `files` and `variables`, declared inputs that are no tables.
        file: The file that declares it.
    """

    name: str
    kind: str
    function: Callable[..., Any] | None = None
    inputs: tuple[Input, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    @property
    def makes_table(self) -> bool:
        return self.kind in TABLE_KINDS

    @property
    def problem(self) -> str | None:
        """The problem that a model or baseline is for."""
        return self.options.get("problem")


@dataclass(frozen=True)
class CheckStep:
    """Expectations on one table.

    Attributes:
        table: The table that is checked.
        name: The function's name.
        severity: `"error"` stops the pipeline, `"warn"` raises an alert.
        function: Called without arguments; returns a boolean Polars expression for each expectation's name.
        file: The file that declares it.
    """

    table: str
    name: str
    severity: str
    function: Callable[[], Mapping[str, Any]]
    file: str = ""


@dataclass(frozen=True)
class Pipeline:
    """The steps and checks of a project, proven to fit together.

    Attributes:
        steps: By name, in the order of declaration.
        checks: By table.
        sources: Text of each project file that was imported, by path; what fingerprints are taken of.
    """

    steps: Mapping[str, Step]
    checks: Mapping[str, tuple[CheckStep, ...]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def step(self, name: str) -> Step:
        """The step of that name.

        Raises:
            UnknownTable: There is none; the error names the nearest.
        """
        if name not in self.steps:
            raise UnknownTable(
                "the pipeline has no such step",
                subject=f"step {name}",
                asked=", ".join(self.steps) or "a step",
                next_step=did_you_mean(name, self.steps),
            )
        return self.steps[name]

    def order(self, targets: Iterable[str] | None = None) -> list[str]:
        """Names so that each step comes after its inputs; with `targets`, only those and what they need."""
        wanted = set(self.steps)
        if targets is not None:
            names = list(targets)
            wanted = set(names).union(*(self.ancestors(name) for name in names))
        placed: dict[str, None] = {}

        def place(name: str) -> None:
            if name not in placed:
                for source_ in self.steps[name].inputs:
                    place(source_.name)
                placed[name] = None

        for name in self.steps:
            if name in wanted:
                place(name)
        return list(placed)

    def ancestors(self, name: str) -> set[str]:
        """All steps that `name` depends on, near and far."""
        found: set[str] = set()
        ahead = [item.name for item in self.step(name).inputs]
        while ahead:
            one = ahead.pop()
            if one not in found:
                found.add(one)
                ahead += [item.name for item in self.steps[one].inputs]
        return found

    def consumers(self, name: str) -> list[str]:
        """Steps that read the output of `name` directly."""
        self.step(name)
        return [step.name for step in self.steps.values() if any(item.name == name for item in step.inputs)]


def source(
    name: str,
    *,
    by: str | None = None,
    columns: Mapping[str, Any] | None = None,
    key: str | Sequence[str] | None = None,
    landed: str = "_landed_at",
    path: str | None = None,
) -> Step:
    """Declare a bronze table: whatever arrives, as it came.

    Args:
        name: Name of the table.
        by: What a partition is, e.g. `"month"`; a partition that arrives again replaces its former self.
        columns: Promised columns and their types; a delivery without them is refused.
        key: Columns which name a row.
        landed: Column that says when a row became known.
        path: Files of the project to land when the pipeline runs, as a pattern, e.g. `"data/visits*.csv"`.
    """
    file = sys._getframe(1).f_code.co_filename
    promised = dict(columns) if columns else None
    options = {"by": by, "columns": promised, "key": _names(key), "landed": landed, "path": path}
    return Step(name, "source", options=options, file=file)


def silver(
    *, key: str | Sequence[str] | None = None, files: Sequence[str] = (), variables: Sequence[str] = ()
) -> Callable[[F], F]:
    """Declare a step that makes a clean table.

    Args:
        key: Columns which name a row; rows are then compared and traced by them.
        files: Files of the project which the function reads; a change of one runs the step again.
        variables: Environment variables which it reads.
    """
    return _step("silver", {"key": _names(key), **_declared(files, variables)})


def gold(
    *,
    entity: str | Sequence[str] | None = None,
    event_time: str | None = None,
    created_time: str | None = None,
    key: str | Sequence[str] | None = None,
    files: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Callable[[F], F]:
    """Declare a step that makes a table of features.

    Args:
        entity: Columns which name what is predicted.
        event_time: Column of the time at which the prediction is asked for.
        created_time: Column of the time at which the row's features became known.
        key: Columns which name a row; default the entity.
        files: Files of the project which the function reads.
        variables: Environment variables which it reads.
    """
    entity = _names(entity)
    options = {"entity": entity, "event_time": event_time, "created_time": created_time, "key": _names(key) or entity}
    return _step("gold", {**options, **_declared(files, variables)})


def model(
    problem: str,
    *,
    search: Mapping[str, Sequence[object]] | None = None,
    seed: int = 0,
    files: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Callable[[F], F]:
    """Declare a recipe: a function from rows to a fitted estimator.

    Args:
        problem: The problem of `instar.toml` that it solves.
        search: Values to try for its parameters; every combination is a trial.
        seed: Seed of everything random.
        files: Files of the project which the function reads.
        variables: Environment variables which it reads.
    """
    found = {name: tuple(values) for name, values in (search or {}).items()}
    return _step("model", {"problem": problem, "search": found, "seed": seed, **_declared(files, variables)})


def baseline(problem: str, *, files: Sequence[str] = (), variables: Sequence[str] = ()) -> Callable[[F], F]:
    """Declare a rule: a function which returns any object with `predict(frame)`; served like any model."""
    return _step("baseline", {"problem": problem, **_declared(files, variables)})


def check(table: str, *, severity: str = "error") -> Callable[[F], F]:
    """Declare expectations on a table: the function returns a boolean Polars expression for each name.

    Args:
        table: The table to check, whenever a version of it is written.
        severity: `"error"` stops the pipeline, `"warn"` raises an alert.
    """

    def declare(function: F) -> F:
        if severity not in SEVERITIES:
            raise PipelineError(
                "a check has no such severity",
                subject=f"check {function.__name__}",
                found=repr(severity),
                asked='"error" or "warn"',
                next_step=did_you_mean(severity, SEVERITIES),
            )
        _leave_note(function, CheckStep(table, function.__name__, severity, function, function.__code__.co_filename))
        return function

    return declare


def discover(project: Project) -> Pipeline:
    """Import the project's pipeline files afresh and put their steps together.

    Raises:
        PipelineError: A file is missing or cannot be imported, or two steps have one name.
        UnknownTable: A step's parameter, or a check, names no table.
        CycleError: Steps wait for each other in a ring.
    """
    files = importing.pipeline_files(project.root, project.contract.project.pipeline)
    modules, sources = importing.import_afresh(project.root, files)
    return assemble(modules, sources, problems=project.contract.problem)


def assemble(
    modules: Iterable[types.ModuleType], sources: Mapping[str, str] | None = None, problems: Iterable[str] | None = None
) -> Pipeline:
    """Put the steps and checks declared in `modules` together, and prove that they fit.

    Args:
        modules: Imported modules, in order.
        sources: Text of each imported file.
        problems: Names of the contract's problems; None: any.
    """
    notes: dict[int, Step | CheckStep] = {}
    for module in modules:
        for value in vars(module).values():
            note = value if isinstance(value, Step) else _note_of(value)
            if note is not None:
                notes.setdefault(id(note), note)
    steps: dict[str, Step] = {}
    checks: dict[str, list[CheckStep]] = {}
    for note in notes.values():
        if isinstance(note, CheckStep):
            checks.setdefault(note.table, []).append(note)
            continue
        if note.name in steps:
            raise PipelineError(
                "two steps have this name",
                subject=f"step {note.name}",
                found=f"{steps[note.name].file} and {note.file}",
                next_step="Rename one of them: a step's name is the name of its output.",
            )
        steps[note.name] = note
    pipeline = Pipeline(steps, {table: tuple(found) for table, found in checks.items()}, dict(sources or {}))
    _prove(pipeline, problems)
    return pipeline


def _step(kind: str, options: dict[str, Any]) -> Callable[[F], F]:
    def declare(function: F) -> F:
        inputs, parameters = _read_signature(function, kind)
        step = Step(function.__name__, kind, function, inputs, parameters, options, function.__code__.co_filename)
        _leave_note(function, step)
        return function

    return declare


def _read_signature(function: Callable[..., Any], kind: str) -> tuple[tuple[Input, ...], dict[str, object]]:
    name = function.__name__
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function) or name == "<lambda>":
        raise PipelineError(
            "a step is a named function", subject=f"step {name}", found=repr(function), next_step="Write it with def."
        )
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # a name known to type checkers alone: the text of the annotation has to do
        signature = inspect.signature(function)
    inputs, parameters = [], {}
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise PipelineError(
                f"parameter {parameter} cannot name a table",
                subject=f"step {name}",
                next_step="Give each input its own named parameter.",
            )
        if parameter.default is parameter.empty:
            inputs.append(Input(parameter.name, _form(parameter.annotation, signature.empty)))
        else:
            parameters[parameter.name] = parameter.default
    if not inputs and kind != "silver":  # a silver table may be made from nothing, e.g. a calendar
        raise PipelineError(
            "it reads no table",
            subject=f"step {name}",
            found="no parameter without a default",
            asked="at least one parameter that names a table",
        )
    return tuple(inputs), parameters


def _form(annotation: object, empty: object) -> str:
    """`polars.LazyFrame` for the class itself, wherever in its package it is defined, and for its written name."""
    if annotation is empty:
        return DEFAULT_FORM
    if isinstance(annotation, str):
        written = annotation.strip("'\"").replace(" ", "")
        head, _, rest = written.partition(".")
        return f"{_USUAL_NAMES.get(head, head)}.{rest}" if rest else written
    if isinstance(annotation, type):
        return f"{annotation.__module__.split('.')[0]}.{annotation.__qualname__}"
    return str(annotation)


_USUAL_NAMES = {"pl": "polars", "pd": "pandas", "pa": "pyarrow", "np": "numpy"}


def _prove(pipeline: Pipeline, problems: Iterable[str] | None) -> None:
    tables = [step.name for step in pipeline.steps.values() if step.makes_table]
    for step in pipeline.steps.values():
        for needed in step.inputs:
            if needed.name not in tables:
                made = "a model" if needed.name in pipeline.steps else "no table of the project"
                raise UnknownTable(
                    f"its parameter {needed.name!r} names {made}",
                    subject=f"step {step.name} in {Path(step.file).name}",
                    asked=", ".join(tables) or "a table",
                    next_step=did_you_mean(needed.name, tables)
                    or "Name a step that makes a table, or give the parameter a default.",
                )
        if problems is not None and step.kind in MODEL_KINDS and step.problem not in (known := list(problems)):
            raise PipelineError(
                "its problem is not in instar.toml",
                subject=f"step {step.name} in {Path(step.file).name}",
                found=repr(step.problem),
                asked=", ".join(known) or "a problem",
                next_step=did_you_mean(str(step.problem), known) or f"Add a section [problem.{step.problem}].",
            )
    for table, checks in pipeline.checks.items():
        if table not in tables:
            raise UnknownTable(
                f"it checks {table!r}, which is no table of the project",
                subject=f"check {checks[0].name}",
                asked=", ".join(tables) or "a table",
                next_step=did_you_mean(table, tables) or "Name a step that makes a table.",
            )
    _refuse_rings(pipeline)


def _refuse_rings(pipeline: Pipeline) -> None:
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            ring = [*path[path.index(name) :], name]
            raise CycleError(
                "these steps wait for each other",
                subject=f"step {name}",
                found=" <- ".join(ring),
                next_step="Take one input out of the ring; read a source table instead.",
            )
        if name not in done:
            for needed in pipeline.steps[name].inputs:
                visit(needed.name, [*path, name])
            done.add(name)

    for name in pipeline.steps:
        visit(name, [])


def _leave_note(function: Callable[..., Any], note: Step | CheckStep) -> None:
    setattr(function, _NOTE, note)


def _note_of(value: object) -> Step | CheckStep | None:
    return cast("Step | CheckStep | None", vars(value).get(_NOTE)) if inspect.isfunction(value) else None


def _names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def _declared(files: Sequence[str], variables: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {"files": _names(files) or (), "variables": _names(variables) or ()}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""
