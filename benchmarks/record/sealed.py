"""How fast recorded calls become sealed rows, beside what a gateway writes: single calls, and calls of a hundred rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from instar.core import frames
from instar.core.ids import CallIds
from instar.core.store import Store
from instar.serve.log import calls, catalogue, erasing, record, sealing, segments
from instar.serve.log.erasing import Selector
from instar.serve.log.record import Answer, End, Head, Schema, Tensor, Work
from instar.serve.log.segments import SegmentName

BOOT, WIDTH, BEGIN_MS = 99, 30, 1_767_225_600_000
SCHEMA = Schema(
    0, (), (("x", "FP32", (-1, WIDTH), False),), (("label", "INT64", (-1,)), ("probabilities", "FP32", (-1, 2))), True
)


def seal(store: Store, title: str, count: int, rows: int, *, segments_of: int = 2) -> None:
    """Write some segments of calls as a gateway does, seal them, and print calls a second; then erase who made one of them."""
    endpoint = f"sealing{rows}"
    for number in range(segments_of):
        write(calls.calls_folder(store.folder), SegmentName(endpoint, BOOT, number), count, rows)
    started, busy = time.perf_counter(), time.process_time()
    made = sealing.seal(store)
    seconds, used = time.perf_counter() - started, time.process_time() - busy
    total = sum(one.calls for one in made)
    size = sum(one.rows_size + one.frames_size for one in catalogue.units(store, endpoint=endpoint))
    print(
        f"sealing {title}: {total / seconds:,.0f} calls a second, {total * rows / seconds:,.0f} predictions; "
        f"{used / total * 1e6:.1f} us of cpu a call, {size / total / rows:.0f} bytes a prediction with its proof"
    )
    started, busy = time.perf_counter(), time.process_time()
    erasing.ask(store, endpoint, Selector("key", "key 7"), "benchmark")
    (done,) = erasing.carry_out(store)
    print(
        f"erasing one key among them: {time.perf_counter() - started:.1f} s, {time.process_time() - busy:.1f} s of cpu,"
        f" {done.predictions} predictions"
    )


def write(folder: Path, name: SegmentName, count: int, rows: int) -> None:
    """A closed segment of calls to a tensor model of two outputs."""
    path = name.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = _entries(name, count, rows)
    packed = (frames.pack(record.encode_frame(at, entry)) for at, entry in enumerate(entries))
    path.write_bytes(b"".join([segments.MAGIC, *packed]))


def _entries(name: SegmentName, count: int, rows: int) -> Iterator[bytes]:
    rng = np.random.default_rng(name.number)
    given = rng.normal(size=(256, rows, WIDTH)).astype(np.float32)
    ids = CallIds(BOOT)
    begin = BEGIN_MS + name.number * 300_000
    yield record.encode_entry(Head(record.FORMAT, name.endpoint, name.boot, name.number, begin * 1000))
    yield record.encode_entry(SCHEMA)
    for number in range(count):
        at = begin + number * 300_000 // count
        scores = rng.random(rows)
        both = np.stack([1 - scores, scores], axis=1).astype(np.float32)
        outputs = [
            Tensor("label", "INT64", (rows,), (scores > 0.5).astype(np.int64).tobytes()),
            Tensor("probabilities", "FP32", (rows, 2), both.tobytes()),
        ]
        answer = Answer(3, record.CHAMPION, scores.tolist(), [], None, None, outputs)
        x = Tensor("x", "FP32", (rows, WIDTH), given[number & 255].tobytes())
        work = Work(None, None, None, 0, rows, [], 3, [answer], 10, 20, None, [x])
        yield record.encode_call(
            ids.next(at), at * 1000, at * 1000, "ada", 7, record.CHAMPION, 3, f"key {number}", 200, 420 + number % 100, 300,
            None, record.encode_entry(work),
        )  # fmt: skip
    yield record.encode_entry(End(begin * 1000 + 300_000_000))
