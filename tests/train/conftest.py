"""A small project with a gold table, two recipes and a rule, for the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from instar.core.ids import digest_of, new_id
from instar.core.store import Store
from instar.data import tables
from instar.evaluate.split import cut
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.pipeline import Pipeline, discover
from instar.plan.project import Project, load_project
from instar.train.bundle import Manifest, load_manifest
from instar.train.model_kind import ModelKind

CONTRACT = """
[project]
name = "trains"
objective = "Warn of late trains"
owner = "ada"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
privacy = { driver = "personal", line = "public" }
nullable = ["line"]
split = { by = "event_time", decide = "10d", judge = "10d", min_rows = 20 }
outcome = { due = "1d" }
"""

PIPELINE = '''
import pathlib

import polars as pl
from instar import baseline, gold, model, source

raw = source("raw")


@gold(entity="train", event_time="departs")
def features(raw: pl.DataFrame) -> pl.DataFrame:
    return raw


class Rule:
    """A class of the project itself: only its native form can be served."""

    def __init__(self, shares):
        self.shares = shares

    def predict(self, frame):
        return frame["hour"].replace_strict(self.shares, default=0.2, return_dtype=pl.Float64)


@baseline("delay")
def late_by_hour(features: pl.DataFrame):
    shares = features.group_by("hour").agg(pl.col("late").mean())
    return Rule(dict(shares.sort("hour").iter_rows()))


@model("delay", search={"smallest_leaf": [200, 5]}, seed=7)
def trees(features: pl.DataFrame, learning_rate: float = 0.3, smallest_leaf: int = 10):
    import numpy
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    text = ["line", "driver"]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=numpy.nan)
    return Pipeline([
        ("encode", ColumnTransformer([("text", encoder, text)], remainder="passthrough")),
        ("trees", HistGradientBoostingClassifier(
            learning_rate=learning_rate, max_iter=15, min_samples_leaf=smallest_leaf, categorical_features=[0, 1],
            random_state=0,
        )),
    ]).fit(features.drop("late"), features["late"].to_numpy())


@model("delay")
def linear(features: pl.DataFrame):
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.impute import SimpleImputer

    numbers = ["hour", "distance"]
    front = make_column_transformer(("passthrough", numbers))
    return make_pipeline(front, SimpleImputer(), LogisticRegression()).fit(features, features["late"])


@model("delay")
def breaking(features: pl.DataFrame, column: str = "late"):
    pathlib.Path(__file__).with_name("called").write_text(",".join(features.columns))
    raise ValueError("the rails are wet")
'''


def trains(rows: int = 400) -> pl.DataFrame:
    """Gold rows: 50 days, about 8 trains a day, with missing drivers and distances."""
    rng = np.random.default_rng(5)
    hour = rng.integers(0, 24, rows)
    line = rng.choice(["S1", "S2", "U5"], rows)
    driver = np.where(rng.random(rows) < 0.2, None, rng.choice(["kim", "lou"], rows))
    odds = (hour > 12) * 2.0 + (line == "S2") * 1.5 + rng.normal(size=rows)
    days = np.sort(rng.random(rows) * 50)
    return pl.DataFrame(
        {
            "train": [f"t{i}" for i in range(rows)],
            "departs": [datetime.fromtimestamp(1_700_000_000 + day * 86_400, UTC) for day in days],
            "hour": hour,
            "line": line.tolist(),
            "driver": driver.tolist(),
            "distance": [None if x < 0.1 else x * 100 for x in rng.random(rows)],
            "late": (odds > 1.7).tolist(),
            "_landed_at": [datetime(2024, 1, 1, tzinfo=UTC)] * rows,
        }
    ).with_columns(late=pl.when(pl.int_range(pl.len()) % 50 == 3).then(None).otherwise(pl.col("late")))


@dataclass
class Bench:
    """A project whose model steps can be run by name."""

    store: Store
    project: Project
    pipeline: Pipeline
    kind: ModelKind
    version: str
    rows: pl.DataFrame

    def execution(self, step: str) -> Execution:
        now = self.store.clock.wall()
        found = self.pipeline.step(step)
        return Execution(
            id=new_id("exec"), project="trains", pipe="pipe_1", step=step, kind=found.kind, key=digest_of([step, str(now)]),
            state="running", cause="test", actor="ada", event_at=now, started=now,
        )  # fmt: skip

    def fit(self, name: str, **parameters: Any) -> tuple[Stored, Manifest]:
        step, execution = self.pipeline.step(name), self.execution(name)
        merged = {**step.parameters, **parameters}
        output = self.kind.run(self.project, execution, step, {}, merged)
        stored = self.kind.store(self.project, execution, step, output)
        return stored, load_manifest(self.store.blobs, stored.ref)


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Bench:
    return make_bench(store, tmp_path)


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Callable[..., Bench]:
    """A bench with another contract or pipeline: texts to replace in them, and by what."""

    def make(contract: dict[str, str] | None = None, pipeline: dict[str, str] | None = None) -> Bench:
        return make_bench(store, tmp_path, replaced(CONTRACT, contract), replaced(PIPELINE, pipeline))

    return make


def replaced(text: str, changes: dict[str, str] | None) -> str:
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    return text


def make_bench(store: Store, folder: Path, contract: str = CONTRACT, pipeline: str = PIPELINE) -> Bench:
    root = folder / "trains"
    root.mkdir()
    (root / "instar.toml").write_text(contract)
    (root / "pipeline.py").write_text(pipeline)
    project = load_project(root)
    steps = discover(project)
    rows = trains()
    version = tables.write_version(store, "trains", "features", "gold", rows, key=["train"], order=["departs"])
    return Bench(store, project, steps, ModelKind(store, project, steps, cut=cut), version.id, rows)
