"""The model that all servers of the comparison answer with: scaled logistic regression on the breast-cancer rows of scikit-learn.

    python model.py FOLDER      # writes model.onnx, model.pickle (of this environment's scikit-learn) and row.json

Each rival runs this in its own environment as far as its libraries go: a pickle is made by the version that reads it.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

FEATURES = 30


def fitted() -> tuple[Any, Any]:
    """The fitted pipeline and its rows, float64 of shape (569, 30)."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, truth = load_breast_cancer(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, truth), rows


def write_pickle(folder: Path) -> None:
    """The pickled pipeline."""
    model, _ = fitted()
    (folder / "model.pickle").write_bytes(pickle.dumps(model))


def write_onnx(folder: Path) -> None:
    """The ONNX graph (input `input`, outputs `label` and `probabilities`) and a row to ask for."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    model, rows = fitted()
    graph = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, FEATURES]))],
        options={"zipmap": False},
        target_opset=17,
    )
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / "row.json").write_text(json.dumps([round(float(value), 4) for value in rows[0]]))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    write_pickle(place)
    if "--onnx" in sys.argv:
        write_onnx(place)
