"""A step's run, done once more from files alone, in whatever process and environment it is asked: no store, no record.

`instar reproduce` writes the request with the pinned inputs beside it, and reads the outcome. How rows are cut is handed in,
because judging belongs to a later stage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.core import ids
from instar.core.errors import InstarError
from instar.data import content, forms
from instar.plan.pipeline import Step, discover
from instar.plan.project import Problem, load_project
from instar.train import bundle, code, conditions, conversion, environment, fitting, native
from instar.train.bundle import Manifest
from instar.train.conditions import Conditions
from instar.train.environment import Environment
from instar.train.fitting import Material
from instar.train.native import NativeModel
from instar.train.portable import PortableModel
from instar.train.recording import of_files
from instar.train.signature import signature
from instar.train.trial import Cutter, problem_of

COMPARED_ROWS = 20_000  # predictions of both models are compared on so many rows at most


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to do again.

    Attributes:
        root: Folder with the code.
        way: `"trial"` or `"refit"`.
        table: The input with features and target.
        tables: A Parquet file for each input.
        threshold: Of a refit, which has no rows of its own to choose one by.
        bundle: Folder of the bundle that the run made, unpacked; empty when it made none.
    """

    root: str
    way: str
    step: str
    table: str
    tables: dict[str, str]
    parameters: dict[str, Any]
    threshold: float | None = None
    bundle: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        metrics: As a run logs them.
        scores: Digest of the scores on the `decide` rows; empty for a refit.
        native, portable: Digest of the model in either form; of `portable` also its threshold is part of what it does.
        difference: Largest difference of scores between the recorded model and this one; None when there is no recorded one.
        code: Digest of the code that ran.
        error: Why it could not be done, if so.
    """

    conditions: Conditions
    environment: Environment
    metrics: dict[str, float] = {}
    threshold: float = 0.0
    scores: str = ""
    native: str = ""
    portable: str = ""
    difference: float | None = None
    compared_with: str = ""
    code: str = ""
    error: str = ""


def repeat(request: Request, cut: Cutter) -> Outcome:
    """Fit once more, and compare with the recorded model; an error is an outcome, too."""
    here = environment.capture()
    about = conditions.capture(way=request.way)
    try:
        project = load_project(Path(request.root))
        pipeline = discover(project)
        step = pipeline.step(request.step)
        problem = problem_of(project, step)
        rows = pl.read_parquet(request.tables[request.table])
        table = next(item for item in step.inputs if item.name == request.table)
        material = fitting.material(step, table, pipeline.step(table.name), problem, rows)
        known = rows.filter(pl.col(material.target).is_not_null())
        others = _others(step, request)
        parts = cut(known, problem.split, material.event_time, None) if request.way == "trial" else None
        given = material.given(parts.fit if parts is not None else known)
        about = conditions.capture(
            way=request.way, seed=fitting.seed_of(step), contract=project.revision, rows=content.of_rows(given),
            variables=step.options.get("variables", ()), public=project.contract.project.public_variables,
            files=of_files(project, pipeline, step), root=project.root,
        )  # fmt: skip
        found = Outcome(conditions=about, environment=here, code=code.digest(project.root))
        parameters = _as_declared(step, request.parameters)
        if parts is not None:
            return _trial(found, request, step, problem, material, parts, parameters, others)
        return _refit(found, request, step, material, given, parameters, others)
    except InstarError as error:
        return Outcome(conditions=about, environment=here, error=str(error))


def _trial(
    found: Outcome,
    request: Request,
    step: Step,
    problem: Problem,
    material: Material,
    parts: Any,
    parameters: Mapping[str, Any],
    others: Mapping[str, Any],
) -> Outcome:
    fitted = fitting.once(step, problem, material, parts.fit, parts.decide, parameters, others)
    features = material.given(parts.fit).select(material.features)
    held_out = material.given(pl.concat([parts.decide, parts.judge])).select(material.features)
    return msgspec.structs.replace(
        _with_model(found, request, step, material, fitted.model, features, held_out, fitted.threshold),
        metrics=fitted.metrics,
        scores=fitting.digest_of_scores(fitted.scores),
    )


def _refit(
    found: Outcome,
    request: Request,
    step: Step,
    material: Material,
    given: pl.DataFrame,
    parameters: Mapping[str, Any],
    others: Mapping[str, Any],
) -> Outcome:
    begun = time.perf_counter()
    model = fitting.call(step, material, given, parameters, others)
    features = given.select(material.features)
    threshold = request.threshold or 0.0
    metrics = {"fit_rows": float(given.height), "threshold": threshold, "fit_seconds": time.perf_counter() - begun}
    whole = _with_model(found, request, step, material, model, features, features, threshold)
    return msgspec.structs.replace(whole, metrics=metrics)


def _with_model(
    found: Outcome,
    request: Request,
    step: Step,
    material: Material,
    model: Any,
    features: pl.DataFrame,
    held_out: pl.DataFrame,
    threshold: float,
) -> Outcome:
    converted = conversion.convert(model, features, material.form)
    live = NativeModel(model, signature(features), material.form, f"step {step.name}")
    difference, compared = _compare(request, live, fitting.sample(held_out, COMPARED_ROWS))
    return msgspec.structs.replace(
        found,
        threshold=threshold,
        native=ids.digest(native.dump(model, f"step {step.name}")),
        portable=ids.digest(converted.data) if converted.portable is not None else "",
        difference=difference,
        compared_with=compared,
    )


def _compare(request: Request, live: NativeModel, rows: pl.DataFrame) -> tuple[float | None, str]:
    if not request.bundle:
        return None, ""
    folder = Path(request.bundle)
    manifest = bundle.decode((folder / bundle.MANIFEST_FILE).read_bytes())
    recorded, form = _recorded_scores(folder, manifest, rows)
    if recorded is None or not len(recorded):
        return None, form
    return float(np.abs(recorded - live.score_frame(rows)).max()), form


def _recorded_scores(folder: Path, manifest: Manifest, rows: pl.DataFrame) -> tuple[NDArray[np.float64] | None, str]:
    try:
        return native.load_native_folder(folder, manifest).score_frame(rows), "native form"
    except InstarError:  # another version of its library cannot unpickle it
        if manifest.portable is None:
            return None, "none: the recorded model cannot be loaded in this environment"
    portable = PortableModel.load(manifest, folder / bundle.portable_file(manifest))
    columns = {name: rows[name].to_list() for name in rows.columns}
    return np.asarray(portable.score(columns), dtype=np.float64), "portable form"


def _others(step: Step, request: Request) -> dict[str, Any]:
    return {
        item.name: forms.convert(pl.scan_parquet(request.tables[item.name]), item.form)
        for item in step.inputs
        if item.name != request.table
    }


def _as_declared(step: Step, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from their JSON: a tuple comes back as a list, and is made one again where the default is one."""
    return {
        name: tuple(value) if isinstance(value, list) and isinstance(step.parameters.get(name), tuple) else value
        for name, value in parameters.items()
    }
