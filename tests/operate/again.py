"""A project whose steps come out the same or not, each for one reason, for the tests of `instar reproduce`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from instar.core.ids import digest_of, new_id
from instar.core.store import Store
from instar.data import tables, versions
from instar.evaluate.split import cut
from instar.plan.executions import Execution
from instar.plan.pipeline import discover
from instar.plan.project import load_project
from instar.train.model_kind import ModelKind

CONTRACT = """
[project]
name = "lamps"
objective = "Replace lamps before they fail"
owner = "ada"

[problem.fails]
task = "binary"
target = "failed"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
split = { by = "event_time", decide = "10d", judge = "10d", min_rows = 20 }
outcome = { due = "1d" }
"""

PIPELINE = """
import os
import random

import numpy as np
import polars as pl
from instar import gold, model, silver, source

from shares import Shares

raw = source("raw")
STRENGTH = 1.0


@gold(entity="lamp", event_time="seen")
def lamps(raw: pl.DataFrame) -> pl.DataFrame:
    return raw


@silver()
def rooms(raw: pl.DataFrame) -> pl.DataFrame:
    return raw


def shares(frame, more=0.0):
    found = frame.group_by("hours").agg(pl.col("failed").mean()).sort("hours")
    return {hours: min(1.0, share * STRENGTH + more) for hours, share in found.iter_rows()}


@model("fails", seed=3)
def steady(lamps: pl.DataFrame, noise: float = 0.1):
    drawn = random.random() + np.random.random()
    return Shares(shares(lamps, noise * drawn / 10))


@model("fails", variables=["LAMP_COUNTRY"], files=["settings.txt"])
def declared(lamps: pl.DataFrame):
    more = 0.1 if os.environ.get("LAMP_COUNTRY") == "FI" else 0.0
    with open(os.path.join(os.path.dirname(__file__), "settings.txt")) as file:
        return Shares(shares(lamps, more + float(file.read())))


@model("fails")
def chancy(lamps: pl.DataFrame):
    return Shares(shares(lamps, random.SystemRandom().random() / 10))


@model("fails")
def nearly(lamps: pl.DataFrame):
    return Shares(shares(lamps, random.SystemRandom().random() / 1e9))


@model("fails")
def counted(lamps: pl.DataFrame):
    return Shares(shares(lamps, len(os.sched_getaffinity(0)) / 100))


@model("fails")
def library(lamps: pl.DataFrame):
    import noisy

    return Shares(shares(lamps, noisy.MORE))


@model("fails")
def in_rooms(lamps: pl.DataFrame, rooms: pl.LazyFrame):
    return Shares(shares(lamps, rooms.collect().height / 100))
"""

SHARES = '''
import polars as pl


class Shares:
    """Answers the share of lamps that failed after so many hours."""

    def __init__(self, shares):
        self.shares = shares

    def predict(self, frame):
        return frame["hours"].replace_strict(self.shares, default=0.2, return_dtype=pl.Float64)
'''


def seen(rows: int = 240, failing: int = 3) -> pl.DataFrame:
    """Lamps over 60 days; of those with many hours some failed."""
    hours = [(7 * row) % 24 for row in range(rows)]
    return pl.DataFrame(
        {
            "lamp": [f"l{row}" for row in range(rows)],
            "seen": [datetime.fromtimestamp(1_700_000_000 + row * 21_600, UTC) for row in range(rows)],
            "hours": hours,
            "failed": [hour > 12 and row % failing == 0 for row, hour in enumerate(hours)],
        }
    )


def write(root: Path) -> Path:
    """The project's files."""
    root.mkdir(parents=True, exist_ok=True)
    texts = {"instar.toml": CONTRACT, "pipeline.py": PIPELINE, "shares.py": SHARES, "settings.txt": "0.05"}
    for name, text in texts.items():
        (root / name).write_text(text)
    return root


def land(store: Store, frame: pl.DataFrame) -> str:
    """A version of the gold table; returns its id."""
    return tables.write_version(store, "lamps", "lamps", "gold", frame, key=["lamp"], order=["seen"]).id


def furnish(store: Store, rooms: int) -> str:
    """A version of the other table."""
    frame = pl.DataFrame({"room": [f"r{row}" for row in range(rooms)]})
    return tables.write_version(store, "lamps", "rooms", "silver", frame, key=["room"]).id


def fit(store: Store, root: Path, name: str, parameters: Mapping[str, object] | None = None) -> str:
    """Fit a step once, as the runner does; returns its run."""
    project = load_project(root)
    pipeline = discover(project)
    kind = ModelKind(store, project, pipeline, cut=cut)
    step, now = pipeline.step(name), store.clock.wall()
    attempt = Execution(
        id=new_id("exec"), project="lamps", pipe="pipe_1", step=name, kind=step.kind, key=digest_of([name, str(now)]),
        state="running", cause="test", actor="ada", event_at=now, started=now,
    )  # fmt: skip
    others = {item.name: tables.scan(store, versions.get(store, "lamps", item.name)) for item in step.inputs[1:]}
    made = kind.run(project, attempt, step, others, {**step.parameters, **(parameters or {})})
    kind.store(project, attempt, step, made)
    return made.run
