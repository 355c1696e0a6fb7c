"""A logged model whose signature has tensors, as a tensor model in a worker process of its own: by what its `predict` does.

model = FolderTensors(manifest, predict)
model.infer({"image": np.zeros((1, 28, 28), np.float32)})      # -> {"output": array([[0.1, …]])}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instar.core.errors import StepFailed
from instar.train.bundle import Manifest
from instar.train.mlmodel import ONLY_INPUT, ONLY_OUTPUT


class FolderTensors:
    """A loaded flavour that takes arrays.

    Attributes:
        batchable: Never: nothing says that its rows stand for themselves.
    """

    batchable = False

    def __init__(self, manifest: Manifest, predict: Callable[[Any], Any]) -> None:
        assert manifest.tensors is not None
        self._alone = [one.name for one in manifest.tensors.inputs] == [ONLY_INPUT]
        self._outputs = [one.name for one in manifest.tensors.outputs]
        self._predict = predict
        self._subject = f"model {manifest.model}"

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name.

        Raises:
            StepFailed: The model raised.
        """
        try:
            found = self._predict(inputs[ONLY_INPUT] if self._alone else dict(inputs))
        except Exception as error:
            raise StepFailed(f"it raised {type(error).__name__}: {error}", subject=self._subject) from error
        if hasattr(found, "to_dict") and hasattr(found, "columns"):  # a data frame
            return {str(name): np.asarray(found[name]) for name in found.columns}
        if isinstance(found, Mapping):
            return {str(name): np.asarray(value) for name, value in found.items()}
        return {self._outputs[0] if len(self._outputs) == 1 else ONLY_OUTPUT: np.asarray(found)}
