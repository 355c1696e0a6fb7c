"""Logged models as MLflow's clients see them, whenever one is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa
from msgspec import field

from instar.core.store import Store
from instar.interfaces.mlflow.frame import Message
from instar.interfaces.mlflow.messages import Pair
from instar.interfaces.mlflow.places import SCHEME, model_root
from instar.interfaces.mlflow.words import milliseconds, number, pairs
from instar.release.version_records import version_table
from instar.train import model_links
from instar.train.logged_models import FAILED, PENDING, READY, LoggedModel

STATUSES = {
    PENDING: "LOGGED_MODEL_PENDING", READY: "LOGGED_MODEL_READY", FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}  # fmt: skip
NUMBERED_STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
VERSIONS_TAG = "mlflow.modelVersions"  # where clients look for what a model is registered as


class Registration(Message):
    name: str
    version: str


class ModelMetricOut(Message):
    key: str
    value: float | str
    timestamp: int
    step: int
    model_id: str
    run_id: str
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LoggedModelInfo(Message):
    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str | None = None
    source_run_id: str | None = None
    status_message: str | None = None
    tags: list[Pair] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)


class LoggedModelData(Message):
    params: list[Pair] = field(default_factory=list)
    metrics: list[ModelMetricOut] = field(default_factory=list)


class LoggedModelOut(Message):
    info: LoggedModelInfo
    data: LoggedModelData


def documents(store: Store, models: Sequence[LoggedModel]) -> list[LoggedModelOut]:
    """Models with their metrics and registrations, in two queries however many they are."""
    names = [model.id for model in models]
    with store.database.read() as tx:
        metrics = model_links.metrics_of(tx, names)
        query = sa.select(version_table.c.logged_model, version_table.c.model, version_table.c.number).where(
            version_table.c.logged_model.in_(names), version_table.c.deleted_at.is_(None)
        )
        registered: dict[str, list[Registration]] = {}
        for row in tx.execute(query.order_by(version_table.c.created_at, version_table.c.id)):
            registered.setdefault(row.logged_model, []).append(Registration(name=row.model, version=str(row.number)))
    return [_document(model, metrics.get(model.id, ()), registered.get(model.id, [])) for model in models]


def _document(
    model: LoggedModel, metrics: Sequence[model_links.ModelMetric], registered: list[Registration]
) -> LoggedModelOut:
    tags = dict(model.tags)
    if registered:
        tags[VERSIONS_TAG] = json.dumps([{"name": one.name, "version": one.version} for one in registered])
    info = LoggedModelInfo(
        model_id=model.id,
        experiment_id=model.experiment,
        name=model.name,
        creation_timestamp_ms=milliseconds(model.created_at),
        last_updated_timestamp_ms=milliseconds(model.updated_at),
        artifact_uri=SCHEME + model_root(model.experiment, model.id),
        status=STATUSES[model.state],
        model_type=model.model_type or None,
        source_run_id=model.run or None,
        status_message=model.reason or None,
        tags=pairs(tags),
        registrations=registered,
    )
    return LoggedModelOut(
        info=info, data=LoggedModelData(params=pairs(model.parameters), metrics=[_metric(one) for one in metrics])
    )


def _metric(one: model_links.ModelMetric) -> ModelMetricOut:
    return ModelMetricOut(
        key=one.metric.name,
        value=number(one.metric.value),
        timestamp=milliseconds(one.metric.at),
        step=one.metric.step,
        model_id=one.model,
        run_id=one.run,
        dataset_name=one.dataset_name or None,
        dataset_digest=one.dataset_digest or None,
    )
