"""BentoML with adaptive batching, served by `bentoml serve`; the model's folder is in the environment variable RIVAL_FOLDER."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import numpy as np
from onnx_session import session


@bentoml.service(workers=1, traffic={"timeout": 30})
class Answers:
    """The ONNX model."""

    def __init__(self) -> None:
        self.session = session(Path(os.environ["RIVAL_FOLDER"]) / "model.onnx")

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = self.session.run(None, {"input": rows.astype(np.float32)})[1]
        return probabilities
