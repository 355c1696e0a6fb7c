"""Trees as a tensor model: a matrix of features in, what each tree ensemble says of a row out, at each call.

Files of XGBoost (JSON or UBJSON) and of LightGBM (text) are read by treelite, so neither library is needed. A missing value is
null in JSON and NaN in an array.

    model = TreesModel.load(manifest, file)
    model.infer({"input": np.zeros((1, 30), np.float32)})      # -> {"probability": array([[0.2]])}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instar.core.errors import BadInput, Blocked, Damaged
from instar.train.bundle import Manifest, Tensor, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT = "input"
FORMS = ("xgboost", "lightgbm")

# Trees in memory beside their serialized form: measured 1.1 to 1.3 times its size.
MEMORY_FACTOR = 1.3


class TreesModel:
    """Loaded trees. Holds no state: one object serves many threads.

    Attributes:
        batchable: Always: each row is walked down the trees alone.
        size_bytes: Memory that it takes, estimated.
    """

    batchable = True

    def __init__(self, trees: Any, tensors: Tensors, size_bytes: int) -> None:
        import treelite

        self.size_bytes = size_bytes
        self._trees = trees
        self._predict = treelite.gtil.predict
        self._output = tensors.outputs[0].name
        self._width = tensors.outputs[0].shape[1]

    @classmethod
    def load(cls, manifest: Manifest, file: Path) -> TreesModel:
        """Load the trees of a tensor model's bundle.

        Raises:
            Damaged: They cannot be read.
        """
        import treelite

        if manifest.tensors is None:
            raise Damaged("it has no tensors", subject=f"bundle of {manifest.model}")
        try:
            trees = treelite.Model.deserialize_bytes(file.read_bytes())
        except treelite.TreeliteError as error:
            raise Damaged("its trees cannot be read", found=str(error)[:300]) from error
        return cls(trees, manifest.tensors, int(file.stat().st_size * MEMORY_FACTOR))

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the trees say of each row, shape (rows, numbers)."""
        rows = inputs[INPUT]
        return {self._output: self._predict(self._trees, rows, nthread=1).reshape(len(rows), self._width)}


def read_trees(file: Path, form: str) -> Any:
    """Trees from a file of another library.

    Raises:
        BadInput: It is no such file.
        Blocked: Its categories of pandas are not in its trees.
    """
    import treelite

    try:
        if form == "xgboost":
            return treelite.frontend.load_xgboost_model(str(file), format_choice="inspect")
        text = file.read_text(errors="replace")
        if "pandas_categorical:" in text and not any(f"pandas_categorical:{none}" in text for none in ("[]", "null")):
            raise Blocked("its categories of pandas are not in the file's trees")
        return treelite.frontend.load_lightgbm_model(str(file))
    except (treelite.TreeliteError, ValueError) as error:
        raise BadInput(f"it is no model of {form}", found=" ".join(str(error).split())[:300]) from error


def tensors_of(trees: Any) -> Tensors:
    """What trees take and give: `probability` of two classes, `probabilities` of more, else `prediction`.

    Raises:
        Blocked: They answer with vectors for several targets.
    """
    header = trees.get_header_accessor()
    classes = np.atleast_1d(header.get_field("num_class"))
    targets = int(np.atleast_1d(header.get_field("num_target"))[0])
    if targets > 1 and int(classes.max()) > 1:
        raise Blocked("its trees tell classes apart for several targets", found=targets, asked="one target")
    width = max(int(classes.max()), targets)
    after = header.get_field("postprocessor")
    word = after if isinstance(after, str) else "".join(map(str, after))
    name = (
        "probability"
        if word == "sigmoid"
        else "probabilities"
        if word in ("softmax", "multiclass_ova")
        else "prediction"
    )
    if name == "probability" and width > 1:
        name = "probabilities"
    datatype = "FP32" if trees.input_type == "float32" else "FP64"
    given = Tensor(INPUT, datatype, (-1, trees.num_feature), nullable=True)
    return Tensors((given,), (Tensor(name, datatype, (-1, width)),), rows=True, batchable=True)
