"""Metrics of the running service in Prometheus' words, made on first use so that importing costs nothing.

counter("instar_calls_total", "Calls answered", ("endpoint", "status")).labels("delay", "200").inc()
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

# Seconds: from well under a cached answer (0.25 ms) to a request that a caller has given up on.
LATENCY_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@cache
def counter(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
    """The counter of that name in this process."""
    from prometheus_client import Counter

    return Counter(name, help_text, labels)


@cache
def gauge(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Gauge:
    """The gauge of that name in this process."""
    from prometheus_client import Gauge

    return Gauge(name, help_text, labels)


@cache
def histogram(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Histogram:
    """The histogram of that name in this process, in seconds."""
    from prometheus_client import Histogram

    return Histogram(name, help_text, labels, buckets=LATENCY_BUCKETS)


def register(collector: Any) -> None:
    """Show what a collector counts by itself, too."""
    from prometheus_client import REGISTRY

    REGISTRY.register(collector)


def exposition() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest()
