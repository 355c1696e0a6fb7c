"""Finding calls on the record: one by its id, and pages by caller, time and inputs, among ten million predictions or a hundred.

    ./run bench record                        # 10 million, in a temporary folder, which needs 1 GB
    ./run bench record --predictions 100000000 --folder /big/disk      # 4 GB, and minutes

First segments are sealed as a gateway leaves them: sealing has to keep up with what is recorded, some 20,000 calls a second, or
240,000 predictions in calls of a hundred rows. Then predictions are written as sealing and merging write them (a test holds the
two to one layout), over 30 days, and beside them 1,000 small files as they are before a merge. There is no peer: servers that
people use today keep no record. Wanted: one call by its id in less than 50 ms, and a page by a range in seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import sealed
from generated import BEGIN, BOOT, PROJECT, fill, fill_small

from instar.app import open_app
from instar.core.ids import call_id
from instar.core.store import Store
from instar.serve.log import catalogue
from instar.serve.log.calls import CallLog
from instar.serve.log.searching import Query, condition, search

DAYS = 30
SMALL_ROWS = 500
ROOM = 60  # bytes of a prediction: twice what one takes without its proof


def main() -> int:
    """Fill, then measure; 1 when an id takes longer than wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predictions", type=int, default=10_000_000)
    parser.add_argument("--small", type=int, default=1000, help=f"small files beside, of {SMALL_ROWS} predictions each")
    parser.add_argument("--folder", type=Path, help="where the store is made; default a temporary folder")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="instar-record-", dir=given.folder))
    free = shutil.disk_usage(folder).free
    if free < given.predictions * ROOM:
        print(f"too little room in {folder}: {free / 1e9:.1f} GB, {given.predictions * ROOM / 1e9:.1f} GB are asked")
        return 1
    try:
        with open_app(str(folder), need_project=False) as app:
            sealed.seal(app.store, "single calls", 100_000, 1)
            sealed.seal(app.store, "calls of 100 rows", 1_200, 100)
            prepare(app.store, given.predictions, given.small)
            return ask(app.store, given.predictions, given.small)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(store: Store, predictions: int, small: int) -> None:
    """Fill a store and print what that took."""
    apart_us = _apart_us(predictions)
    started = time.perf_counter()
    fill(store, predictions, DAYS, processes=os.cpu_count() or 1)
    fill_small(store, small, SMALL_ROWS, predictions, apart_us)
    units = catalogue.units(store, project=PROJECT)
    size = sum(one.rows_size for one in units)
    total = predictions + small * SMALL_ROWS
    print(f"{total:,} predictions in {len(units)} files, {size / 1e9:.2f} GB, {size / total:.0f} bytes each;"
          f" written in {time.perf_counter() - started:.0f} s, peak memory {_peak_mb():.0f} MB")  # fmt: skip


def ask(store: Store, predictions: int, small: int) -> int:
    """Print what finding takes; 1 when an id takes longer than wanted."""
    worst = by_id(store, predictions + small * SMALL_ROWS, _apart_us(predictions))
    middle = BEGIN + timedelta(days=DAYS / 2)
    week = {"since": middle, "until": middle + timedelta(days=7)}
    questions: dict[str, Query] = {
        "newest 50": Query(),
        "a caller, a week": Query(caller="partner", **week),
        "a caller of one in 10,000, a week": Query(caller="batch", **week),
        "an input, a week": Query(inputs=(condition("carrier=UA"), condition("distance>4500")), **week),
        "an input, all days": Query(inputs=(condition("distance>6000"),)),
        "a score, all days": Query(score=(condition(">0.97", "score"),)),
        "an entity, a day": Query(entity="4711", since=middle, until=middle + timedelta(days=1)),
        "an entity, all days": Query(entity="4711"),
        "a caller that never called": Query(caller="nobody"),
    }
    print(f"{'question':36} {'s':>8} {'cpu s':>8} {'found':>6} {'files':>6}")
    for name, query in questions.items():
        seconds, busy, found = _timed(lambda query=query: search(store, CallLog(store), "flights", query))
        print(f"{name:36} {seconds:8.3f} {busy:8.3f} {len(found.rows):6} {found.files:6}")
    print(f"peak memory {_peak_mb():.0f} MB")
    return 0 if worst < 0.05 else 1


def by_id(store: Store, total: int, apart_us: int) -> float:
    """Find calls by id, each with a log that has seen nothing; returns the 99th percentile, seconds."""
    rng = np.random.default_rng(1)
    begin_us = int(BEGIN.timestamp()) * 1_000_000
    numbers = [*rng.integers(0, total, 150).tolist(), *rng.integers(total - 500_000, total, 50).tolist()]
    took: list[float] = []
    used: list[float] = []
    for number in numbers:
        name = call_id((begin_us + number * apart_us) // 1000, BOOT, number)
        seconds, busy, row = _timed(lambda name=name: CallLog(store).find(name))
        assert row["call"] == name
        took.append(seconds)
        used.append(busy)
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    middle, busy_ms = statistics.median(took) * 1000, statistics.median(used) * 1000
    print(
        f"one call by its id: median {middle:.1f} ms, p99 {p99 * 1000:.1f} ms, wanted below 50; {busy_ms:.1f} ms of cpu"
    )
    return p99


def _apart_us(predictions: int) -> int:
    return int(timedelta(days=DAYS) / timedelta(microseconds=1)) // predictions


def _timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, seconds of processor time (all threads), and what was found."""
    started, busy = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - started, time.process_time() - busy, found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
