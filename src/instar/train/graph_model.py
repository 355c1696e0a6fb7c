"""An ONNX graph as a tensor model: its tensors in, its tensors out, at each call.

model = GraphModel.load(manifest, file)
model.infer({"x": np.zeros((1, 30), np.float32)})      # -> {"y": array([[0.2, 0.8]])}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instar.core.errors import Damaged
from instar.train.bundle import Manifest, Tensors
from instar.train.sessions import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a session holds: weights once as they came and once packed for the kernels, measured 1.7 to 1.9 times the graph's bytes for
# graphs of 4 and 17 MB, and 0.07 MB for the smallest.
GRAPH_FACTOR, SESSION_BYTES = 2, 128 * 1024


class GraphModel:
    """A loaded graph. Holds no state: one object serves many threads.

    Attributes:
        batchable: Rows of several calls may be stacked.
        size_bytes: Memory that it takes, estimated.
    """

    def __init__(self, session: Any, tensors: Tensors, size_bytes: int) -> None:
        self.batchable = tensors.rows and tensors.batchable
        self.size_bytes = size_bytes
        self._run = session.run
        self._names = [one.name for one in tensors.outputs]
        self._least = tensors.least if tensors.rows else 1

    @classmethod
    def load(cls, manifest: Manifest, file: Path) -> GraphModel:
        """Load the graph of a tensor model's bundle.

        Raises:
            Damaged: The file is no graph, or the manifest's is none of tensors.
        """
        if manifest.portable is None or manifest.tensors is None or manifest.portable.form != "onnx":
            raise Damaged("it has no graph of tensors", subject=f"bundle of {manifest.model}")
        return cls(open_session(file), manifest.tensors, file.stat().st_size * GRAPH_FACTOR + SESSION_BYTES)

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name.

        Raises:
            Exception: Whatever the runtime raises at inputs that the graph does not take.
        """
        rows = len(next(iter(inputs.values()))) if self._least > 1 else 0
        if 0 < rows < self._least:
            longer = {
                name: np.repeat(array, [1] * (rows - 1) + [self._least - rows + 1], 0) for name, array in inputs.items()
            }
            return {name: array[:rows] for name, array in self._outputs(self._run(self._names, longer)).items()}
        return self._outputs(self._run(self._names, inputs))

    def _outputs(self, found: list[Any]) -> dict[str, NDArray[Any]]:
        return {
            name: one if type(one) is np.ndarray else _laid(one) for name, one in zip(self._names, found, strict=True)
        }


def _laid(given: Any) -> NDArray[Any]:
    """What is no tensor: probabilities by label, as converters write them by default, in the order of the labels."""
    if isinstance(given, list) and all(isinstance(one, dict) for one in given):
        return np.array([list(one.values()) for one in given], dtype=np.float32).reshape(len(given), -1)
    return np.asarray(given)
