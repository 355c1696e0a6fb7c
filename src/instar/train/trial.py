"""One trial: a model step's function is fitted on the `fit` rows with some values of its parameters, and costed on `decide`.

Each trial is a run, on the record before the function is called. The pipeline's walk makes the trials of a step's grid,
`instar tune` those which a search proposes. How rows are cut is handed in, because judging belongs to a later stage.

    ground = prepare(store, project, pipeline, step, cut, inputs)
    fit(store, ground, {"learning_rate": 0.1}, cause="user").cost
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.core.database import microseconds
from instar.core.errors import ContractError, NotFound, PipelineError
from instar.core.store import Store
from instar.data import tables
from instar.plan.cost import per_row
from instar.plan.pipeline import Input, Pipeline, Step
from instar.plan.project import Problem, Project
from instar.train import fitting, recording, runs
from instar.train.conditions import Conditions
from instar.train.fitting import Material
from instar.train.packing import recipe_digest
from instar.train.reporting import Listener, Pruned, listening
from instar.train.signature import signature


class Parts(Protocol):
    """The three parts of a cut table."""

    @property
    def fit(self) -> pl.DataFrame: ...
    @property
    def decide(self) -> pl.DataFrame: ...
    @property
    def judge(self) -> pl.DataFrame: ...


# The tag with the digest of a trial's scores on the `decide` rows, by which a repetition is known.
SCORES = "instar.scores"

# `cut(rows, split, event_time, until)`.
Cutter = Callable[..., Parts]


@dataclass(frozen=True)
class Ground:
    """What all trials of one step have in common.

    Attributes:
        version: Id of the table version with features and target.
        nullable: Features that may be missing in a call.
        others: The step's further inputs, by name.
        inputs: Id of the table version that each input was read from, by name.
        conditions: What all its runs are made under.
    """

    project: Project
    pipeline: Pipeline
    step: Step
    problem: Problem
    material: Material
    parts: Parts
    version: str
    nullable: tuple[str, ...]
    others: Mapping[str, Any]
    inputs: Mapping[str, str]
    conditions: Conditions


@dataclass(frozen=True)
class Trial:
    """One fitted trial, and what it came to on the `decide` rows.

    Attributes:
        recipe: Digest of the step's source and these parameters.
        metrics: `cost` a row and others by name, see `fitting.quality`; `fit_rows`, `fit_seconds`.
        costs: Cost of each `decide` row, in the problem's unit; shape (n,).
    """

    run: runs.Run
    parameters: dict[str, Any]
    recipe: str
    model: Any
    threshold: float
    metrics: dict[str, float]
    costs: NDArray[np.float64]

    @property
    def cost(self) -> float:
        """Mean cost a row; NaN without rows."""
        return self.metrics["cost"]


def prepare(
    store: Store, project: Project, pipeline: Pipeline, step: Step, cut: Cutter, inputs: Mapping[str, Any]
) -> Ground:
    """Read and cut the rows that the trials of `step` are fitted on.

    Raises:
        ContractError, PipelineError: The contract or the step does not fit the table.
        NotFound: The table has no version yet.
    """
    problem = problem_of(project, step)
    table, version, rows = training_rows(store, project, pipeline, step, problem)
    material = fitting.material(step, table, pipeline.step(table.name), problem, rows)
    known = rows.filter(pl.col(material.target).is_not_null())
    parts = cut(known, problem.split, material.event_time, None)
    nullable = tuple(name for name in material.features if name in problem.nullable or rows[name].null_count() > 0)
    if problem.inputs:  # what cannot hold is told before anything is fitted
        signature(material.given(parts.fit).select(material.features), declared=problem.inputs)
    others = {name: value for name, value in inputs.items() if name != table.name}
    read = {**recording.sources_of(store, project, step), table.name: version}
    about = recording.of_step(store, project, pipeline, step, read, material.given(parts.fit), way="trial")
    return Ground(project, pipeline, step, problem, material, parts, version, nullable, others, read, about)


# From truth, scores and threshold to further metrics by name; handed in, because judging belongs to a later stage.
Measure = Callable[[NDArray[np.bool_], NDArray[np.float64], float], Mapping[str, float]]


@dataclass(frozen=True)
class Course:
    """How a trial of a study goes on, or is given up.

    Attributes:
        shares: Shares of the rows that are fitted on, one after the other, growing; the last one is 1.
        began: Told the run's id before the function is called.
        on_share: Called with the metrics after each share but the last, and its number from 0; true gives the trial up.
        on_report: Called with what the function reports, value and step; true gives the trial up.
        measure: Further metrics.
    """

    shares: tuple[float, ...] = (1.0,)
    began: Callable[[str], object] | None = None
    on_share: Callable[[Mapping[str, float], int], bool] | None = None
    on_report: Callable[[float, int], bool] | None = None
    measure: Measure | None = None


def fit(
    store: Store,
    ground: Ground,
    parameters: Mapping[str, Any],
    *,
    cause: str,
    execution: str | None = None,
    tags: Mapping[str, str] | None = None,
    course: Course | None = None,
) -> Trial | None:
    """Fit once, as a run that is finished or failed when this returns or raises; None when it was given up.

    Raises:
        StepFailed: The function raised, or returned what cannot predict.
    """
    course, step = course or Course(), ground.step
    with runs.running(
        store,
        ground.project.name,
        experiment=step.problem or step.name,
        step=step.name,
        execution=execution,
        parameters=parameters,
        tags={"kind": step.kind, **(tags or {})},
        inputs=list(dict.fromkeys([ground.version, *ground.inputs.values()])),
        root=ground.project.root,
        cause=cause,
        conditions=ground.conditions,
    ) as run:
        if course.began is not None:
            course.began(run.id)
        try:
            with listening(_listener(store, run.id, course)):
                for number, share in enumerate(course.shares[:-1]):
                    early = _fit(store, ground, parameters, run, share, course.measure, number)
                    if course.on_share is not None and course.on_share(early.metrics, number):
                        raise Pruned
                return _fit(store, ground, parameters, run, 1.0, course.measure, len(course.shares) - 1)
        except Pruned:
            runs.set_tags(store, run.id, {"pruned": "true"})
            return None


def _listener(store: Store, run: str, course: Course) -> Listener:
    def hear(value: float, step: int) -> None:
        runs.log_metrics(store, run, {"reported": value}, step)
        if course.on_report is not None and course.on_report(value, step):
            raise Pruned

    return hear


def _fit(
    store: Store,
    ground: Ground,
    parameters: Mapping[str, Any],
    run: runs.Run,
    share: float,
    measure: Measure | None,
    number: int,
) -> Trial:
    """Fit on a share of the rows, evenly spaced, and log what it came to as step `number` of its metrics."""
    step, material, problem = ground.step, ground.material, ground.problem
    rows = ground.parts.fit
    part = rows if share >= 1.0 else fitting.sample(rows, max(1, int(rows.height * share)))
    fitted = fitting.once(step, problem, material, part, ground.parts.decide, parameters, ground.others)
    found = fitted.metrics
    if measure is not None:
        more = measure(fitted.truth, fitted.scores, fitted.threshold)
        found |= {name: value for name, value in more.items() if name not in found}
    now = microseconds(store.clock.wall())
    tags = {SCORES: fitting.digest_of_scores(fitted.scores)} if share >= 1.0 else {}
    runs.log(store, run.id, points=[(name, value, number, now) for name, value in found.items()], tags=tags)
    recipe = recipe_digest(ground.project, ground.pipeline, step, parameters)
    costs = np.asarray(per_row(problem.cost, fitted.truth, fitted.scores >= fitted.threshold))
    return Trial(run, dict(parameters), recipe, fitted.model, fitted.threshold, found, costs)


def problem_of(project: Project, step: Step) -> Problem:
    """The problem that a model step is for.

    Raises:
        ContractError: The contract has no such problem.
    """
    try:
        return project.contract.problem[step.problem or ""]
    except KeyError:
        raise ContractError(
            "the contract has no such problem", subject=f"step {step.name}", found=repr(step.problem),
            asked=", ".join(project.contract.problem),
        ) from None  # fmt: skip


def training_rows(
    store: Store, project: Project, pipeline: Pipeline, step: Step, problem: Problem
) -> tuple[Input, str, pl.DataFrame]:
    """The input of `step` that has the target, its current version's id, and its rows.

    Raises:
        PipelineError: The step reads no gold table.
        NotFound: The table has no version yet.
    """
    gold = [item for item in step.inputs if pipeline.step(item.name).kind == "gold"]
    if not gold:
        raise PipelineError(
            "it reads no gold table", subject=f"step {step.name}", found=", ".join(item.name for item in step.inputs),
            asked="features and target from a step declared with @gold",
        )  # fmt: skip
    for item in gold:
        version = tables.latest(store, project.name, item.name)
        if version is None:
            raise NotFound("it has no version yet", subject=f"table {item.name}", next_step="Run it: instar run")
        # Read as it lies, whatever form the function wants: the cut is made on exact types.
        rows = tables.scan(store, version).collect()
        if problem.target in rows.columns or item is gold[-1]:
            return item, version.id, rows
    raise AssertionError("unreachable")
