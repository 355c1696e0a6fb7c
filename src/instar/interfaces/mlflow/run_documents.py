"""A run as MLflow's clients see it, whoever made it: info, data, inputs and outputs, whenever one is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.store import Store
from instar.interfaces.mlflow.inputs import inputs_of, outputs_of
from instar.interfaces.mlflow.messages import MetricOut, Pair, RunData, RunInfo, RunInputs, RunOut, RunOutputs
from instar.interfaces.mlflow.words import STATUSES, milliseconds, number, text
from instar.train.histories import LatestRow, latest
from instar.train.run_records import Run

NAME_TAG, USER_TAG = "mlflow.runName", "mlflow.user"


def whole(store: Store, runs: Sequence[Run]) -> list[RunOut]:
    """Runs with all that belongs to them, in a few queries however many they are."""
    points = latest(store, [run.key for run in runs])
    inputs, outputs = inputs_of(store, runs), outputs_of(store, runs)
    return [document(run, points.get(run.key, ()), inputs.get(run.id), outputs.get(run.id)) for run in runs]


def document(
    run: Run, points: Sequence[LatestRow] = (), inputs: RunInputs | None = None, outputs: RunOutputs | None = None
) -> RunOut:
    """A run, with the latest values of its metrics."""
    data = RunData(
        metrics=[metric(name, value, step, at) for name, value, step, at in points],
        params=[Pair(key, text(value)) for key, value in run.parameters.items()],
        tags=[Pair(key, value) for key, value in run.tags.items()],
    )
    if NAME_TAG not in run.tags:
        data.tags.append(Pair(NAME_TAG, shown_name(run)))
    return RunOut(info=info(run), data=data, inputs=inputs or RunInputs(), outputs=outputs or RunOutputs())


def info(run: Run) -> RunInfo:
    """What a run is: ids, name, status, times."""
    return RunInfo(
        run_id=run.id,
        run_uuid=run.id,
        run_name=shown_name(run),
        experiment_id=run.experiment_id,
        user_id=run.user or run.actor,
        status=STATUSES[run.state],
        start_time=milliseconds(run.started),
        end_time=milliseconds(run.ended) if run.ended is not None else None,
        artifact_uri=artifact_uri(run),
        lifecycle_stage=run.lifecycle,
    )


def metric(name: str, value: float, step: int, at: int, run_id: str | None = None) -> MetricOut:
    """One value of a metric; `at` in microseconds since 1970."""
    # The usual numbers are told from the three others by arithmetic, which is quicker than asking.
    return MetricOut(name, value if value - value == 0 else number(value), at // 1000, step, run_id)


def shown_name(run: Run) -> str:
    """A run's name; the pipeline's runs have none but that of their step."""
    return run.name or run.tags.get(NAME_TAG) or run.step or run.id


def artifact_uri(run: Run) -> str:
    """Where a run's artifacts are, as clients address them."""
    return f"mlflow-artifacts:/{run.experiment_id}/{run.id}/artifacts"
