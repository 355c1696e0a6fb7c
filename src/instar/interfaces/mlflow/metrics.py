"""Histories of metrics over MLflow's protocol: paged, of many runs at once, and thinned out for a curve."""

from __future__ import annotations

from collections.abc import Iterable

from instar.core.identity import Permission
from instar.interfaces.mlflow.errors import invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import page_size
from instar.interfaces.mlflow.messages import (
    GetMetricHistory,
    GetMetricHistoryBulk,
    GetMetricHistoryBulkInterval,
    MetricOut,
)
from instar.interfaces.mlflow.runs import find, of_project
from instar.interfaces.mlflow.words import number
from instar.train import histories, sampling
from instar.train.histories import PointRow

MOST_POINTS = 25_000
MOST_RUNS = 100
MOST_POINTS_A_CURVE = 2_500


class Points(Message):
    """Answer: values of a metric."""

    metrics: list[MetricOut]
    next_page_token: str | None = None


def history(call: Call, asked: GetMetricHistory) -> Points:
    """All values of a metric of a run, or a page of them."""
    run = find(call, asked)
    key = required(asked.metric_key, "metric_key")
    if asked.max_results is None and not asked.page_token:
        with call.store.database.read() as tx:
            return Points(_shown(key, histories.every_point(tx, run.key, key)))
    limit = page_size(asked.max_results, MOST_POINTS, 2**31) if asked.max_results is not None else None
    page = histories.points(call.store, run.id, key, limit=limit, token=asked.page_token or None)
    return Points(_shown(key, page.items), page.token)


def bulk(call: Call, asked: GetMetricHistoryBulk) -> Points:
    """Values of a metric of several runs, at most 25,000 in all."""
    key = required(asked.metric_key, "metric_key")
    runs = sorted({of_project(call, run).id for run in _runs(asked.run_id, "run_id")})
    limit = min(page_size(asked.max_results, MOST_POINTS, 2**31), MOST_POINTS)
    found: list[MetricOut] = []
    for run in runs:
        page = histories.points(call.store, run, key, limit=limit - len(found)) if len(found) < limit else None
        found += _shown(key, page.items if page is not None else (), run)
    return Points(found)


def interval(call: Call, asked: GetMetricHistoryBulkInterval) -> Points:
    """Values of a metric of several runs, thinned out to so many a run, its first and last among them."""
    key = required(asked.metric_key, "metric_key")
    runs = [of_project(call, run).id for run in _runs(asked.run_ids, "run_ids")]
    if (asked.start_step is None) != (asked.end_step is None):
        raise invalid("If either start step or end step are specified, both must be specified.")
    if asked.start_step is not None and asked.end_step is not None and asked.start_step > asked.end_step:
        raise invalid(
            "end_step must be greater than start_step. "
            f"Found start_step={asked.start_step} and end_step={asked.end_step}."
        )
    limit = page_size(asked.max_results, MOST_POINTS_A_CURVE, MOST_POINTS_A_CURVE)
    found = sampling.intervals(
        call.store, runs, key, max_results=limit, start_step=asked.start_step, end_step=asked.end_step
    )
    return Points([point for run, rows in found.items() for point in _shown(key, rows, run)])


def _shown(key: str, rows: Iterable[PointRow], run: str | None = None) -> list[MetricOut]:
    # The usual numbers are told from the three others by arithmetic, which is quicker than asking, and asked for here:
    # of a hundred thousand points, a call for each would be a fifth of the work.
    return [
        MetricOut(key, value if value is not None and value - value == 0 else number(value), at // 1000, step, run)
        for step, at, value in rows
    ]


def _runs(asked: list[str] | None, name: str) -> list[str]:
    if not asked:
        raise invalid(f"Missing value for required parameter '{name}': at least one run.")
    if len(asked) > MOST_RUNS:
        raise invalid(f"The request cannot specify more than {MOST_RUNS} {name}. Received {len(asked)} {name}.")
    return asked


operations = [
    Operation("GET", "metrics/get-history", Permission.READ, history, GetMetricHistory),
    Operation("GET", "metrics/get-history-bulk", Permission.READ, bulk, GetMetricHistoryBulk),
    Operation("GET", "metrics/get-history-bulk-interval", Permission.READ, interval, GetMetricHistoryBulkInterval),
]
