"""Predictions by the million as sealed units: the rows that sealing writes, made column by column, without their proofs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import numpy as np
import polars as pl
import pyarrow as pa

from instar.app import open_app
from instar.core import ids
from instar.core.store import Store
from instar.serve.log import answer_rows, layout, merging, prediction_rows, sealed_table, segments
from instar.serve.log.catalogue import Unit

PROJECT, ENDPOINT = "flights", "delay"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CALLERS = ["web", "kiosk", "app", "partner", "batch"]
CARRIERS = ["UA", "DL", "AA", "B6", "EV", "MQ", "US", "WN", "VX", "9E", "FL", "AS", "F9", "YV", "HA", "OO"]
ORIGINS = ["JFK", "EWR", "LGA"]
BOOT = 77
PART = 131_072


def fill(store: Store, predictions: int, days: int, *, in_unit: int = merging.LARGEST, processes: int = 1) -> None:
    """Put so many predictions on the record, evenly over days, in merged units; files are written by several processes."""
    apart_us = int(timedelta(days=days) / timedelta(microseconds=1)) // predictions
    firsts = range(0, predictions, in_unit)
    asked = [(first, min(in_unit, predictions - first), apart_us, _segment(first // in_unit)) for first in firsts]
    if processes == 1:
        for one in asked:
            _name(store, _made(store, *one))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for unit in pool.map(_made_apart, [str(store.folder.parent)] * len(asked), *zip(*asked, strict=True)):
            _name(store, unit)


def fill_small(store: Store, units: int, rows: int, start: int, apart_us: int) -> None:
    """Put small units on the record, as they are before they are merged."""
    for number in range(units):
        _name(store, _made(store, start + number * rows, rows, apart_us, _segment(500_000 + number)))


def _made_apart(folder: str, first: int, count: int, apart_us: int, segment: str) -> Unit:
    with open_app(folder, need_project=False) as app:
        return _made(app.store, first, count, apart_us, segment)


def _made(store: Store, first: int, count: int, apart_us: int, segment: str) -> Unit:
    """The files of a unit."""
    day = (BEGIN + timedelta(microseconds=first * apart_us)).date().isoformat()
    parts = _parts(first, count, apart_us, segment)
    return sealed_table.make_unit(store, PROJECT, ENDPOINT, day, ids.new_id("part"), parts, iter(()), [segment])


def _name(store: Store, unit: Unit) -> None:
    """Have the table, the catalogue and the journal name it."""
    entry = ("segment sealed", unit.segments[0], {"endpoint": ENDPOINT})
    sealed_table.change(store, PROJECT, ENDPOINT, [], [unit], entry, transaction=unit.segments[0])


def _segment(number: int) -> str:
    return segments.SegmentName(ENDPOINT, BOOT, number).id


def _parts(first: int, count: int, apart_us: int, segment: str) -> Iterator[pl.DataFrame]:
    for start in range(first, first + count, PART):
        yield rows(start, min(PART, first + count - start), apart_us, segment)


def rows(first: int, count: int, apart_us: int, segment: str) -> pl.DataFrame:
    """Rows of the log, in the form in which they are stored: one call each, one shadow beside the champion for a tenth."""
    rng = np.random.default_rng(first)
    number = np.arange(first, first + count)
    micros = int(BEGIN.timestamp()) * 1_000_000 + number * apart_us
    score = rng.beta(2, 5, count)
    made = {
        "prediction": pl.repeat("", count, eager=True),
        "call": call_ids(micros // 1000, number),
        "row": np.zeros(count, dtype=np.int64),
        "at": pl.Series(micros).cast(prediction_rows.MOMENT),
        "recorded_at": pl.Series(micros).cast(prediction_rows.MOMENT),
        "caller": _chosen(rng, CALLERS, count, [0.5, 0.3, 0.15, 0.0499, 0.0001]),
        "endpoint": pl.repeat(ENDPOINT, count, eager=True),
        "policy": np.full(count, 7),
        "reason": _chosen(rng, ["champion", "canary"], count, [0.95, 0.05]),
        "key": pl.repeat(None, count, dtype=pl.String, eager=True),
        "version": 1 + number // 20_000_000,
        "score": score,
        "decision": (score >= 0.3).astype(np.int64),
        "threshold": np.full(count, 0.3),
        "status": np.full(count, 200),
        "latency_us": rng.gamma(4, 150, count).astype(np.int64),
        "entity": pl.Series(rng.integers(0, 5_000_000, count)).cast(pl.String),
        "table_version": pl.repeat(None, count, dtype=pl.String, eager=True),
        "request_id": pl.repeat(None, count, dtype=pl.String, eager=True),
        "fallback": pl.repeat(None, count, dtype=pl.String, eager=True),
        "error": pl.repeat(None, count, dtype=pl.String, eager=True),
    }
    frame = pl.DataFrame(made, schema=dict(prediction_rows.PLAIN))
    inputs = pl.DataFrame(
        {
            "distance": rng.gamma(3, 350, count).round(),
            "carrier": _chosen(rng, CARRIERS, count),
            "origin": _chosen(rng, ORIGINS, count),
            "hour": rng.integers(5, 24, count),
            "temperature": rng.normal(12, 9, count).round(1),
            "wind": rng.gamma(2, 5, count).round(1),
        }
    )
    shadowed = number % 10 == 0
    said = pl.DataFrame({"version": frame["version"], "score": score, "decision": frame["decision"]})
    return layout.stored(frame.with_columns(inputs.to_struct("inputs"), _answers(said, shadowed)), segment)


def _chosen(rng: np.random.Generator, values: list[str], count: int, p: list[float] | None = None) -> pl.Series:
    return pl.Series(values).gather(rng.choice(len(values), count, p=p))


def _answers(said: pl.DataFrame, shadowed: np.ndarray) -> pl.Series:
    count = said.height
    repeats = 1 + shadowed.astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(repeats)])
    own = np.repeat(np.arange(count), repeats)
    is_shadow = np.zeros(len(own), dtype=bool)
    is_shadow[offsets[1:][shadowed] - 1] = True
    taken = said[own]
    flat = pl.DataFrame(
        {
            "version": taken["version"],
            "role": pl.Series(["champion", "shadow"]).gather(is_shadow.astype(np.uint32)),
            "score": taken["score"],
            "decision": taken["decision"],
            "threshold": np.full(len(own), 0.3),
            "error": pl.repeat(None, len(own), dtype=pl.String, eager=True),
            "outputs": pl.repeat(None, len(own), dtype=pl.String, eager=True),
        },
        schema={one.name: one.dtype for one in answer_rows.ANSWER.fields},
    )
    return answer_rows.lists("answers", flat, offsets)


def call_ids(milliseconds: np.ndarray, sequence: np.ndarray) -> pl.Series:
    """Ids of calls, as `core.ids.call_id` makes them one by one."""
    count = len(milliseconds)
    letters = np.frombuffer(ids.ALPHABET.encode(), dtype=np.uint8)
    text = np.empty((count, 31), dtype=np.uint8)
    text[:, :5] = np.frombuffer(b"call_", dtype=np.uint8)
    at = 5
    for values, width in ((milliseconds, 10), (np.full(count, BOOT), 6), (sequence, 10)):
        wide = values.astype(np.uint64)
        for place in range(width):
            text[:, at] = letters[(wide >> np.uint64(5 * (width - 1 - place))) & np.uint64(31)]
            at += 1
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(31), count, [None, pa.py_buffer(text)])
    return pl.Series("call", fixed.cast(pa.binary())).cast(pl.String)
