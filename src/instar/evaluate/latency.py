"""The latency of a bundle before it serves: single rows through its loaded form, in this process.

It leaves out HTTP and queueing, which are the same for every version, so that a verdict on a busy machine is about the
model. A load probe of the data plane may be handed to `evaluation.evaluate` in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import polars as pl

from instar.evaluate.gates import Latency
from instar.evaluate.scoring import Scorer, columns_of

CALLS = 300
WARM_UP = 20

Probe = Callable[[Scorer, pl.DataFrame], Latency]


def measure_in_process(scorer: Scorer, rows: pl.DataFrame, calls: int = CALLS) -> Latency:
    """Score `calls` single rows one after the other and take the quantiles of their times.

    Args:
        scorer: The loaded bundle.
        rows: Real rows to take turns with; at least one.
        calls: Timed calls; a p99 wants 100 or more.
    """
    columns = columns_of(rows.head(calls), scorer.manifest)
    height = min(rows.height, calls)
    requests = [{name: values[row : row + 1] for name, values in columns.items()} for row in range(height)]
    for turn in range(WARM_UP):
        scorer.score(requests[turn % height])
    seconds = np.empty(calls)
    for turn in range(calls):
        request = requests[turn % height]
        began = time.perf_counter()
        scorer.score(request)
        seconds[turn] = time.perf_counter() - began
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000.0
    return Latency(float(p50), float(p99), calls, f"{scorer.form} form in process, one row a call")
