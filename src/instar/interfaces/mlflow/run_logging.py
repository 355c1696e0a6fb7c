"""Metrics, parameters and tags as they are logged over MLflow's protocol: the calls that training makes most.

One call is one transaction, all or nothing, and saying it again changes nothing: a client that got no answer may repeat.
Here are no objects per point: a message is decoded to structs, and a struct becomes the tuple that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from instar.core.database import Transaction, moment
from instar.core.errors import Conflict, NotFound
from instar.core.identity import Permission
from instar.interfaces.mlflow.errors import Refusal, invalid, missing
from instar.interfaces.mlflow.frame import Call, Operation, required
from instar.interfaces.mlflow.limits import check_batch, good_key, good_value
from instar.interfaces.mlflow.messages import LogBatch, LogMetric, MetricIn, Pair, SetTag
from instar.interfaces.mlflow.run_documents import NAME_TAG
from instar.interfaces.mlflow.words import LATEST_MILLISECOND
from instar.train import model_links, runs
from instar.train.model_links import ModelMetric
from instar.train.run_records import Metric
from instar.train.run_values import Point

_MODEL = attrgetter("model_id")
Also = Callable[[Transaction], None]


def log_metric(call: Call, asked: LogMetric) -> dict[str, str]:
    """Log one value of a metric of a run."""
    run = required(asked.run_id or asked.run_uuid, "run_id")
    point = (good_key(required(asked.key, "key")), *_measured(asked, ""))
    log(call, run, points=[point], also=_of_models(run, [asked], [point]))
    return {}


def log_parameter(call: Call, asked: SetTag) -> dict[str, str]:
    """Log a parameter of a run; it never changes."""
    run = required(asked.run_id or asked.run_uuid, "run_id")
    log(call, run, parameters={good_key(required(asked.key, "key")): good_value(asked.value)})
    return {}


def log_batch(call: Call, asked: LogBatch) -> dict[str, str]:
    """Log metrics, parameters and tags of a run at once, all or nothing."""
    run = required(asked.run_id or asked.run_uuid, "run_id")
    metrics, params, tags = asked.metrics or [], asked.params or [], asked.tags or []
    check_batch(len(metrics), len(params), len(tags))
    points = _points(metrics)
    log(
        call,
        run,
        points=points,
        parameters=_parameters(params),
        tags={good_key(_named(tag, "tags", place)): good_value(tag.value) for place, tag in enumerate(tags)},
        also=_of_models(run, metrics, points),
    )
    return {}


def log(
    call: Call,
    run: str,
    *,
    points: Sequence[Point] = (),
    parameters: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    also: Also | None = None,
) -> None:
    """Log to a run of the call's project, with MLflow's words for what is refused.

    Raises:
        Refusal: There is no such run, it is deleted, or a parameter has another value already.
    """
    name = (tags or {}).get(NAME_TAG) or None
    try:
        runs.log(
            call.store, run, points=points, parameters=parameters, tags=tags, name=name, project=call.project, also=also
        )
    except NotFound as error:
        if error.subject != f"run {run}":
            raise
        raise Refusal("RESOURCE_DOES_NOT_EXIST", f"Run with id={run[:100]} not found") from error
    except Conflict as error:
        raise _in_words(error, run) from error


def _of_models(run: str, metrics: Sequence[MetricIn], points: Sequence[Point]) -> Also | None:
    """What keeps the metrics that name a model under that model, too, in the same transaction."""
    if not any(map(_MODEL, metrics)):
        return None
    named = [
        ModelMetric(
            metric.model_id,
            Metric(name, value, step, moment(at)),
            metric.dataset_name or "",
            metric.dataset_digest or "",
        )
        for metric, (name, value, step, at) in zip(metrics, points, strict=True)
        if metric.model_id
    ]
    return lambda tx: model_links.put_metrics(tx, run, named)


def _in_words(error: Conflict, run: str) -> Refusal:
    _, _, name = error.subject.partition(", parameter ")
    if not name:
        return invalid(f"The run {run} must be in the 'active' state. Current state is {error.found}.")
    return invalid(
        f"Changing param values is not allowed. Param with key='{name}' was already logged with value='{error.found}' "
        f"for run ID='{run}'. Attempted logging new value '{error.asked}'."
    )


def _points(metrics: Sequence[MetricIn]) -> list[Point]:
    """All points as they are written.

    Raises:
        Refusal: It names the first that cannot be one, and why.
    """
    found = [(metric.key, metric.value, metric.step or 0, metric.timestamp) for metric in metrics]
    if not found:
        return []
    keys, values, _, moments = zip(*found, strict=True)
    if None in values or None in moments or min(moments) < 0 or max(moments) > LATEST_MILLISECOND:
        for place, metric in enumerate(metrics):
            _measured(metric, f"metrics[{place}].")
    for key in set(keys):
        good_key(key or _named(MetricIn(), "metrics", keys.index(key)))
    return [(key, value, step, moment * 1000) for key, value, step, moment in found]  # type: ignore[operator,misc]


def _measured(metric: MetricIn, path: str) -> tuple[float, int, int]:
    """Value, step and microseconds since 1970.

    Raises:
        Refusal: The value or the time is absent, or the time cannot be one.
    """
    if metric.value is None:
        raise missing(f"{path}value")
    if metric.timestamp is None:
        raise missing(f"{path}timestamp")
    if not 0 <= metric.timestamp <= LATEST_MILLISECOND:
        raise invalid(
            f"Invalid value {metric.timestamp} for parameter '{path}timestamp' supplied. "
            "It must be a nonnegative number of milliseconds since 1970."
        )
    return metric.value, metric.step or 0, metric.timestamp * 1000


def _parameters(params: Sequence[Pair]) -> dict[str, str]:
    found: dict[str, str] = {}
    twice = []
    for place, param in enumerate(params):
        key = good_key(_named(param, "params", place))
        value = good_value(param.value)
        if found.setdefault(key, value) != value:
            twice.append(key)
    if twice:
        raise invalid(
            f"Duplicate parameter keys have been submitted: {twice}. "
            "Please ensure the request contains only one param value per param key."
        )
    return found


def _named(thing: MetricIn | Pair, kind: str, place: int) -> str:
    if not thing.key:
        raise missing(f"{kind}[{place}].key")
    return thing.key


operations = [
    Operation("POST", "runs/log-metric", Permission.TRAIN, log_metric, LogMetric),
    Operation("POST", "runs/log-parameter", Permission.TRAIN, log_parameter, SetTag),
    Operation("POST", "runs/log-batch", Permission.TRAIN, log_batch, LogBatch),
]
