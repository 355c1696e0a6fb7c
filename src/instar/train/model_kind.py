"""How the runner makes and keeps models: a model or baseline step becomes trials, and the best trial becomes a bundle.

    cut the gold table ─▶ fit each trial on `fit` ─▶ threshold and cost on `decide` ─▶ best ─▶ bundle
                          (each trial is a run)                                   (`judge` is for the gates)

How rows are cut is handed in, because judging belongs to a later stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from instar.core.database import Transaction
from instar.core.errors import NotFound, PipelineError
from instar.core.store import Store
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.pipeline import Input, Pipeline, Step
from instar.plan.project import Project
from instar.train import bundle, bundles, runs, trial, tuning
from instar.train.bundle import Manifest
from instar.train.native import NativeModel, load_native
from instar.train.packing import describe


class ModelKind:
    """The `StepKind` of models and baselines.

    Args:
        cut: Cuts rows into fit, decide and judge: `cut(frame, split, event_time, until)`.
    """

    def __init__(self, store: Store, project: Project, pipeline: Pipeline, cut: trial.Cutter) -> None:
        self._store = store
        self._project = project
        self._pipeline = pipeline
        self._cut = cut

    def digest(self, project: Project, name: str) -> str | None:
        """Content digest of the step's current bundle."""
        with self._store.database.read() as tx:
            found = bundles.current(tx, project.name, name)
        return found[1] if found and self._store.blobs.has(found[0]) else None

    def digests(self, project: Project, names: Iterable[str]) -> Mapping[str, str]:
        """Content digests of the current bundles of many steps."""
        with self._store.database.read() as tx:
            found = {name: bundles.current(tx, project.name, name) for name in names}
        return {name: one[1] for name, one in found.items() if one and self._store.blobs.has(one[0])}

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
        ground = trial.prepare(self._store, project, self._pipeline, step, self._cut, inputs)
        runs.abandon(self._store, project.name, step.name)
        made = [
            trial.fit(
                self._store, ground, {**parameters, **values}, execution=execution.id, cause=execution.cause,
            )
            for values in tuning.trials(_searched(step, parameters))
        ]  # fmt: skip
        chosen = [one for one in made if one is not None]  # without a study no trial is given up
        best = min(chosen, key=lambda one: math.inf if math.isnan(one.cost) else one.cost)  # the first of equals
        manifest = describe(
            self._store, project, step, best.run, best.model,
            material=ground.material, rows=ground.parts.fit,
            held_out=pl.concat([ground.parts.decide, ground.parts.judge]), recipe=best.recipe,
            parameters=best.parameters, threshold=best.threshold, fitted_on=ground.version, nullable=ground.nullable,
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

    def _note(self, run: str, manifest: Manifest) -> None:
        runs.set_tags(self._store, run, {"chosen": "true", "portable": portable_word(manifest)})
        if manifest.parity is not None:
            runs.log_metrics(self._store, run, {"parity_max_difference": manifest.parity.max_difference})


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
