"""Models of XGBoost, LightGBM and PyTorch are made again, byte for byte, by several threads and with seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instar.core.store import Store
from instar.operate.reproduce import reproduce
from instar.train import runs
from tests.operate import again

pytest.importorskip("xgboost")
pytest.importorskip("torch")

PIPELINE = '''
import numpy as np
import polars as pl
from instar import gold, model, source

raw = source("raw")


@gold(entity="lamp", event_time="seen")
def lamps(raw: pl.DataFrame) -> pl.DataFrame:
    return raw


def columns(frame):
    hours = frame["hours"].to_numpy().astype("float32")
    return np.column_stack([hours, hours % 5, np.sin(hours)])


class Matrix:
    """A model of a library on columns made of the hours."""

    def __init__(self, model):
        self.model = model

    def predict(self, frame):
        return self.model.predict_proba(columns(frame))[:, 1]


@model("fails", seed=5)
def boosted(lamps: pl.DataFrame, threads: int = 2):
    from xgboost import XGBClassifier

    found = XGBClassifier(n_estimators=30, max_depth=3, subsample=0.7, random_state=1, n_jobs=threads)
    return Matrix(found.fit(columns(lamps), lamps["failed"].to_numpy().astype(int)))


@model("fails", seed=5)
def lighter(lamps: pl.DataFrame):
    from lightgbm import LGBMClassifier

    found = LGBMClassifier(n_estimators=30, subsample=0.7, subsample_freq=1, random_state=1, verbose=-1)
    return Matrix(found.fit(columns(lamps), lamps["failed"].to_numpy().astype(int)))


class Net:
    """A small network of PyTorch, with its weights as arrays."""

    def __init__(self, weights):
        self.weights = weights

    def predict(self, frame):
        import torch

        with torch.no_grad():
            return torch.sigmoid(network(self.weights)(torch.tensor(columns(frame)))).numpy()[:, 0].astype("float64")


def network(weights=None):
    import torch

    made = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    if weights is not None:
        made.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
        made.eval()
    return made


def trained(lamps, generator=None):
    import torch

    x, y = torch.tensor(columns(lamps)), torch.tensor(lamps["failed"].to_numpy().astype("float32"))[:, None]
    made = network()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(20):
        for batch in torch.randperm(len(x), generator=generator).split(32):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(made(x[batch]), y[batch]).backward()
            optimizer.step()
    return Net({name: value.numpy() for name, value in made.state_dict().items()})


@model("fails", seed=5)
def net(lamps: pl.DataFrame):
    return trained(lamps)  # nothing is seeded here: the platform does it


@model("fails", seed=5)
def reseeded(lamps: pl.DataFrame):
    import torch

    generator = torch.Generator()
    generator.seed()  # from the operating system
    return trained(lamps, generator)
'''


@pytest.fixture
def root(store: Store, tmp_path: Path) -> Path:
    root = again.write(tmp_path / "lamps")
    (root / "pipeline.py").write_text(PIPELINE)
    again.land(store, again.seen(800))
    return root


@pytest.mark.parametrize("step", ["boosted", "lighter", "net"])
def test_it_is_identical(store: Store, root: Path, step: str) -> None:
    run = again.fit(store, root, step)
    (root / "pipeline.py").write_text("moved on\n")
    made = reproduce(store, root, run)
    assert (made.verdict, made.causes) == ("identical", ())
    assert made.comparison.predictions == 0.0
    assert runs.get_run(store, made.repetition).metrics["cost"] == runs.get_run(store, run).metrics["cost"]


def test_two_fits_in_one_process_draw_the_same(store: Store, root: Path) -> None:
    first, second = (runs.get_run(store, again.fit(store, root, "net")) for _ in range(2))
    assert first.tags["instar.scores"] == second.tags["instar.scores"]


def test_a_generator_of_its_own_is_chance(store: Store, root: Path) -> None:
    made = reproduce(store, root, again.fit(store, root, "reseeded"))
    assert made.verdict == "different"
    assert made.causes[0].kind == "chance"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor only")
def test_another_number_of_threads_is_equal_at_the_least(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = again.fit(store, root, "boosted", {"threads": 1})
    monkeypatch.delenv("OMP_NUM_THREADS")
    # The recorded number is set again, whatever is set today.
    assert reproduce(store, root, run).verdict in ("identical", "equal")
