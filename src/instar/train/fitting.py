"""One fit: the user's function is given its rows, and what it returns is proven, scored and described by numbers.

Which columns are features is the contract's word; which rows they are is the caller's. The function sees features and
target only, in the form that its annotation asks for, with chance seeded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.core import ids
from instar.core.errors import ContractError, PipelineError, StepFailed
from instar.plan.cost import Cost, best_threshold, mean_cost, neutral_threshold
from instar.plan.pipeline import Input, Step
from instar.plan.project import Problem, Split
from instar.train import seeds
from instar.train.frames import as_form
from instar.train.native import NativeModel
from instar.train.signature import normalise, signature


@dataclass(frozen=True)
class Material:
    """What a model step is fitted on.

    Attributes:
        table: The step's input with features and target.
        form: Kind of frame that the model is fitted on and predicts from: `"polars"`, `"pandas"` or `"pyarrow"`.
        features: Columns, in the order of the frame.
        key: Columns that name the entity of a row.
        event_time: Column with the time of a row.
    """

    table: Input
    form: str
    features: tuple[str, ...]
    target: str
    key: tuple[str, ...]
    event_time: str

    def given(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Features and target of `rows`, in the types that a call can bring."""
        return normalise(rows.select(self.features)).with_columns(rows[self.target])

    def truth(self, rows: pl.DataFrame) -> NDArray[np.bool_]:
        """The target of `rows` as truth values, shape (n,)."""
        found: NDArray[np.bool_] = rows[self.target].cast(pl.Boolean).to_numpy()
        return found


@dataclass(frozen=True)
class Fitted:
    """What one fit came to.

    Attributes:
        scores: Of the `decide` rows, shape (n,).
        truth: Of the same rows.
        metrics: `cost` a row and others by name, see `quality`; `fit_rows`, `fit_seconds`.
    """

    model: Any
    threshold: float
    scores: NDArray[np.float64]
    truth: NDArray[np.bool_]
    metrics: dict[str, float]


def material(step: Step, table: Input, made_by: Step, problem: Problem, rows: pl.DataFrame) -> Material:
    """Read from contract and pipeline what `step` is fitted on.

    Args:
        step: The model or baseline.
        table: Its input with the target.
        made_by: The gold step that makes that table.
        rows: Rows of the table.

    Raises:
        ContractError: The target or a listed feature is no column of the table, or the target is no yes or no.
        PipelineError: The gold step names no event time.
    """
    event_time = made_by.options.get("event_time")
    if not event_time:
        raise PipelineError(
            "its rows have no event time, so they cannot be cut for judging", subject=f"table {table.name}",
            asked=f"@gold(event_time=…) on {made_by.name}",
        )  # fmt: skip
    key = _names(made_by.options.get("entity") or made_by.options.get("key"))
    _prove_target(problem.target, table.name, rows)
    times = [event_time, made_by.options.get("created_time")]
    left_out = {problem.target, *key, *_names(made_by.options.get("key")), *(name for name in times if name)}
    if problem.features == "all":
        features = [name for name in rows.columns if name not in left_out and not name.startswith("_")]
    else:
        features = list(problem.features)
        _prove_listed(features, problem.target, table.name, rows)
    if not features:
        raise ContractError("no column is left to be a feature", subject=f"table {table.name}", found=str(rows.columns))
    return Material(table, form_of(table), tuple(features), problem.target, key, event_time)


def form_of(table: Input) -> str:
    """The kind of frame behind an annotation."""
    return {"pandas.DataFrame": "pandas", "pyarrow.Table": "pyarrow"}.get(table.form, "polars")


def call(
    step: Step, material: Material, given: pl.DataFrame, parameters: Mapping[str, Any], others: Mapping[str, Any]
) -> Any:
    """Call the step's function and prove that a model came back.

    Args:
        given: Features and target of the rows to fit on.
        parameters: Values of its parameters.
        others: Its other inputs, by name.

    Raises:
        StepFailed: The function raised, or returned something that cannot predict.
    """
    assert step.function is not None
    seed = seed_of(step)
    if "seed" in step.parameters:
        parameters = {"seed": seed, **parameters}
    frame = given.lazy() if material.table.form == "polars.LazyFrame" else as_form(given, material.form)
    seeds.plant(seed)
    try:
        model = step.function(**{**others, material.table.name: frame}, **parameters)
    except Exception as error:
        raise StepFailed(
            f"its function raised {type(error).__name__}: {error}", subject=f"step {step.name}",
            next_step="Call the function in a test with a few rows, or see the run: instar runs ls",
        ) from error  # fmt: skip
    wanted = "predict" if step.kind == "baseline" else "predict_proba(frame) or predict"
    if not any(callable(getattr(model, name, None)) for name in ("predict_proba", "predict")):
        raise StepFailed(
            "what it returned cannot predict", subject=f"step {step.name}", found=type(model).__qualname__,
            asked=f"an object with {wanted}(frame)",
        )  # fmt: skip
    return model


