"""How the runner makes and keeps models: a model or baseline step becomes trials, and the best trial becomes a bundle.

    cut the gold table ─▶ fit each trial on `fit` ─▶ threshold and cost on `decide` ─▶ best ─▶ bundle
                          (each trial is a run)                                   (`judge` is for the gates)

How rows are cut is handed in, because judging belongs to a later stage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from instar.core.database import Transaction
from instar.core.errors import ContractError, NotFound, PipelineError
from instar.core.store import Store
from instar.data import tables
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.pipeline import Input, Pipeline, Step
from instar.plan.project import Problem, Project, Split
from instar.train import bundle, bundles, fitting, runs, tuning
from instar.train.bundle import Manifest
from instar.train.fitting import Material
from instar.train.native import NativeModel, load_native
from instar.train.packing import describe, recipe_digest
from instar.train.signature import signature


class Parts(Protocol):
    """The three parts of a cut table."""

    @property
    def fit(self) -> pl.DataFrame: ...
    @property
    def decide(self) -> pl.DataFrame: ...
    @property
    def judge(self) -> pl.DataFrame: ...


Cutter = Callable[[pl.DataFrame, Split, str, datetime | None], Parts]


@dataclass(frozen=True)
class _Trial:
    """One fitted trial and what it cost on the `decide` rows."""

    run: runs.Run
    parameters: dict[str, Any]
    recipe: str
    model: Any
    threshold: float
    cost: float


class ModelKind:
    """The `StepKind` of models and baselines.

    Args:
        cut: Cuts rows into fit, decide and judge: `cut(frame, split, event_time, until)`.
    """

    def __init__(self, store: Store, project: Project, pipeline: Pipeline, cut: Callable[..., Any]) -> None:
        self._store = store
        self._project = project
        self._pipeline = pipeline
        self._cut: Cutter = cut

    def digest(self, project: Project, name: str) -> str | None:
        """Content digest of the step's current bundle."""
        with self._store.database.read() as tx:
            found = bundles.current(tx, project.name, name)
        return found[1] if found and self._store.blobs.has(found[0]) else None

    def load(self, project: Project, input: Input, consumer: Step) -> NativeModel:
        """The step's current model, live.

        Raises:
            NotFound: It was never fitted.
        """
        with self._store.database.read() as tx:
            found = bundles.current(tx, project.name, input.name)
        if found is None:
            raise NotFound("it has no model yet", subject=f"step {input.name}", next_step="Run it: instar run")
        return load_native(self._store.blobs, bundle.load_manifest(self._store.blobs, found[0]))

    def recall(self, project: Project, step: Step, ref: str) -> Stored | None:
        """Make an earlier bundle of the step current again."""
        if not self._store.blobs.has(ref):
            return None

        def work(tx: Transaction) -> str | None:
            return bundles.make_current(tx, self._store, project.name, ref)

        content = self._store.database.write(work)
        return Stored(ref, content) if content is not None else None

    def run(
        self,
        project: Project,
        execution: Execution,
        step: Step,
        inputs: Mapping[str, object],
        parameters: Mapping[str, object],
    ) -> Manifest:
        """Fit every trial, each recorded as a run before its function is called; describe the best.

        Raises:
            ContractError, PipelineError: The contract or the step does not fit the table.
            StepFailed: The function raised; its run says so.
        """
        problem = problem_of(project, step)
        table, version, rows = training_rows(self._store, project, self._pipeline, step, problem)
        material = fitting.material(step, table, self._pipeline.step(table.name), problem, rows)
        known = rows.filter(pl.col(material.target).is_not_null())
        parts = self._cut(known, problem.split, material.event_time, None)
        others = {name: value for name, value in inputs.items() if name != table.name}
        runs.abandon(self._store, project.name, step.name)
        chosen = [
            self._trial(project, execution, step, problem, material, parts, version, {**parameters, **trial}, others)
            for trial in tuning.trials(_searched(step, parameters))
        ]
        best = min(chosen, key=lambda trial: math.inf if math.isnan(trial.cost) else trial.cost)  # the first of equals
        declared = problem.nullable
        nullable = tuple(name for name in material.features if name in declared or rows[name].null_count() > 0)
        manifest = describe(
            self._store, project, step, best.run, best.model,
            material=material, rows=parts.fit, held_out=pl.concat([parts.decide, parts.judge]),
            recipe=best.recipe, parameters=best.parameters, threshold=best.threshold, fitted_on=version, nullable=nullable,
        )  # fmt: skip
        self._note(best.run.id, manifest)
        return manifest

    def store(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        """Pack the bundle and put it on the record; doing it again changes nothing."""
        assert isinstance(output, Manifest)
        digest = bundle.pack(self._store.blobs, output)
        self._store.database.write(
            lambda tx: bundles.record(tx, self._store, project.name, digest, output, fit_key=execution.key),
            durable=True,
        )
        return Stored(digest, bundle.content_digest(output))

    def _trial(
        self,
        project: Project,
        execution: Execution,
        step: Step,
        problem: Problem,
        material: Material,
        parts: Parts,
        version: str,
        parameters: dict[str, Any],
        others: Mapping[str, object],
    ) -> _Trial:
        with runs.running(
            self._store,
            project.name,
            experiment=step.problem or step.name,
            step=step.name,
            execution=execution.id,
            parameters=parameters,
            tags={"kind": step.kind},
            inputs=[version],
            root=project.root,
            cause=execution.cause,
        ) as run:
            given = material.given(parts.fit)
            begun = time.perf_counter()
            model = fitting.call(step, material, given, parameters, others)
            seconds = time.perf_counter() - begun
            inputs = signature(given.select(material.features))
            live = NativeModel(model, inputs, material.form, f"step {step.name}")
            scores = live.score_frame(material.given(parts.decide).select(material.features))
            truth = material.truth(parts.decide)
            threshold = fitting.decide(problem.cost, truth, scores, problem.split)
            found = fitting.quality(problem.cost, truth, scores, threshold)
            found |= {"fit_rows": float(given.height), "fit_seconds": seconds}
            runs.log_metrics(self._store, run.id, found)
            recipe = recipe_digest(project, self._pipeline, step, parameters)
        return _Trial(run, parameters, recipe, model, threshold, found["cost"])

    def _note(self, run: str, manifest: Manifest) -> None:
        runs.set_tags(self._store, run, {"chosen": "true", "portable": portable_word(manifest)})
        if manifest.parity is not None:
            runs.log_metrics(self._store, run, {"parity_max_difference": manifest.parity.max_difference})


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


def portable_word(manifest: Manifest) -> str:
    """One word on the portable form: its kind, or `"none"`."""
    return manifest.portable.form if manifest.portable else "none"


def _searched(step: Step, parameters: Mapping[str, object]) -> dict[str, Any]:
    """The step's search without those parameters that the caller has set."""
    search = dict(step.options.get("search") or {})
    unknown = [name for name in search if name not in step.parameters]
    if unknown:
        raise PipelineError(
            "the search names what is no parameter", subject=f"step {step.name}", found=", ".join(unknown),
            asked=", ".join(step.parameters) or "a parameter with a default",
        )  # fmt: skip
    return {name: values for name, values in search.items() if parameters.get(name) == step.parameters[name]}
