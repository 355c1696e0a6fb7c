"""Counts and latencies of calls while a gateway answers them, in a form that costs nothing until somebody asks for metrics.

Prometheus' own counters take some microseconds a call; here a call adds to two lists, and metrics are made when they are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from instar.core.telemetry import LATENCY_BUCKETS

_BOUNDS_NS = [int(bound * 1e9) for bound in LATENCY_BUCKETS]


class Meter:
    """What became of the calls of one endpoint."""

    __slots__ = ("buckets", "statuses", "total_ns")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(_BOUNDS_NS) + 1)
        self.total_ns = 0

    def add(self, status: int, nanoseconds: int) -> None:
        """One call was answered or refused."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(_BOUNDS_NS, nanoseconds)] += 1
        self.total_ns += nanoseconds

    def refuse(self, status: int) -> None:
        """One call was turned away before it flew: it has no latency."""
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Meters:
    """The meters of a gateway by endpoint, as a collector of Prometheus.

    Attributes:
        unrecorded: Answers that were given though their record could not be kept.
    """

    def __init__(self) -> None:
        self._by_endpoint: dict[str, Meter] = {}
        self.unrecorded = 0

    def of(self, endpoint: str) -> Meter:
        """The meter of an endpoint."""
        meter = self._by_endpoint.get(endpoint)
        if meter is None:
            meter = self._by_endpoint[endpoint] = Meter()
        return meter

    def collect(self) -> Iterable[Any]:
        """The metrics, as Prometheus' library asks for them."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        calls = CounterMetricFamily("instar_calls", "Calls, answered or failed", labels=("endpoint", "status"))
        seconds = HistogramMetricFamily(
            "instar_call_seconds", "Time from a request's last byte to its answer, seconds", labels=("endpoint",)
        )
        for endpoint, meter in sorted(self._by_endpoint.items()):
            for status, count in sorted(meter.statuses.items()):
                calls.add_metric((endpoint, str(status)), count)
            total, buckets = 0, []
            for bound, count in zip([*map(str, LATENCY_BUCKETS), "+Inf"], meter.buckets, strict=True):
                total += count
                buckets.append((bound, total))
            seconds.add_metric((endpoint,), buckets, meter.total_ns / 1e9)
        missing = CounterMetricFamily(
            "instar_unrecorded_answers", "Answers given though their record could not be kept", value=self.unrecorded
        )
        return (calls, seconds, missing)