def once(
    step: Step,
    problem: Problem,
    material: Material,
    fit: pl.DataFrame,
    decide_on: pl.DataFrame,
    parameters: Mapping[str, Any],
    others: Mapping[str, Any],
) -> Fitted:
    """Fit on some rows, and choose the threshold and measure on others.

    Raises:
        StepFailed: The function raised, or returned what cannot predict.
    """
    given = material.given(fit)
    begun = time.perf_counter()
    model = call(step, material, given, parameters, others)
    seconds = time.perf_counter() - begun
    live = NativeModel(model, signature(given.select(material.features)), material.form, f"step {step.name}")
    scores = live.score_frame(material.given(decide_on).select(material.features))
    truth = material.truth(decide_on)
    threshold = decide(problem.cost, truth, scores, problem.split)
    found = quality(problem.cost, truth, scores, threshold)
    found |= {"fit_rows": float(given.height), "fit_seconds": seconds}
    return Fitted(model, threshold, scores, truth, found)


def digest_of_scores(scores: NDArray[np.float64]) -> str:
    """Digest of scores, bit for bit."""
    return ids.digest(np.ascontiguousarray(scores, dtype="<f8").tobytes())


def seed_of(step: Step) -> int:
    """The seed that is planted before the step's function is called."""
    return int(step.options.get("seed") or 0)


def decide(cost: Cost, truth: NDArray[np.bool_], scores: NDArray[np.float64], split: Split) -> float:
    """The threshold with the least cost on these rows; the neutral one on too few of them, or where the contract says so."""
    if split.threshold == "neutral" or len(scores) < split.min_rows:
        return neutral_threshold(cost)
    return best_threshold(cost, truth, scores)


def quality(cost: Cost, truth: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """Metrics of a trial: mean cost a row; and where scores are probabilities, log loss (nats) and Brier score."""
    found = {"cost": mean_cost(cost, truth, scores >= threshold), "threshold": threshold, "rows": float(len(scores))}
    if len(scores) and scores.min() >= 0.0 and scores.max() <= 1.0:
        sure = np.clip(np.where(truth, scores, 1.0 - scores), 1e-15, 1.0)
        found["log_loss"] = float(-np.log(sure).mean())
        found["brier"] = float(((scores - truth) ** 2).mean())
    return found


def sample(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` rows, evenly spaced: the same ones each time."""
    return rows if rows.height <= most else rows.gather_every(-(-rows.height // most))


def _names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _prove_target(target: str, table: str, rows: pl.DataFrame) -> None:
    if target not in rows.columns:
        raise ContractError(
            "the table has no such column", subject=f"target {target} of table {table}", asked=", ".join(rows.columns),
            next_step="Make the column in the gold step, or correct `target` in instar.toml.",
        )  # fmt: skip
    values = set(rows[target].drop_nulls().unique().head(5).to_list())
    if not values <= {0, 1}:
        raise ContractError(
            "the target of a binary problem is a yes or no", subject=f"target {target} of table {table}",
            found=f"{rows.schema[target]} with {sorted(map(str, values))}", asked="true and false, or 1 and 0",
        )  # fmt: skip


def _prove_listed(features: list[str], target: str, table: str, rows: pl.DataFrame) -> None:
    missing = [name for name in features if name not in rows.columns]
    if missing or target in features:
        raise ContractError(
            f"the table has no column {', '.join(missing)}" if missing else "the target cannot be a feature",
            subject=f"features of table {table}", asked=", ".join(name for name in rows.columns if name != target),
            next_step="Correct `features` of the problem in instar.toml.",
        )  # fmt: skip
