"""Small real bundles for tests of judging and release: a rule in a module of its own, pickled, with its code beside it."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from instar.core.ids import digest_of
from instar.core.store import Store
from instar.evaluate.split import Cut, cut
from instar.plan.cost import Cost
from instar.plan.project import Gates, OutcomeTerms, Problem, Split
from instar.train.bundle import OUTPUTS, Column, Manifest, Parity, pack

FIRST = datetime(2013, 1, 1, tzinfo=UTC)
INPUTS = (Column("risk", "FP64"), Column("carrier", "BYTES"))
CODE = """
class Rule:
    def __init__(self, noise, against):
        self.noise, self.against = noise, against
    def predict(self, frame):
        import numpy as np
        risk = frame["risk"].to_numpy()
        wobble = np.sin(risk * 1e4) * self.noise
        wrong = np.array([carrier == self.against for carrier in frame["carrier"].to_list()])
        return np.clip(np.where(wrong, 1 - risk, risk) + wobble, 0, 1)
"""

PROBLEM = Problem(
    task="binary",
    target="late",
    metric="cost",
    cost=Cost(false_negative=3.0, false_positive=1.0, unit="EUR"),
    split=Split(decide=timedelta(days=14), judge=timedelta(days=14), min_rows=200),
    outcome=OutcomeTerms(due=timedelta(days=1)),
    gates=Gates(slices=("carrier",)),
)


def table(days: int = 60, a_day: int = 100, seed: int = 0) -> pl.DataFrame:
    """Rows whose `risk` is the true probability of `late`."""
    random = np.random.default_rng(seed)
    rows = days * a_day
    risk = random.random(rows)
    return pl.DataFrame(
        {
            "at": [FIRST + timedelta(days=1) * (i / a_day) for i in range(rows)],
            "risk": risk,
            "carrier": random.choice(["UA", "DL", "OO"], rows),
            "late": random.random(rows) < risk,
        }
    )


def parts(days: int = 60, seed: int = 0) -> Cut:
    """The table, cut by the problem's split."""
    return cut(table(days, seed=seed), PROBLEM.split, "at", FIRST + timedelta(days=days))


def make_bundle(
    store: Store,
    *,
    noise: float = 0.0,
    against: str = "",
    recipe: str = "trees",
    fitted_until: str | None = "2013-02-02T00:00:00+00:00",
    parity: Parity | None = None,
    run: str = "run_1",
    **changes: Any,
) -> str:
    """A packed bundle of a rule that knows the risk, blurred by `noise` and turned round for the carrier `against`."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr(zipfile.ZipInfo("rule_of_tests.py", (2013, 1, 1, 0, 0, 0)), CODE)
    manifest = Manifest(
        **{
            "model": "delay",
            "step": "delay_trees",
            "kind": "model",
            "recipe": digest_of(recipe),
            "parameters": {"noise": noise},
            "target": "late",
            "inputs": INPUTS,
            "outputs": OUTPUTS,
            "threshold": 0.25,
            "native": store.blobs.put(_pickled(noise, against)),
            "form": "polars",
            "parity": parity,
            "code": store.blobs.put(code.getvalue()),
            "environment": store.blobs.put(b"{}"),
            "run": run,
            "fitted_on": "tver_1",
            "fitted_rows": 3200,
            "fitted_from": "2013-01-01T00:00:00+00:00",
            "fitted_until": fitted_until,
            **changes,
        }
    )
    return pack(store.blobs, manifest)


def _pickled(noise: float, against: str) -> bytes:
    module = types.ModuleType("rule_of_tests")
    exec(CODE, module.__dict__)
    sys.modules["rule_of_tests"] = module
    try:
        return pickle.dumps(module.Rule(noise, against))
    finally:
        del sys.modules["rule_of_tests"]
