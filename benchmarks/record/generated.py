"""Predictions by the million as sealed units: the rows that sealing writes, made column by column, without their proofs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from instar.core import ids
from instar.core.store import Store
from instar.serve.log import answer_rows, layout, merging, prediction_rows, sealed_table
from instar.serve.log.catalogue import Unit

PROJECT, ENDPOINT = "flights", "delay"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CALLERS = np.array(["web", "kiosk", "app", "partner", "batch"])
CARRIERS = np.array(["UA", "DL", "AA", "B6", "EV", "MQ", "US", "WN", "VX", "9E", "FL", "AS", "F9", "YV", "HA", "OO"])
ORIGINS = np.array(["JFK", "EWR", "LGA"])
BOOT = 77
PART = 131_072


def fill(store: Store, predictions: int, days: int, *, in_unit: int = merging.LARGEST) -> None:
    """Put so many predictions on the record, evenly over days, in merged units."""
    apart_us = int(timedelta(days=days) / timedelta(microseconds=1)) // predictions
    done = 0
    while done < predictions:
        count = min(in_unit, predictions - done)
        _add(store, done, count, apart_us, [f"{ENDPOINT}/{_letters()}-{done // in_unit:06d}"])
        done += count


def fill_small(store: Store, units: int, rows: int, start: int, apart_us: int) -> None:
    """Put small units on the record, as they are before they are merged."""
    for number in range(units):
        _add(store, start + number * rows, rows, apart_us, [f"{ENDPOINT}/{_letters()}-{500_000 + number:06d}"])


def _add(store: Store, first: int, count: int, apart_us: int, segments: list[str]) -> Unit:
    day = (BEGIN + timedelta(microseconds=first * apart_us)).date().isoformat()
    parts = _parts(first, count, apart_us, segments[0])
    unit = sealed_table.make_unit(store, PROJECT, ENDPOINT, day, ids.new_id("part"), parts, iter(()), segments)
    entry = ("segment sealed", segments[0], {"endpoint": ENDPOINT})
    sealed_table.change(store, PROJECT, ENDPOINT, [], [unit], entry, transaction=segments[0])
    return unit


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
        "prediction": pl.Series([""] * count, dtype=pl.String),
        "call": call_ids(micros // 1000, number),
        "row": np.zeros(count, dtype=np.int64),
        "at": pl.Series(micros).cast(prediction_rows.MOMENT),
        "recorded_at": pl.Series(micros).cast(prediction_rows.MOMENT),
        "caller": pl.Series(rng.choice(CALLERS, count, p=[0.5, 0.3, 0.15, 0.0499, 0.0001])),
        "endpoint": pl.Series([ENDPOINT] * count),
        "policy": np.full(count, 7),
        "reason": pl.Series(rng.choice(np.array(["champion", "canary"]), count, p=[0.95, 0.05])),
        "key": pl.Series([None] * count, dtype=pl.String),
        "version": 1 + number // 20_000_000,
        "score": score,
        "decision": (score >= 0.3).astype(np.int64),
        "threshold": np.full(count, 0.3),
        "status": np.full(count, 200),
        "latency_us": rng.gamma(4, 150, count).astype(np.int64),
        "entity": pl.Series(rng.integers(0, 5_000_000, count)).cast(pl.String),
        "table_version": pl.Series([None] * count, dtype=pl.String),
        "request_id": pl.Series([None] * count, dtype=pl.String),
        "fallback": pl.Series([None] * count, dtype=pl.String),
        "error": pl.Series([None] * count, dtype=pl.String),
    }
    frame = pl.DataFrame(made, schema=dict(prediction_rows.PLAIN))
    inputs = pl.DataFrame(
        {
            "distance": rng.gamma(3, 350, count).round(),
            "carrier": pl.Series(rng.choice(CARRIERS, count)),
            "origin": pl.Series(rng.choice(ORIGINS, count)),
            "hour": rng.integers(5, 24, count),
            "temperature": rng.normal(12, 9, count).round(1),
            "wind": rng.gamma(2, 5, count).round(1),
        }
    )
    shadowed = number % 10 == 0
    said = pl.DataFrame({"version": frame["version"], "score": score, "decision": frame["decision"]})
    return layout.stored(frame.with_columns(inputs.to_struct("inputs"), _answers(said, shadowed)), segment)


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
            "role": pl.Series(np.where(is_shadow, "shadow", "champion")),
            "score": taken["score"],
            "decision": taken["decision"],
            "threshold": np.full(len(own), 0.3),
            "error": pl.Series([None] * len(own), dtype=pl.String),
            "outputs": pl.Series([None] * len(own), dtype=pl.String),
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


def _letters() -> str:
    from instar.serve.log.segments import boot_letters

    return boot_letters(BOOT)
