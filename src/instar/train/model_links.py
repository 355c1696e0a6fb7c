"""What joins runs, models and data sets: metrics that are a model's, and the models that a run made or read, while it is logged.

A metric of a model is a metric of its run, too, where it is kept with its whole history; here it is kept under the model,
with the data set that it was measured on, so that models can be compared without their runs.

    log_metrics(store, "run_…", [ModelMetric("m-…", Metric("auc", 0.91, 0, now), "test", "7f3a")])
    link(store, "run_…", MADE, [("m-…", 0)])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from instar.core import lineage
from instar.core.database import Instant, Transaction, fetch, metadata
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.train.logged_models import logged_model_table
from instar.train.run_records import Metric
from instar.train.tracking_tables import run_table

MADE, READ = "made", "read"

model_metric_table = sa.Table(
    "logged_model_metric",
    metadata,
    sa.Column("model", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("dataset_name", sa.String(500), primary_key=True),
    sa.Column("dataset_digest", sa.String(80), primary_key=True),
    sa.Column("run", sa.String(60), primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, primary_key=True),
    sa.Column("value", sa.Float(53), nullable=False),
    sa.Column("nan", sa.SmallInteger, nullable=False),  # 1: no number, which SQLite cannot hold; its value is 0
)
run_model_table = sa.Table(
    "run_model",
    metadata,
    sa.Column("run", sa.String(60), primary_key=True),
    sa.Column("role", sa.String(10), primary_key=True),
    sa.Column("model", sa.String(40), primary_key=True, index=True),
    sa.Column("step", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class ModelMetric:
    """A metric of a model, measured in a run on a data set; the set's name and digest are empty for none."""

    model: str
    metric: Metric
    dataset_name: str = ""
    dataset_digest: str = ""
    run: str = ""


def log_metrics(store: Store, run: str, metrics: Sequence[ModelMetric]) -> None:
    """Keep metrics under their models; equal points are kept once, a later value at the same place replaces.

    Raises:
        NotFound: There is no such model; then none is kept.
    """
    if metrics:
        store.database.write(lambda tx: put_metrics(tx, run, metrics))


def put_metrics(tx: Transaction, run: str, metrics: Sequence[ModelMetric]) -> None:
    """The same inside a transaction, such as the one that logs them to their run."""
    _require(tx, run, [one.model for one in metrics])
    rows = {_place(run, one): _row(run, one) for one in metrics}
    for row in rows.values():
        keys = [column == row[column.name] for column in model_metric_table.primary_key.columns]
        tx.execute(model_metric_table.delete().where(*keys))
    tx.execute(model_metric_table.insert(), list(rows.values()))


def metrics_of(tx: Transaction, models: Sequence[str]) -> dict[str, list[ModelMetric]]:
    """The latest value of each metric on each data set, by model."""
    latest: dict[str, dict[tuple[str, str, str], ModelMetric]] = {}
    query = sa.select(model_metric_table).where(model_metric_table.c.model.in_(models))
    order = (model_metric_table.c.name, model_metric_table.c.step, model_metric_table.c.at, model_metric_table.c.value)
    for row in tx.execute(query.order_by(*order)):
        value = math.nan if row.nan else row.value
        found = ModelMetric(
            row.model, Metric(row.name, value, row.step, row.at), row.dataset_name, row.dataset_digest, row.run
        )
        latest.setdefault(row.model, {})[row.name, row.dataset_name, row.dataset_digest] = found
    return {model: list(found.values()) for model, found in latest.items()}


def link(store: Store, run: str, role: str, models: Sequence[tuple[str, int]]) -> None:
    """Join models to a run that made or read them, each with the step at which it did; again is nothing.

    Raises:
        NotFound: There is no such model; then none is joined.
    """
    if models:
        store.database.write(lambda tx: put_links(tx, run, role, models))


def put_links(tx: Transaction, run: str, role: str, models: Sequence[tuple[str, int]]) -> None:
    """The same inside a transaction, such as the one that keeps the data sets which the run read."""
    project = _require(tx, run, [model for model, _ in models])
    for model, step in models:
        here = (run_model_table.c.run == run, run_model_table.c.role == role, run_model_table.c.model == model)
        tx.execute(run_model_table.delete().where(*here))
        tx.execute(run_model_table.insert().values(run=run, role=role, model=model, step=step))
        ends = (run, "logged", model) if role == MADE else (model, "was read by", run)
        lineage.link(tx, project, *ends)


def models_of(tx: Transaction, runs: Sequence[str], role: str) -> dict[str, list[tuple[str, int]]]:
    """The models that runs made or read, with their steps, by run."""
    if not runs:
        return {}
    query = f"SELECT run, model, step FROM run_model WHERE run IN ({','.join('?' * len(runs))}) AND role = ? ORDER BY step, model"
    found: dict[str, list[tuple[str, int]]] = {}
    for run, model, step in fetch(tx, query, (*runs, role)):
        found.setdefault(run, []).append((model, step))
    return found


def _require(tx: Transaction, run: str, models: Sequence[str]) -> str:
    """The project of the run, which must be the models', too."""
    project: str | None = tx.execute(sa.select(run_table.c.project).where(run_table.c.id == run)).scalar()
    if project is None:
        raise NotFound("there is no such run", subject=f"run {run}")
    at = logged_model_table.c
    query = sa.select(at.id).where(at.id.in_(models), at.project == project, at.deleted_at.is_(None))
    known = set(tx.execute(query).scalars())
    for model in models:
        if model not in known:
            raise NotFound("there is no such logged model", subject=f"model {model}")
    return project


def _place(run: str, one: ModelMetric) -> tuple[object, ...]:
    return (one.model, one.metric.name, one.dataset_name, one.dataset_digest, run, one.metric.step, one.metric.at)


def _row(run: str, one: ModelMetric) -> dict[str, object]:
    value = one.metric.value
    nan = math.isnan(value)
    return {
        "model": one.model, "name": one.metric.name, "dataset_name": one.dataset_name,
        "dataset_digest": one.dataset_digest, "run": run, "step": one.metric.step, "at": one.metric.at,
        "value": 0.0 if nan else value, "nan": int(nan),
    }  # fmt: skip
