"""Loading a bundle in a client of MLflow's: `mlflow.pyfunc.load_model("models:/delay@champion")` answers as the endpoint does.

`MLmodel` of a bundle names this module as its loader. What is loaded is what a worker loads, by the same code, after the
same look at digests and pickles; the client needs Instar installed, and what the model itself needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.core.ids import digest
from instar.serve.loading import load
from instar.train import bundle

if TYPE_CHECKING:
    import pandas as pd


class Predictor:
    """A loaded bundle, as MLflow calls it."""

    def __init__(self, folder: Path) -> None:
        data = (folder / bundle.MANIFEST_FILE).read_bytes()
        self.manifest = bundle.decode(data, f"bundle in {folder.name}")
        self._model: Any = load(folder, named=digest(data))

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The endpoint's answers for rows: columns `score` and `decision`.

        Args:
            rows: A data frame with the columns of the signature; NaN and None are missing values.
            params: None are known.

        Raises:
            MissingInput: A column is not there.
        """
        import numpy as np
        import pandas as pd

        columns = {one.name: _values(rows[one.name], one.datatype) for one in self.manifest.inputs if one.name in rows}
        scores = np.asarray(self._model.score(columns), dtype=np.float64)
        return pd.DataFrame({"score": scores, "decision": scores >= self.manifest.threshold}, index=rows.index)


def _load_pyfunc(path: str) -> Predictor:
    """Entry for MLflow."""
    return Predictor(Path(path))


def _values(series: Any, datatype: str) -> list[Any]:
    """A column in the values that a call brings: None for what is missing, whole numbers where the signature has them."""
    whole = datatype in ("INT32", "INT64")
    return [None if value is None or value != value else int(value) if whole else value for value in series.tolist()]
