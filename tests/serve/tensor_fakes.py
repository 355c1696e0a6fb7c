"""Tensor models for tests: graphs made by hand, and a fake that misbehaves on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instar.core.ids import digest
from instar.serve.protocol.signature import Signature, TensorSpec
from instar.serve.traffic.routes import PORTABLE, VersionRoute, bundle_folder

# Numbers, text and an optional input; each row is a prediction.
SIGNATURE = Signature(
    tensors=(
        TensorSpec("x", "FP32", (-1, 3)),
        TensorSpec("words", "BYTES", (-1,)),
        TensorSpec("bias", "INT64", (-1, 1), required=False),
    ),
    outputs=(TensorSpec("score", "FP32", (-1, 1)), TensorSpec("label", "BYTES", (-1,))),
    rows=True,
)


class FakeModel:
    """score = the row's sum + bias; label = the word in capitals."""

    def __init__(self, quirk: str | None, batchable: bool = True) -> None:
        self.batchable = batchable
        self.asked: list[int] = []
        self._quirk = quirk

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        x, words = inputs["x"], inputs["words"]
        self.asked.append(len(x))
        if self._quirk == "raises":
            raise ValueError("this model never works")
        if self._quirk == "quotes" and words[0] != "good":
            raise ValueError(f"could not convert {inputs}")
        if self._quirk == "raises on 13" and (x == 13).any():
            raise ValueError("unlucky number")
        if self._quirk == "one row":
            return {"score": np.zeros((1, 1), np.float32)}
        score = x.sum(axis=1, keepdims=True) + inputs.get("bias", np.zeros((1, 1))).astype(np.float32)
        if self._quirk == "nan":
            score = score * np.float32("nan")
        return {"score": score.astype(np.float32), "label": np.array([w.upper() for w in words], dtype=object)}


MADE: dict[str, FakeModel] = {}  # by folder: what a test looks at after


def load(folder: Path) -> FakeModel:
    """Loader for workers: `--load tests.serve.tensor_fakes:load`."""
    spec = json.loads((folder / "model.json").read_text())
    model = MADE[str(folder)] = FakeModel(spec["quirk"], spec["batchable"])
    return model


def version(store_folder: Path, number: int, quirk: str | None = None, *, batchable: bool = True) -> VersionRoute:
    """A version whose bundle lies where routes look for it."""
    spec = json.dumps({"number": number, "quirk": quirk, "batchable": batchable})
    bundle = digest(spec.encode())
    folder = bundle_folder(store_folder, bundle)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(spec)
    return VersionRoute(number, bundle, PORTABLE, tuple(t.name for t in SIGNATURE.tensors), None)


def body(*rows: float, **changes: Any) -> dict[str, Any]:
    """A good request of a few rows, whose first numbers are `rows`."""
    request: dict[str, Any] = {
        "inputs": [
            {"name": "x", "shape": [len(rows), 3], "datatype": "FP32", "data": [v for r in rows for v in (r, 2, 0.5)]},
            {"name": "words", "shape": [len(rows)], "datatype": "BYTES", "data": [f"w{r:g}" for r in rows]},
        ]
    }
    return request | changes
