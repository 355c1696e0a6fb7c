"""The real client, unmodified, in a process of its own: it takes turns between servers and prints what each call took.

python client.py URL NAME [URL NAME ...] -- TURNS EXPERIMENT_AND_RUN_IDS_AS_JSON
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

BATCH = 1000


def main(urls: dict[str, str], turns: int, names: dict[str, dict[str, str]]) -> None:
    """Measure each operation in turns between the servers, so that a busy machine slows all alike."""
    logging.disable(logging.WARNING)
    clients = {name: MlflowClient(url) for name, url in urls.items()}
    runs = {name: _run(client) for name, client in clients.items()}
    count = iter(range(10**9))

    def metric(name: str) -> None:
        clients[name].log_metric(runs[name], "loss", 0.5, step=next(count))

    def batch(name: str) -> None:
        now = time.time_ns() // 1_000_000
        first = next(count) * BATCH
        clients[name].log_batch(runs[name], [Metric("many", 0.5, now, first + n) for n in range(BATCH)])

    found = {
        "client: log_metric ms": _turns(metric, clients, turns * 5),
        "client: log_batch of 1,000 ms": _turns(batch, clients, turns),
    }
    real = {name: client for name, client in clients.items() if name in names}
    if real:

        def create(name: str) -> None:
            real[name].create_run(names[name]["experiment"])

        def search(name: str) -> None:
            filtered = "metrics.m0 > 0.5 and params.p0 = 'a'"
            real[name].search_runs([names[name]["experiment"]], filtered, order_by=["metrics.m1 DESC"], max_results=100)

        def history(name: str) -> None:
            real[name].get_metric_history(names[name]["long"], "loss")

        found["client: create_run ms"] = _turns(create, real, turns)
        found["client: search ms"] = _turns(search, real, turns)
        found["client: history ms"] = _turns(history, real, 2)
    print(json.dumps(found))


def _run(client: MlflowClient) -> str:
    try:
        return str(client.create_run(client.create_experiment(f"client {time.time_ns()}")).info.run_id)
    except Exception:
        return "0" * 32  # the server that answers nothing makes no runs


def _turns(work: Callable[[str], None], clients: dict[str, Any], turns: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in clients}
    for name in clients:
        work(name)
    for _ in range(turns):
        for name in clients:
            began = time.perf_counter()
            work(name)
            taken[name].append(1000 * (time.perf_counter() - began))
    return {name: median(values) for name, values in taken.items()}


if __name__ == "__main__":
    cut = sys.argv.index("--")
    pairs = sys.argv[1:cut]
    main(dict(zip(pairs[1::2], pairs[::2], strict=True)), int(sys.argv[cut + 1]), json.loads(sys.argv[cut + 2]))
