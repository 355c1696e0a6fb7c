"""A model answers out of a shim what it answers in a worker of ours: estimators, logged folders, tensors."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from instar.core.errors import Damaged, UnsafeModel
from instar.core.store import Store
from instar.serve.traffic.routes import bundle_folder
from instar.serve.worker import housed, loading, shim
from instar.train import bundle
from tests.serve import bundles
from tests.train.folders import MATRIX, flights, pack, sklearn_files

ROWS: dict[str, Any] = {"distance": [1400.0, 200.0, 2900.0], "hour": [8, 23, 1]}


@pytest.fixture
def line() -> Iterator[housed.Line]:
    """A shim under our own interpreter, which has the libraries."""
    started = housed.Line(lambda status: None, lambda: sys.executable)
    yield started
    started.close()


def unpacked(store: Store, digest: str) -> Path:
    folder = bundle_folder(store.folder, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    bundle.unpack(store.blobs, digest, folder)
    return folder


def both(store: Store, digest: str, line: housed.Line) -> tuple[Any, Any]:
    """The model as our worker loads it, and as a shim does."""
    folder = unpacked(store, digest)
    return loading.load(folder), housed.load(folder, loading.verified, line)


def frame() -> tuple[pd.DataFrame, Any, Any]:
    given, late, minutes = flights()
    return pd.DataFrame(given, columns=["distance", "hour"]).astype({"hour": int}), late, minutes


@pytest.mark.parametrize("form", ["pandas", "polars"])
def test_a_native_form_answers_alike(store: Store, line: housed.Line, form: str) -> None:
    from instar.train.frames import as_form

    rows, late, _ = frame()
    model = LogisticRegression().fit(as_form(pl.from_pandas(rows), form), late)
    inputs = (bundle.Column("distance", "FP64"), bundle.Column("hour", "INT64"))
    made = bundles.manifest(store, pickle.dumps(model), code=None, form=form, inputs=inputs)
    ours, theirs = both(store, bundle.pack(store.blobs, made), line)
    assert theirs.decides
    assert theirs.score(ROWS) == pytest.approx(ours.score(ROWS), abs=0)


@pytest.mark.parametrize("matrix", [False, True])
def test_a_logged_classifier_answers_alike(store: Store, line: housed.Line, matrix: bool) -> None:
    given, late, _ = flights()
    rows, _, _ = frame()
    model = LogisticRegression().fit(given if matrix else rows, late)
    ours, theirs = both(store, pack(store, sklearn_files(model, **({"inputs": MATRIX} if matrix else {}))), line)
    asked = {"x0": ROWS["distance"], "x1": [float(one) for one in ROWS["hour"]]} if matrix else ROWS
    assert theirs.decides
    assert theirs.score(asked) == pytest.approx(ours.score(asked), abs=0)


def test_a_logged_regressor_answers_alike(store: Store, line: housed.Line) -> None:
    rows, _, minutes = frame()
    ours, theirs = both(store, pack(store, sklearn_files(LinearRegression().fit(rows, minutes))), line)
    assert not theirs.decides
    assert theirs.score(ROWS) == pytest.approx(ours.score(ROWS), abs=0)


def test_what_a_worker_of_ours_refuses_a_shim_refuses(store: Store, line: housed.Line) -> None:
    rows, late, _ = frame()
    folder = unpacked(store, pack(store, sklearn_files(LinearSVC().fit(rows, late))))
    with pytest.raises(Damaged, match="without probabilities"):
        housed.load(folder, loading.verified, line)
    files = {**sklearn_files(None), "model.pkl": pickle.dumps(io.StringIO)}
    folder = unpacked(store, pack(store, files, name="unseen", inspect=None))
    with pytest.raises(UnsafeModel, match="StringIO"):
        housed.load(folder, loading.verified, line)


class Echo:
    """The far side of a line, in this process."""

    def __init__(self, predict: Any, alone: str = "") -> None:
        self._predict, self._asked = predict, {"alone": alone, "output": "output"}

    def ask(self, head: dict[str, Any], parts: list[bytes]) -> Any:
        return shim._tensors(self._predict, self._asked, head["tensors"], [bytearray(part) for part in parts])


def test_tensors_of_every_type_cross_both_ways() -> None:
    kinds = {name: np.dtype(kind) for name, kind in shim.KINDS.items()}
    given: dict[str, Any] = {name: np.arange(6).astype(kind).reshape(2, 3) for name, kind in kinds.items()}
    given["text"] = np.array([["é", "b"]], dtype=object)
    given["empty"] = np.empty((0, 4), dtype=np.float32)
    found = housed.HousedTensors(Echo(lambda inputs: inputs)).infer(given)  # type: ignore[arg-type]
    assert list(found) == list(given)
    for name, value in given.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert (found[name] == value).all()


def test_one_array_alone_and_a_frame_for_an_answer() -> None:
    lone = housed.HousedTensors(Echo(lambda one: one * 2, alone="x"))  # type: ignore[arg-type]
    assert lone.infer({"x": np.array([1.5])})["output"].tolist() == [3.0]
    texts = housed.HousedTensors(Echo(lambda one: np.array([b"set", b"osa"]), alone="x"))  # type: ignore[arg-type]
    assert texts.infer({"x": np.array([1.5])})["output"].tolist() == ["set", "osa"]
    named = housed.HousedTensors(Echo(lambda given: pd.DataFrame({"a": given["x"]})))  # type: ignore[arg-type]
    assert named.infer({"x": np.array([1, 2])})["a"].tolist() == [1, 2]
