"""The messages of tracking: what clients send about experiments, runs, metrics and data sets, and what they get.

Field names are the protocol's. Every field may be absent; what an operation requires, it asks for itself.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, field

from instar.interfaces.mlflow.frame import Message

# Outside of 64 bits neither the protocol nor a database has numbers.
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Choice = str | int | None  # an enumeration: by name or by number


class Pair(Message):
    """A tag or a parameter."""

    key: str | None = None
    value: str | None = None


class MetricIn(Message):
    """One value of a metric as it arrives."""

    key: str | None = None
    value: float | None = None
    timestamp: Int64 | None = None
    step: Int64 | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


# Experiments


class CreateExperiment(Message):
    name: str | None = None
    artifact_location: str | None = None
    tags: list[Pair] | None = None


class OfExperiment(Message):
    """Names an experiment; with a key and a value, one of its tags; with `new_name`, what it is to be called."""

    experiment_id: str | None = None
    key: str | None = None
    value: str | None = None
    new_name: str | None = None


class GetExperimentByName(Message):
    experiment_name: str | None = None


class SearchExperiments(Message):
    max_results: Int64 | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] | None = None
    view_type: Choice = None


class ExperimentOut(Message):
    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    workspace: str
    tags: list[Pair] = field(default_factory=list)


# Runs


class CreateRun(Message):
    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: Int64 | None = None
    tags: list[Pair] | None = None


class OfRun(Message):
    """Names a run, by its id or by the name that the field had once."""

    run_id: str | None = None
    run_uuid: str | None = None


class UpdateRun(OfRun):
    status: Choice = None
    end_time: Int64 | None = None
    run_name: str | None = None


class SetTag(OfRun):
    """A tag or a parameter of a run; deleting a tag names no value."""

    key: str | None = None
    value: str | None = None


class LogMetric(MetricIn):
    """One value of a metric, and the run that it is of."""

    run_id: str | None = None
    run_uuid: str | None = None


class LogBatch(OfRun):
    metrics: list[MetricIn] | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


class LogModel(OfRun):
    model_json: str | None = None


class SearchRuns(Message):
    experiment_ids: list[str] | None = None
    filter: str | None = None
    run_view_type: Choice = None
    max_results: Int64 | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class RunInfo(Message):
    run_id: str
    run_uuid: str
    run_name: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    artifact_uri: str
    lifecycle_stage: str
    end_time: int | None = None


class MetricOut(Message):
    key: str
    value: float | str  # "NaN", "Infinity" and "-Infinity" where JSON has no number
    timestamp: int
    step: int
    run_id: str | None = None


class RunData(Message):
    """What a run logged; parameters and tags may be JSON already."""

    metrics: list[MetricOut] = field(default_factory=list)
    params: list[Pair] | Raw = field(default_factory=list)
    tags: list[Pair] | Raw = field(default_factory=list)


class RunOut(Message):
    info: RunInfo
    data: RunData
    inputs: RunInputs
    outputs: RunOutputs


# Metric histories


class GetMetricHistory(OfRun):
    metric_key: str | None = None
    max_results: Int64 | None = None
    page_token: str | None = None


class GetMetricHistoryBulk(Message):
    run_id: list[str] | None = None
    metric_key: str | None = None
    max_results: Int64 | None = None


class GetMetricHistoryBulkInterval(Message):
    run_ids: list[str] | None = None
    metric_key: str | None = None
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    max_results: Int64 | None = None


# Inputs and outputs


class DatasetMessage(Message):
    name: str | None = None
    digest: str | None = None
    source_type: str | None = None
    source: str | None = None
    schema: str | None = None
    profile: str | None = None


class DatasetInput(Message):
    tags: list[Pair] | None = None
    dataset: DatasetMessage | None = None


class ModelInput(Message):
    model_id: str | None = None


class ModelOutput(Message):
    model_id: str | None = None
    step: Int64 | None = None


class LogInputs(OfRun):
    datasets: list[DatasetInput] | None = None
    models: list[ModelInput] | None = None


class LogOutputs(OfRun):
    models: list[ModelOutput] | None = None


class RunInputs(Message):
    dataset_inputs: list[DatasetInput] = field(default_factory=list)
    model_inputs: list[ModelInput] = field(default_factory=list)


class RunOutputs(Message):
    model_outputs: list[ModelOutput] = field(default_factory=list)


class SearchDatasets(Message):
    experiment_ids: list[str] | None = None


class DatasetSummary(Message):
    experiment_id: str
    name: str
    digest: str
    context: str | None = None
