"""What a folder of MLflow's answers is what the model in it answers; what cannot be served is refused with the reason."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from instar.core.errors import Blocked, Damaged, InstarError, StepFailed, Unavailable, UnsafeModel
from instar.core.store import Store
from instar.serve.worker import loading
from instar.train import bundle
from instar.train.folder_tensors import FolderTensors
from tests.train import graphs
from tests.train.folders import MATRIX, flights, mlmodel, pack, pyfunc, sklearn_files

ROWS = {"distance": [1400.0, 200.0, 2900.0], "hour": [8, 23, 1]}
FRAME = pd.DataFrame(ROWS)


def load(store: Store, tmp_path: Path, files: dict[str, bytes], **about: Any) -> Any:
    digest = pack(store, files, **about)
    folder = tmp_path / digest.removeprefix("b3:")
    bundle.unpack(store.blobs, digest, folder)
    return loading.load(folder, named=digest)


def frame() -> tuple[pd.DataFrame, Any, Any]:
    given, late, minutes = flights()
    return pd.DataFrame(given, columns=["distance", "hour"]).astype({"hour": int}), late, minutes


def test_a_classifier_answers_with_the_probability_of_the_second_class(store: Store, tmp_path: Path) -> None:
    rows, late, _ = frame()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, np.where(late, "yes", "no"))
    served = load(store, tmp_path, sklearn_files(model))
    assert served.decides
    assert served.score(ROWS) == pytest.approx(model.predict_proba(FRAME)[:, 1], abs=0)


def test_a_regressor_answers_with_its_number(store: Store, tmp_path: Path) -> None:
    rows, _, minutes = frame()
    model = LinearRegression().fit(rows, minutes)
    served = load(store, tmp_path, sklearn_files(model))
    assert not served.decides
    assert served.score(ROWS) == pytest.approx(model.predict(FRAME), abs=0)


def test_a_matrix_is_laid_together_from_its_columns(store: Store, tmp_path: Path) -> None:
    given, late, _ = flights()
    model = RandomForestClassifier(5, random_state=1).fit(given, late)
    files = sklearn_files(model, inputs=MATRIX)
    served = load(store, tmp_path, files)
    asked = {"x0": ROWS["distance"], "x1": [float(hour) for hour in ROWS["hour"]]}
    assert served.score(asked) == pytest.approx(model.predict_proba(FRAME.to_numpy())[:, 1], abs=0)


def many_classes() -> Any:
    rows, _, _ = frame()
    return LogisticRegression().fit(rows, np.arange(len(rows)) % 3)


def no_probabilities() -> Any:
    rows, late, _ = frame()
    return LinearSVC().fit(rows, late)


def two_targets() -> Any:
    rows, _, minutes = frame()
    return LinearRegression().fit(rows, np.column_stack([minutes, minutes]))


@pytest.mark.parametrize(
    ("model", "kind", "why"),
    [
        (many_classes, Blocked, "more than two classes"),
        (no_probabilities, Blocked, "without probabilities"),
        (StandardScaler, Blocked, "has no predict"),
        (two_targets, StepFailed, "one number a row"),
    ],
)
def test_what_is_not_served_yet(store: Store, tmp_path: Path, model: Any, kind: type[InstarError], why: str) -> None:
    with pytest.raises(kind, match=why):
        load(store, tmp_path, sklearn_files(model())).score(ROWS)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("never",))


def test_a_pickle_is_looked_at_when_it_is_packed_and_when_it_is_loaded(store: Store, tmp_path: Path) -> None:
    files = {**sklearn_files(None), "model.pkl": pickle.dumps(Evil())}
    with pytest.raises(Blocked, match=r"builtins\.print is not on the allow-list"):
        load(store, tmp_path, files)
    with pytest.raises(UnsafeModel, match=r"builtins\.print"):
        load(store, tmp_path, files, name="unseen", inspect=None)


def test_a_pickle_may_name_what_the_folder_brings(store: Store, tmp_path: Path) -> None:
    code = b"class Rule:\n    def predict(self, frame):\n        return frame['distance'] * 0.01\n"
    import types

    module = types.ModuleType("far_away_rule")
    exec(code, module.__dict__)
    module.Rule.__module__ = "far_away_rule"

    sys.modules["far_away_rule"] = module
    try:
        body = pickle.dumps(module.Rule())
    finally:
        del sys.modules["far_away_rule"]
    files = {**sklearn_files(None), "model.pkl": body, "code/far_away_rule.py": code}
    with pytest.raises(Blocked, match="far_away_rule"):
        load(store, tmp_path, files)  # its MLmodel does not say that there is code
    flavors = {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle", "code": "code"},
               "python_function": pyfunc("mlflow.sklearn", code="code")}  # fmt: skip
    served = load(store, tmp_path, {**files, "MLmodel": mlmodel(flavors)})
    assert list(served.score(ROWS)) == [14.0, 2.0, 29.0]


def test_a_missing_package_is_named(store: Store, tmp_path: Path) -> None:
    flavors = {"python_function": pyfunc("mlflow.pyfunc.loaders.code_model", model_code_path="model.py")}
    files = {"MLmodel": mlmodel(flavors), "model.py": b"import mlflow\n"}
    try:
        import mlflow  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(Unavailable, match="package mlflow is not installed"):
            load(store, tmp_path, files)


def test_a_model_in_skops_names_skops_where_it_is_not_installed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skops", None)  # as if it were not there, where it is
    monkeypatch.delitem(sys.modules, "skops.io", raising=False)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(
            "schema.json", '{"__class__": "LogisticRegression", "__module__": "sklearn.linear_model._logistic"}'
        )
    files = {**sklearn_files(None, form="skops"), "model.pkl": archive.getvalue()}
    with pytest.raises(Unavailable, match="the package skops is not installed") as refused:
        load(store, tmp_path, files)
    assert "Install skops beside Instar" in refused.value.next_step


@pytest.mark.parametrize(
    ("flavors", "inputs", "why"),
    [
        ({"spark": {}}, None, "no signature"),
        ({"spark": {}}, MATRIX, "none of its flavours"),
        ({"python_function": pyfunc("os")}, MATRIX, "loader os is not one that is served"),
        ({"sklearn": {}}, [{"type": "binary", "name": "a"}], "type binary"),
        (
            {"sklearn": {}},
            [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 28, 28]}}],
            "none of its flavours (sklearn) is served; those that are: onnx, python_function",
        ),
        (
            {"onnx": {}},
            [{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1, 8, 8]}}],
            "tensors of shape",
        ),
        ({"sklearn": {}}, [{"type": "long", "name": "a"}, {"type": "long", "name": "a"}], "same name"),
    ],
)
def test_what_a_manifest_says_against_serving(store: Store, flavors: Any, inputs: Any, why: str) -> None:
    manifest = bundle.load_manifest(store.blobs, pack(store, {"MLmodel": mlmodel(flavors, inputs)}))
    assert manifest.folder is not None
    assert why in manifest.folder.unservable


def test_a_file_that_lies_elsewhere_is_not_read(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.pkl").write_bytes(pickle.dumps(1))
    flavors = {"sklearn": {"pickled_model": "../../elsewhere.pkl", "serialization_format": "pickle"}}
    with pytest.raises(Damaged, match="not in its folder"):
        load(store, tmp_path, {"MLmodel": mlmodel(flavors)})


def test_a_graph_answers_as_the_estimator_that_it_was_made_of(store: Store, tmp_path: Path) -> None:
    import skl2onnx

    given, late, minutes = flights()
    for model, truth, zipmap in (
        (LogisticRegression(), late, False),
        (LogisticRegression(), late, True),
        (LinearRegression(), minutes, False),
    ):
        model.fit(StandardScaler().fit_transform(given), truth)
        options = {"zipmap": zipmap} if truth is late else None
        graph = skl2onnx.to_onnx(model, given[:1].astype(np.float32), options=options)
        flavors = {"onnx": {"data": "model.onnx"}, "python_function": pyfunc("mlflow.onnx", data="model.onnx")}
        served = load(store, tmp_path, {"MLmodel": mlmodel(flavors), "model.onnx": graph.SerializeToString()})
        rows = FRAME.to_numpy()
        wanted = model.predict_proba(rows)[:, 1] if truth is late else model.predict(rows)
        assert served.decides is (truth is late)
        assert served.score(ROWS) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("flavor", ["xgboost", "lightgbm"])
def test_trees_answer_without_the_library_that_grew_them(store: Store, tmp_path: Path, flavor: str) -> None:
    golden = Path(__file__).parent / "golden" / "trees"
    file = {"xgboost": "model.ubj", "lightgbm": "model.lgb"}[flavor]
    flavors = {
        flavor: {"data": file, "model_class": "xgboost.core.Booster"},
        "python_function": pyfunc(f"mlflow.{flavor}"),
    }
    served = load(store, tmp_path, {"MLmodel": mlmodel(flavors), file: (golden / file).read_bytes()})
    asked = {"distance": [1400.0, 200.0, 2900.0], "hour": [8, 23, 1]}
    wanted = np.array((golden / f"{flavor}.txt").read_text().split(), dtype=float)
    assert served.decides
    assert served.score(asked) == pytest.approx(wanted, rel=1e-6)
    one_column = mlmodel(flavors, [{"type": "double", "name": "distance", "required": True}])
    with pytest.raises(Blocked, match="not the columns of its trees"):
        load(store, tmp_path, {"MLmodel": one_column, file: (golden / file).read_bytes()})


def image_signature(**names: str) -> Any:
    return [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2, 2]}, **names}]


@pytest.mark.parametrize("names", [{}, {"name": "x"}])
def test_a_signature_of_tensors_makes_a_tensor_model(store: Store, tmp_path: Path, names: Any) -> None:
    files = {
        "MLmodel": mlmodel({"onnx": {"data": "model.onnx"}}, image_signature(**names), image_signature(name="y")),
        "model.onnx": graphs.same("FP32", ("n", 2, 2)),
    }
    digest = pack(store, files)
    manifest = bundle.load_manifest(store.blobs, digest)
    name = names.get("name", "input")
    assert (manifest.format, manifest.inputs, manifest.form) == (3, (), "tensors")
    assert manifest.tensors == bundle.Tensors(
        (bundle.Tensor(name, "FP32", (-1, 2, 2)),), (bundle.Tensor("y", "FP32", (-1, 2, 2)),), rows=True
    )
    model: Any = load(store, tmp_path, files)
    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    assert model.infer({name: image})["y"].tolist() == image.tolist()
    assert not model.batchable


def test_what_a_predict_gives_becomes_named_arrays(store: Store) -> None:
    files = {"MLmodel": mlmodel({"python_function": pyfunc("mlflow.pytorch")}, image_signature(), image_signature())}
    manifest = bundle.load_manifest(store.blobs, pack(store, files))
    image = np.ones((1, 2, 2), np.float32)
    given: list[Any] = []

    def model(answer: Any) -> FolderTensors:
        return FolderTensors(manifest, lambda rows: given.append(rows) or answer)

    assert list(model(image).infer({"input": image})) == ["output"]
    assert given[0] is image
    assert model({"a": [1.0], "b": image}).infer({"input": image})["a"].tolist() == [1.0]

    def fails(rows: Any) -> Any:
        raise ValueError("no such image")

    with pytest.raises(StepFailed, match="ValueError: no such image"):
        FolderTensors(manifest, fails).infer({"input": image})
