"""From a fitted model to the manifest of its bundle: native form, portable form, signature, profile, code, environment.

Parts go into the store as blobs at once; nothing names them until the bundle is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import polars as pl

from instar.core.errors import StepFailed
from instar.core.ids import digest_of
from instar.core.store import Store
from instar.data import profile
from instar.plan.fingerprint import fingerprint
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Project
from instar.train import conversion, locks, native
from instar.train.bundle import OUTPUTS, Manifest
from instar.train.fitting import Material, sample
from instar.train.native import NativeModel
from instar.train.runs import Run
from instar.train.signature import signature

# Held-out rows that both forms score for parity, before those with unknown and missing values are added.
PARITY_ROWS = 2000


def recipe_digest(project: Project, pipeline: Pipeline, step: Step, parameters: Mapping[str, Any]) -> str:
    """What a recipe is: the source that the step reaches, and its parameters. Not its rows, not the libraries."""
    assert step.function is not None
    ignore = step.options.get("ignore", ())
    source = fingerprint(step.function, root=project.root, sources=pipeline.sources, ignore=ignore)
    return digest_of([step.name, source.digest, dict(sorted(parameters.items()))])


def describe(
    store: Store,
    project: Project,
    step: Step,
    run: Run,
    model: Any,
    *,
    material: Material,
    rows: pl.DataFrame,
    held_out: pl.DataFrame,
    recipe: str,
    parameters: Mapping[str, Any],
    threshold: float,
    fitted_on: str,
    nullable: tuple[str, ...] = (),
    refit_of: str | None = None,
) -> Manifest:
    """The manifest of a fitted model, all its parts kept.

    Args:
        rows: The rows fitted on, as the gold table has them.
        held_out: Rows to measure parity on: not fitted on, where there are such.
        nullable: Features that a call may leave out although no row fitted on does.

    Raises:
        StepFailed: The model cannot be pickled.
    """
    given = material.given(rows)
    features = given.select(material.features)
    assert step.problem is not None
    problem = project.contract.problem[step.problem]
    inputs = signature(features, problem.privacy, nullable, problem.inputs)
    pickled = native.dump(model, f"step {step.name}")
    live = NativeModel(model, inputs, material.form, f"step {step.name}")
    converted = conversion.convert(model, features, material.form)
    tested = material.given(sample(held_out, PARITY_ROWS)).select(material.features)
    span = rows[material.event_time]
    return Manifest(
        model=step.problem,
        step=step.name,
        kind=step.kind,
        recipe=recipe,
        parameters=dict(parameters),
        target=material.target,
        inputs=inputs,
        outputs=OUTPUTS,
        threshold=threshold,
        native=store.blobs.put(pickled),
        form=material.form,
        portable=_kept(store, converted),
        unportable=converted.why,
        parity=conversion.parity(converted, live.score_frame, tested, inputs),
        code=run.code["content"] if run.code else None,
        environment=_environment(run),
        lock=locks.lock_of(store, _environment(run)).requirements,
        run=run.id,
        fitted_on=fitted_on,
        fitted_rows=rows.height,
        fitted_from=_moment(span.min()),
        fitted_until=_moment(span.max()),
        profile=store.blobs.put(profile.to_bytes(profile.profile(given))),
        key=material.key,
        refit_of=refit_of,
    )


def _kept(store: Store, converted: conversion.Converted) -> Any:
    if converted.portable is not None:
        kept = store.blobs.put(converted.data)
        return msgspec.structs.replace(converted.portable, file=kept)
    return None


def _environment(run: Run) -> str:
    if run.environment is None:
        raise StepFailed("its environment was not recorded", subject=f"run {run.id}")
    return run.environment


def _moment(value: Any) -> str | None:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else None
