"""A run as MLflow's clients see it, whoever made it: info, data, inputs and outputs, whenever one is asked for.

Whole runs are made of the database's rows and of JSON that it writes itself, so that a page of thousands costs little; only
the values of metrics, which no database is sure to write exactly, pass through our hands one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Raw

from instar.core.database import microseconds
from instar.core.store import Store
from instar.interfaces.mlflow.frame import ENCODER
from instar.interfaces.mlflow.inputs import inputs_of, outputs_of
from instar.interfaces.mlflow.messages import MetricOut, Pair, RunData, RunInfo, RunInputs, RunOut, RunOutputs
from instar.interfaces.mlflow.words import STATUSES, number, pairs
from instar.train import run_pages
from instar.train.histories import LatestRow, latest
from instar.train.run_fields import artifact_uri
from instar.train.run_pages import HeadRow
from instar.train.run_records import Run

NAME_TAG, USER_TAG = "mlflow.runName", "mlflow.user"


def whole(store: Store, keys: Sequence[int]) -> list[RunOut]:
    """The runs of those keys with all that belongs to them, in a few queries however many they are."""
    with store.database.read() as tx:
        heads = run_pages.heads(tx, keys)
        metrics = _metrics(latest(tx, keys))
        parameters, tags = run_pages.parameters(tx, keys), run_pages.tags(tx, keys, NAME_TAG)
    inputs, outputs = inputs_of(store, heads), outputs_of(store, heads)
    found = []
    for head in heads:
        key, id = head[0], head[1]
        marks, name = tags.get(key, ("[]", None))
        about = _info(head, name)
        data = RunData(metrics.get(key, []), tags=Raw(marks if name is not None else _named(marks, about.run_name)))
        if key in parameters:
            data.params = Raw(parameters[key])
        found.append(RunOut(about, data, inputs.get(key) or RunInputs(), outputs.get(id) or RunOutputs()))
    return found


def document(run: Run) -> RunOut:
    """A run that has logged nothing but tags yet."""
    about = info(run)
    data = RunData(tags=pairs({**run.tags, NAME_TAG: run.tags.get(NAME_TAG, about.run_name)}))
    return RunOut(info=about, data=data, inputs=RunInputs(), outputs=RunOutputs())


def info(run: Run) -> RunInfo:
    """What a run is: ids, name, status, times."""
    ended = microseconds(run.ended) if run.ended is not None else None
    head: HeadRow = (
        run.key, run.id, run.experiment_id, run.name, run.step, run.state, run.lifecycle, run.actor, run.user,
        microseconds(run.started), ended, "[]",
    )  # fmt: skip
    return _info(head, run.tags.get(NAME_TAG))


def _info(head: HeadRow, tagged: str | None) -> RunInfo:
    _, id, experiment, name, step, state, lifecycle, actor, user, started, ended, _ = head
    return RunInfo(
        run_id=id,
        run_uuid=id,
        run_name=name or tagged or step or id,  # the pipeline's runs have none but that of their step
        experiment_id=experiment,
        user_id=user or actor,
        status=STATUSES[state],
        start_time=started // 1000,
        end_time=ended // 1000 if ended is not None else None,
        artifact_uri=artifact_uri(experiment, id),
        lifecycle_stage=lifecycle,
    )


def _metrics(rows: Iterable[LatestRow]) -> dict[int, list[MetricOut]]:
    found: dict[int, list[MetricOut]] = {}
    for run, name, value, step, at in rows:
        shown = value if value is not None and value - value == 0 else number(value)
        found.setdefault(run, []).append(MetricOut(name, shown, at // 1000, step))
    return found


def _named(tags: str, name: str) -> str:
    """A JSON list of tags, with the run's name as one more of them."""
    tag = ENCODER.encode(Pair(NAME_TAG, name)).decode()
    return f"[{tag}]" if tags == "[]" else f"{tags[:-1]},{tag}]"
