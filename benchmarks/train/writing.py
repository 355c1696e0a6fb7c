"""Logging: runs created, single metrics, batches of 1,000, and single calls while eight threads log batches."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from statistics import median
from typing import Any

from wire import Wire, encoded

BATCH = 1000
CROWD = 8
CROWD_BATCH = 100


def experiment(wire: Wire, name: str) -> str:
    """A new experiment."""
    return str(wire.post("experiments/create", {"name": f"{name} {time.time_ns()}"})["experiment_id"])


def run(wire: Wire, experiment_id: str) -> str:
    """A new run."""
    body = {"experiment_id": experiment_id, "start_time": time.time_ns() // 1_000_000, "tags": []}
    return str(wire.post("runs/create", body)["run"]["info"]["run_id"])


def points(count: int, first: int = 0, name: str = "loss") -> list[dict[str, Any]]:
    """Metrics of one batch."""
    now = time.time_ns() // 1_000_000
    return [
        {"key": name, "value": 1.0 / (step + 1), "timestamp": now + step, "step": step}
        for step in range(first, first + count)
    ]


def single_calls(url: str, seconds: float) -> dict[str, float]:
    """Runs created and metrics logged one a call, per second; and the round trip of a call that only asks."""
    with Wire(url) as wire:
        group = experiment(wire, "single")
        created = _rate(lambda n: run(wire, group), seconds)
        one = run(wire, group)
        step = itertools.count()
        now = time.time_ns() // 1_000_000

        def log(n: int) -> None:
            body = {"run_id": one, "key": "loss", "value": 0.5, "timestamp": now + n, "step": next(step)}
            wire.post("runs/log-metric", body)

        logged = _rate(log, seconds)
        asked = _rate(lambda n: wire.send("GET", "/version"), seconds / 2)
    return {"runs created/s": created, "single metrics/s": logged, "round trip ms": 1000 / asked}


def batches(url: str, seconds: float) -> dict[str, float]:
    """Metrics per second, 1,000 a call."""
    with Wire(url) as wire:
        group = experiment(wire, "batches")
        one = run(wire, group)
        bodies = (encoded({"run_id": one, "metrics": points(BATCH, n * BATCH)}) for n in itertools.count())
        first = [next(bodies) for _ in range(8)]  # made before the clock runs; later ones while it stands
        rates = []
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline or len(rates) < 3:
            body = first.pop() if first else next(bodies)
            began = time.perf_counter()
            wire.post("runs/log-batch", body)
            rates.append(BATCH / (time.perf_counter() - began))
    return {"batches: metrics/s": median(rates)}


def crowd(url: str, seconds: float) -> dict[str, float]:
    """Eight threads log batches of 100 into runs of their own; meanwhile somebody else logs single metrics."""
    counted = multiprocessing.Array("l", CROWD)
    stop = multiprocessing.Event()
    ready = multiprocessing.Barrier(2)
    others = multiprocessing.Process(target=_crowd, args=(url, counted, stop, ready))
    others.start()
    with Wire(url) as wire:
        one = run(wire, experiment(wire, "beside a crowd"))
        ready.wait(60)
        began, before, taken = time.perf_counter(), sum(counted), []
        for step in itertools.count():
            start = time.perf_counter()
            body = {"run_id": one, "key": "loss", "value": 0.5, "timestamp": 1_700_000_000_000 + step, "step": step}
            wire.post("runs/log-metric", body)
            taken.append(time.perf_counter() - start)
            if time.perf_counter() - began > seconds and len(taken) >= 20:
                break
        rate = (sum(counted) - before) / (time.perf_counter() - began)
        stop.set()
    others.join(120)
    if others.exitcode != 0:
        raise SystemExit("a thread of the crowd was refused")
    taken.sort()
    p99 = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
    return {
        "8 threads: metrics/s": rate,
        "beside them: p50 ms": 1000 * median(taken),
        "beside them: p99 ms": 1000 * p99,
    }


def _crowd(url: str, counted: Any, stop: Any, ready: Any) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with Wire(url) as wire:
                one = run(wire, groups[number])
                for n in itertools.count():
                    if stop.is_set():
                        return
                    wire.post("runs/log-batch", {"run_id": one, "metrics": points(CROWD_BATCH, n * CROWD_BATCH)})
                    counted[number] += CROWD_BATCH
        except BaseException as problem:
            failed.append(problem)
            raise

    with Wire(url) as first:
        groups = [experiment(first, f"crowd {number}") for number in range(CROWD)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CROWD)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    ready.wait(60)
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(1)


def _rate(call: Any, seconds: float) -> float:
    """Calls per second, of the median call: what a busy moment of the machine takes is no figure of the server."""
    for n in range(3):
        call(n)
    taken, deadline = [], time.perf_counter() + seconds
    n = 3
    while time.perf_counter() < deadline or len(taken) < 10:
        began = time.perf_counter()
        call(n)
        taken.append(time.perf_counter() - began)
        n += 1
    return 1 / median(taken)
