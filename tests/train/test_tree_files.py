"""Trees of XGBoost and LightGBM as files, without either library: they answer as the libraries did.

The files of `golden/tree_files` were written by XGBoost 3 and LightGBM 4, `expected.json` by their own `predict`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from instar.core.errors import BadInput, Blocked
from instar.core.store import Store
from instar.train import bundle, file_bundle
from instar.train.bundle import Tensor
from instar.train.examining import _look
from instar.train.tree_model import TreesModel, read_trees

FILES = Path(__file__).parent / "golden" / "tree_files"
EXPECTED = json.loads((FILES / "expected.json").read_text())
ROWS = np.array([[np.nan if value is None else value for value in row] for row in EXPECTED["rows"]])


@pytest.mark.parametrize(
    ("name", "output", "width"),
    [
        ("binary.json", "probability", 1),
        ("classes.ubj", "probabilities", 3),
        ("number.json", "prediction", 1),
        ("binary.txt", "probability", 1),
        ("classes.txt", "probabilities", 3),
    ],
)
def test_trees_answer_as_their_library_did(store: Store, tmp_path: Path, name: str, output: str, width: int) -> None:
    form = file_bundle.SUFFIXES[Path(name).suffix]
    written = tmp_path / "trees"
    tensors = _look(FILES / name, form, written).tensors
    datatype = "FP32" if form == "xgboost" else "FP64"
    assert tensors.inputs == (Tensor("input", datatype, (-1, 4), nullable=True),)
    assert tensors.outputs == (Tensor(output, datatype, (-1, width)),)
    assert (tensors.rows, tensors.batchable, tensors.least, tensors.difference) == (True, True, 1, 0.0)
    manifest = bundle.decode((Path(__file__).parent / "golden" / "manifest.json").read_bytes())
    import msgspec

    model = TreesModel.load(msgspec.structs.replace(manifest, tensors=tensors), written)
    rows = ROWS.astype(np.float32 if form == "xgboost" else np.float64)
    found = model.infer({"input": rows})[output]
    assert np.allclose(found, np.array(EXPECTED[name]).reshape(3, width), atol=1e-6)
    alone = np.concatenate([model.infer({"input": rows[at : at + 1]})[output] for at in range(3)])
    assert (alone == found).all()
    assert model.size_bytes > 0


def test_a_file_of_trees_becomes_a_bundle(store: Store) -> None:
    packed = file_bundle.pack_file(store, FILES / "binary.json", name="trees")
    manifest = bundle.load_manifest(store.blobs, packed.bundle)
    assert manifest.portable is not None
    assert (packed.form, manifest.portable.form, manifest.portable.layout) == ("xgboost", "treelite", "tensors")


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    for text, form in (("{}", "xgboost"), ("nothing", "xgboost"), ("nothing", "lightgbm"), ("", "lightgbm")):
        file.write_text(text)
        with pytest.raises(BadInput, match=f"no model of {form}"):
            read_trees(file, form)
    file.write_text((FILES / "binary.txt").read_text().replace("pandas_categorical:null", 'pandas_categorical:[["a"]]'))
    with pytest.raises(Blocked, match="pandas"):
        read_trees(file, "lightgbm")
