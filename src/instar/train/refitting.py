"""The refit: a recipe that passed its gates is fitted again on all landed rows, and goes live in place of the judged fit.

Source, parameters and threshold are those of the judged bundle; only the rows are more. It has no held-out rows of its
own, so it is judged live: in shadow, canary and paired comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from instar.core.errors import Conflict
from instar.core.ids import digest_of
from instar.core.store import Store
from instar.data import content
from instar.plan.pipeline import Pipeline
from instar.plan.project import Project
from instar.train import bundle, bundles, environment, fitting, recording, runs
from instar.train.packing import describe, recipe_digest
from instar.train.trial import problem_of


def refit(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    judged: str,
    rows: pl.DataFrame,
    fitted_on: str,
    *,
    cause: str = "user",
    others: Mapping[str, Any] | None = None,
) -> str:
    """Fit the recipe of the bundle `judged` again on `rows`; returns the new bundle's digest.

    The same recipe, rows and environment again cost nothing: the bundle on the record is returned.

    Args:
        judged: Digest of the bundle whose recipe passed.
        rows: Rows of the gold table, with its key and time columns; those without a target are left out.
        fitted_on: The table version they are from.
        cause: Who or which action wants it.
        others: Further inputs of the step's function, by name.

    Raises:
        Conflict: The step's source has changed since it was judged.
        StepFailed: The function raised; its run says so.
    """
    manifest = bundle.load_manifest(store.blobs, judged)
    step = pipeline.step(manifest.step)
    if recipe_digest(project, pipeline, step, manifest.parameters) != manifest.recipe:
        raise Conflict(
            "its source has changed since the bundle was judged", subject=f"step {step.name}",
            found="another recipe", asked=manifest.recipe, next_step="Run and judge the new recipe: instar run",
        )  # fmt: skip
    problem = problem_of(project, step)
    table = next(item for item in step.inputs if pipeline.step(item.name).kind == "gold")
    material = fitting.material(step, table, pipeline.step(table.name), problem, rows)
    rows = rows.filter(pl.col(material.target).is_not_null())
    given = material.given(rows)
    present = environment.save(store.blobs, environment.capture(project.root), project.root)
    fit_key = digest_of(["refit", judged, content.of_rows(given), present])
    with store.database.read() as tx:
        known = bundles.of_fit(tx, project.name, fit_key)
    if known is not None and store.blobs.has(known):
        return known
    read = {**recording.sources_of(store, project, step), table.name: fitted_on}
    with runs.running(
        store,
        project.name,
        experiment=manifest.model,
        step=step.name,
        parameters=manifest.parameters,
        tags={"kind": step.kind, "refit_of": judged},
        inputs=list(dict.fromkeys([fitted_on, *read.values()])),
        root=project.root,
        cause=cause,
        conditions=recording.of_step(store, project, pipeline, step, read, given, way="refit"),
    ) as run:
        model = fitting.call(step, material, given, manifest.parameters, others or {})
        packed = describe(
            store, project, step, run, model,
            material=material, rows=rows, held_out=rows, recipe=manifest.recipe, parameters=manifest.parameters,
            threshold=manifest.threshold, fitted_on=fitted_on, refit_of=judged,
            nullable=tuple(column.name for column in manifest.inputs if column.nullable),
        )  # fmt: skip
        digest = bundle.pack(store.blobs, packed)
        runs.log_metrics(store, run.id, {"fit_rows": float(rows.height), "threshold": manifest.threshold})
    store.database.write(lambda tx: bundles.record(tx, store, project.name, digest, packed, fit_key), durable=True)
    return digest
