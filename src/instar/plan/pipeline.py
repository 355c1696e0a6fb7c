"""The pipeline of a project: its steps and checks, found in its Python files and proven to fit when a run is planned.

pipeline = discover(project)
pipeline.order()                                    # ["flights", "clean_flights", …]
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.core.errors import CycleError, PipelineError, UnknownTable
from instar.plan import importing, notebook_step
from instar.plan.notebook_step import notebook
from instar.plan.parameters import fitted
from instar.plan.steps import (
    DEFAULT_FORM,
    MODEL_KINDS,
    TABLE_KINDS,
    CheckStep,
    Input,
    Step,
    baseline,
    check,
    did_you_mean,
    gold,
    model,
    note_of,
    silver,
    source,
)
from instar.plan.terms import NAMES

if TYPE_CHECKING:
    from instar.plan.contract import Contract
    from instar.plan.project import Project

__all__ = [
    "DEFAULT_FORM",
    "MODEL_KINDS",
    "TABLE_KINDS",
    "CheckStep",
    "Input",
    "Pipeline",
    "Step",
    "assemble",
    "baseline",
    "check",
    "did_you_mean",
    "discover",
    "gold",
    "model",
    "notebook",
    "silver",
    "source",
]


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

    def on_terms(self, asked: Mapping[str | None, Mapping[str, Any]]) -> Pipeline:
        """The pipeline with other retries or timeouts for one run.

        Args:
            asked: As `terms.asked_terms` has them: by step, by None those for all steps.

        Raises:
            UnknownTable: There is no such step.
        """
        for name in asked:
            if name is not None:
                self.step(name)
        steps = {
            name: replace(step, terms=replace(step.terms, **{**asked.get(None, {}), **asked.get(name, {})}))
            for name, step in self.steps.items()
        }
        return replace(self, steps=steps)

    def is_cut(self, step: Step, name: str) -> bool:
        """Does `step` read its input `name` partition by partition?"""
        return step.by is not None and self.steps[name].options.get("by") == step.by

    def descendants(self, name: str) -> set[str]:
        """All steps that depend on `name`, near and far."""
        found: set[str] = set()
        ahead = self.consumers(name)
        while ahead:
            one = ahead.pop()
            if one not in found:
                found.add(one)
                ahead += self.consumers(one)
        return found

    def consumers(self, name: str) -> list[str]:
        """Steps that read the output of `name` directly."""
        self.step(name)
        return [step.name for step in self.steps.values() if any(item.name == name for item in step.inputs)]


def discover(project: Project, texts: Mapping[str, str] | None = None) -> Pipeline:
    """Import the project's pipeline files afresh and put their steps together.

    Args:
        texts: Text to take for a file instead of what the disk has, by path.

    Raises:
        PipelineError: A file is missing or cannot be imported, or two steps have one name.
        UnknownTable: A step's parameter, or a check, names no table.
        CycleError: Steps wait for each other in a ring.
    """
    files = importing.pipeline_files(project.root, project.contract.project.pipeline)
    modules, sources = importing.import_afresh(project.root, files, texts)
    found = assemble(modules, sources, problems=project.contract.problem)
    return _agreed(_with_notebooks(found, project.root, texts or {}), project.contract)


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
            note = value if isinstance(value, Step) else note_of(value)
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


def _with_notebooks(pipeline: Pipeline, root: Path, texts: Mapping[str, str]) -> Pipeline:
    """The pipeline with the parameters of its notebooks, and the notebooks among its sources."""
    sources = dict(pipeline.sources)

    def text_of(path: Path) -> str:
        if str(path) not in sources:
            sources[str(path)] = texts.get(str(path)) or path.read_text(encoding="utf-8")
        return sources[str(path)]

    steps = {
        name: notebook_step.completed(step, root, text_of) if step.kind == notebook_step.KIND else step
        for name, step in pipeline.steps.items()
    }
    return replace(pipeline, steps=steps, sources=sources)


def _agreed(pipeline: Pipeline, contract: Contract) -> Pipeline:
    """The pipeline on the terms of the contract, which has the last word on retries and timeouts."""
    steps = dict(pipeline.steps)
    for name, given in contract.step.items():
        _expect_step(pipeline, name, f"section [step.{name}]")
        said = {key: value for key in NAMES if (value := getattr(given, key)) is not None}
        steps[name] = replace(steps[name], terms=replace(steps[name].terms, **said))
    for name, schedule in contract.schedule.items():
        section = f"section [schedule.{name}]"
        for wanted in schedule.targets:
            _expect_step(pipeline, wanted, section)
        if schedule.source:
            _expect_step(pipeline, schedule.source, section, "source")
        for path, value in schedule.parameters.items():
            step, _, parameter = path.rpartition(".")
            _expect_step(pipeline, step, section)
            if parameter not in (known := pipeline.steps[step].parameters):
                raise PipelineError(
                    f"it sets {path!r}, and the step has no such parameter",
                    subject=f"{section} of instar.toml",
                    asked=", ".join(known) or "a parameter with a default",
                    next_step=did_you_mean(parameter, known),
                )
            fitted(f"{path} of {section}", value, known[parameter])  # now, and not at three at night
    return replace(pipeline, steps=steps)


def _expect_step(pipeline: Pipeline, name: str, section: str, kind: str | None = None) -> None:
    known = [step.name for step in pipeline.steps.values() if kind in (None, step.kind)]
    if name not in known:
        raise UnknownTable(
            f"it names {name!r}, which is no {kind or 'step'} of the pipeline",
            subject=f"{section} of instar.toml",
            asked=", ".join(known) or f"a {kind or 'step'}",
            next_step=did_you_mean(name, known),
        )


def _prove(pipeline: Pipeline, problems: Iterable[str] | None) -> None:
    tables = [step.name for step in pipeline.steps.values() if step.makes_table]
    for step in pipeline.steps.values():
        for needed in step.inputs:
            if needed.name not in tables:
                other = pipeline.steps.get(needed.name)
                made = (
                    "no table of the project"
                    if other is None
                    else "a notebook"
                    if other.kind == "notebook"
                    else "a model"
                )
                raise UnknownTable(
                    f"its parameter {needed.name!r} names {made}",
                    subject=f"step {step.name} in {Path(step.file).name}",
                    asked=", ".join(tables) or "a table",
                    next_step=did_you_mean(needed.name, tables)
                    or "Name a step that makes a table, or give the parameter a default.",
                )
        if step.by and not any(pipeline.steps[item.name].options.get("by") == step.by for item in step.inputs):
            declared = ", ".join(
                f"{item.name} by {pipeline.steps[item.name].options.get('by')}" for item in step.inputs
            )
            raise PipelineError(
                f"none of its inputs is declared by {step.by!r}",
                subject=f"step {step.name} in {Path(step.file).name}",
                found=declared or "no input",
                asked=f"an input declared with by={step.by!r}",
                next_step="Declare the input by the same partitions, or take `by` out of the step's decorator.",
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
