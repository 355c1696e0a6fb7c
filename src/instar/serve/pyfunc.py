"""Loading a bundle in a client of MLflow's: `mlflow.pyfunc.load_model("models:/delay@champion")` answers as the endpoint does.

`MLmodel` of a bundle names this module as its loader. What is loaded is what a worker loads, by the same code, after the
same look at digests and pickles; the client needs Instar installed, and what the model itself needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.core.errors import MissingInput
from instar.core.ids import digest
from instar.serve.worker.loading import load
from instar.train import bundle

if TYPE_CHECKING:
    import pandas as pd


class Predictor:
    """A loaded bundle, as MLflow calls it."""

    def __init__(self, folder: Path) -> None:
        data = (folder / bundle.MANIFEST_FILE).read_bytes()
        self.manifest = bundle.decode(data, f"bundle in {folder.name}")
        self._model: Any = load(folder, named=digest(data))

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> pd.DataFrame | dict[str, Any]:
        """The endpoint's answers for rows: columns `score` and `decision`, or the arrays of a tensor model by name.

        Args:
            rows: A data frame with the columns of the signature; NaN and None are missing values. For a tensor model arrays
                by name, or one array where it takes one.
            params: None are known.

        Raises:
            MissingInput: A column is not there.
        """
        import numpy as np
        import pandas as pd

        if self.manifest.tensors is not None:
            return self._infer(rows, self.manifest.tensors)
        columns = {one.name: _values(rows[one.name], one.datatype) for one in self.manifest.inputs if one.name in rows}
        scores = np.asarray(self._model.score(columns), dtype=np.float64)
        return pd.DataFrame({"score": scores, "decision": scores >= self.manifest.threshold}, index=rows.index)

    def _infer(self, given: Any, tensors: bundle.Tensors) -> dict[str, Any]:
        import numpy as np

        from instar.serve.protocol.tensors import DTYPES

        named = given if isinstance(given, dict) else {tensors.inputs[0].name: given}
        missing = [one.name for one in tensors.inputs if not one.optional and one.name not in named]
        if missing:
            raise MissingInput("an input is missing", subject=f"input {missing[0]}", found=", ".join(named))
        arrays = {
            one.name: np.asarray(named[one.name]).astype(DTYPES[one.datatype], copy=False)
            for one in tensors.inputs
            if one.name in named
        }
        return dict(self._model.infer(arrays))


def _load_pyfunc(path: str) -> Predictor:
    """Entry for MLflow."""
    return Predictor(Path(path))


def _values(series: Any, datatype: str) -> list[Any]:
    """A column in the values that a call brings: None for what is missing, whole numbers where the signature has them."""
    whole = datatype in ("INT32", "INT64")
    return [None if value is None or value != value else int(value) if whole else value for value in series.tolist()]
