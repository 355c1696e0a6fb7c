"""The flavours of a logged model as live models, in a worker process of their own: one number a row, or P(second class).

What MLflow wrote is read by what reads it best: estimators of scikit-learn after their pickle was inspected, trees of XGBoost and
LightGBM by treelite, graphs by ONNX Runtime; only the flavour that every client can load needs MLflow itself. What answers
in another form than one number a row is refused here, with the reason.

    model = load_folder(folder, manifest, inspect)
    model.score({"distance": [1400.0]})       # -> array([0.18]); model.decides is True
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instar.core.errors import Blocked, Damaged, InstarError, StepFailed, Unavailable, UnsafeModel
from instar.train import mlmodel
from instar.train.bundle import FOLDER, Manifest, Tensors
from instar.train.folder_bundle import own_modules
from instar.train.folder_tensors import FolderTensors
from instar.train.frames import Frames, frame_of
from instar.train.graph_model import GRAPH_FACTOR, GraphModel
from instar.train.graph_signature import tensors_of
from instar.train.sessions import open_session

# Why a file may not be loaded, empty when it may: given the file, its path in the folder, and the folder's own modules.
InspectFile = Callable[[Path, str, Sequence[str]], str]
Scores = NDArray[np.float64]

_KINDS: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "FP64": np.float64,
}


class FolderModel:
    """A loaded flavour.

    Attributes:
        decides: It tells two classes apart: a score is the probability of the second. Else a score is what it predicts.
    """

    def __init__(
        self, manifest: Manifest, decides: bool, predict: Callable[[Any], Any], given: Callable[[Any], Any]
    ) -> None:
        self.decides = decides
        self._predict = predict
        self._given = given
        self._subject = f"model {manifest.model}"

    def score(self, columns: Mapping[str, Sequence[Any]]) -> Scores:
        """One finite number for each row, shape (n,).

        Raises:
            MissingInput: A column of the signature is not there.
            StepFailed: The model raised, or answered with something else.
        """
        given = self._given(columns)
        rows = len(next(iter(columns.values()), ()))
        try:
            found = self._predict(given)
        except Exception as error:
            raise StepFailed(f"it raised {type(error).__name__}: {error}", subject=self._subject) from error
        return _numbers(found, rows, self._subject)


def load_folder(folder: Path, manifest: Manifest, inspect: InspectFile) -> FolderModel | FolderTensors | GraphModel:
    """The live model of an unpacked bundle that somebody logged.

    Args:
        inspect: Looks at each file before any is loaded.

    Raises:
        UnsafeModel: A file may not be loaded.
        Unavailable: A package is not installed here.
        Blocked: It answers in a form that is not served.
        Damaged: It cannot be loaded.
    """
    root, described, _ = inspected(folder, manifest, inspect)
    assert manifest.folder is not None
    subject = f"model {manifest.model}"
    flavor = manifest.folder.served_as
    _bring_code(root, described.flavors[flavor])
    given = _matrix(manifest) if manifest.folder.matrix else _frame(manifest)
    try:
        if manifest.tensors is not None:
            return _tensors(root, described, manifest)
        return _LOADERS[flavor](root, described, manifest, given)
    except InstarError:
        raise
    except Exception as error:  # whatever a library raises at a file that it cannot read
        raise Damaged(
            f"its flavour {flavor} cannot be loaded: {type(error).__name__}: {error}", subject=subject,
            next_step="Load it with mlflow in the environment that it was logged in.",
        ) from error  # fmt: skip


def inspected(folder: Path, manifest: Manifest, inspect: InspectFile) -> tuple[Path, mlmodel.Described, Sequence[str]]:
    """The folder that was logged, what its `MLmodel` says, and its own modules, after each file was looked at.

    Raises:
        UnsafeModel: A file may not be loaded.
        Blocked: It answers in a form that is not served.
    """
    assert manifest.folder is not None
    root, subject = folder / FOLDER, f"model {manifest.model}"
    if manifest.folder.unservable:
        raise Blocked(manifest.folder.unservable, subject=subject)
    described = mlmodel.read((root / mlmodel.FILE).read_bytes(), subject)
    own = own_modules(manifest.folder.files, described)
    for path in manifest.folder.files:
        why = inspect(root / path, path, own)
        if why:
            raise UnsafeModel(f"its file {path} is refused: {why}", subject=subject)
    return root, described, own


def _tensors(root: Path, described: mlmodel.Described, manifest: Manifest) -> FolderTensors | GraphModel:
    """A flavour that takes tensors of any form."""
    tensors = manifest.tensors
    assert tensors is not None
    if manifest.folder is not None and manifest.folder.served_as == "onnx":
        _package("onnxruntime")
        file = _inside(root, str(described.flavors["onnx"].get("data") or "model.onnx"))
        session = open_session(file)
        graph = tensors_of(session)
        model = GraphModel(session, Tensors(graph.inputs, graph.outputs), GRAPH_FACTOR * file.stat().st_size)
        if [one.name for one in tensors.inputs] != [mlmodel.ONLY_INPUT]:
            return model
        name = graph.inputs[0].name  # which the signature does not say
        return FolderTensors(manifest, lambda given: model.infer({name: given}))
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")  # what it would unpickle was inspected above
    return FolderTensors(manifest, _package("mlflow.pyfunc").load_model(str(root)).predict)


def _sklearn(root: Path, described: mlmodel.Described, manifest: Manifest, given: Any) -> FolderModel:
    settings = described.flavors["sklearn"]
    place, form = str(settings.get("pickled_model") or "model.pkl"), settings.get("serialization_format")
    return _estimator(_unpickled(root, place, form), manifest, given)


def _xgboost(root: Path, described: mlmodel.Described, manifest: Manifest, given: Any) -> FolderModel:
    settings = described.flavors["xgboost"]
    file = _inside(root, str(settings.get("data") or "model.xgb"))
    kind = str(settings.get("model_class") or "xgboost.core.Booster").rsplit(".", 1)[-1]
    if kind != "Booster" and b"best_iteration" in file.read_bytes():
        # Which of its trees answer is known to its class alone.
        model = getattr(_package("xgboost"), kind)()
        model.load_model(str(file))
        return _estimator(model, manifest, given)
    treelite = _package("treelite")
    return _trees(treelite.frontend.load_xgboost_model(str(file), format_choice="inspect"), manifest)


def _lightgbm(root: Path, described: mlmodel.Described, manifest: Manifest, given: Any) -> FolderModel:
    settings = described.flavors["lightgbm"]
    place = str(settings.get("data") or "model.lgb")
    if not place.endswith((".skops", ".pkl")):
        file = _inside(root, place)
        text = file.read_text(errors="replace")
        if (
            "pandas_categorical:" in text
            and "pandas_categorical:[]" not in text
            and "pandas_categorical:null" not in text
        ):
            raise Blocked("its categories of pandas are not in the file's trees", subject=f"model {manifest.model}")
        return _trees(_package("treelite").frontend.load_lightgbm_model(str(file)), manifest)
    _package("lightgbm")
    return _estimator(_unpickled(root, place, "skops" if place.endswith(".skops") else "pickle"), manifest, given)


def _onnx(root: Path, described: mlmodel.Described, manifest: Manifest, given: Any) -> FolderModel:
    _package("onnxruntime")
    place = str(described.flavors["onnx"].get("data") or "model.onnx")
    session = open_session(_inside(root, place))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    kinds = {
        "tensor(double)": np.float64,
        "tensor(float)": np.float32,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
    }
    names = [column.name for column in manifest.inputs]
    whole = len(inputs) == 1 and (len(names) > 1 or inputs[0].name not in names)

    def feed(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        if whole:
            rows = np.array([columns[name] for name in names], dtype=kinds.get(inputs[0].type, np.float32)).T
            return {inputs[0].name: rows.reshape(-1, len(names))}
        return {
            one.name: np.array(columns[one.name], dtype=kinds.get(one.type, object)).reshape(-1, 1) for one in inputs
        }

    def predict(fed: dict[str, Any]) -> Any:
        found = session.run([outputs[-1].name], fed)[0]
        if isinstance(found, list):  # probabilities by label, as converters write them by default
            found = np.array([list(one.values()) for one in found])
        found = np.asarray(found)
        return found[:, 1] if found.ndim == 2 and found.shape[1] == 2 else found

    # A classifier answers with labels and then with probabilities; what has one output predicts it.
    return FolderModel(manifest, len(outputs) > 1, predict, feed)


def _pyfunc(root: Path, described: mlmodel.Described, manifest: Manifest, given: Any) -> FolderModel:
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")  # what it would unpickle was inspected above
    model = _package("mlflow.pyfunc").load_model(str(root))
    return FolderModel(manifest, False, model.predict, given)


_LOADERS: dict[str, Callable[[Path, mlmodel.Described, Manifest, Any], FolderModel]] = {
    "sklearn": _sklearn, "xgboost": _xgboost, "lightgbm": _lightgbm, "onnx": _onnx, "python_function": _pyfunc,
}  # fmt: skip


def _estimator(model: Any, manifest: Manifest, given: Any) -> FolderModel:
    """An estimator in the manner of scikit-learn."""
    subject = f"model {manifest.model}"
    classes = getattr(model, "classes_", None)
    if hasattr(model, "predict_proba") and classes is not None:
        if np.ndim(classes) != 1 or len(classes) != 2:
            raise Blocked(
                "it tells more than two classes apart, which is not served as yet", subject=subject,
                found=f"{len(classes)} classes", asked="two classes, or one number a row",
            )  # fmt: skip
        return _quick(model, manifest, True, lambda one, rows: np.asarray(one.predict_proba(rows))[:, 1], given)
    if classes is not None:
        raise Blocked(
            "it tells classes apart without probabilities, which is not served as yet", subject=subject,
            found=type(model).__name__, asked="predict_proba, or one number a row",
        )  # fmt: skip
    if not hasattr(model, "predict"):
        raise Blocked("it has no predict", subject=subject, found=type(model).__name__)
    return _quick(model, manifest, False, lambda one, rows: one.predict(rows), given)


def _quick(
    model: Any, manifest: Manifest, decides: bool, ask: Callable[[Any, Any], Any], given: Callable[[Any], Any]
) -> FolderModel:
    """The model, which takes a matrix instead of its data frame where that is the same to it."""
    takes_frames = manifest.folder is not None and not manifest.folder.matrix
    frames = Frames(manifest.inputs, "pandas")
    bare = frames.without(model, ask) if takes_frames else None
    if bare is None:
        return FolderModel(manifest, decides, lambda rows: ask(model, rows), given)

    def either(columns: Any) -> Any:
        matrix = frames.matrix(columns)
        return given(columns) if matrix is None else matrix

    return FolderModel(
        manifest, decides, lambda rows: ask(bare if isinstance(rows, np.ndarray) else model, rows), either
    )


def _trees(trees: Any, manifest: Manifest) -> FolderModel:
    """Trees that treelite read."""
    import treelite

    header = trees.get_header_accessor()
    outputs = int(np.sum(header.get_field("num_class")))  # of each target
    if outputs != 1:
        raise Blocked(
            "its trees answer with several numbers a row, which is not served as yet", subject=f"model {manifest.model}",
            found=outputs, asked="two classes, or one number a row",
        )  # fmt: skip
    names = [column.name for column in manifest.inputs]
    texts = [column.name for column in manifest.inputs if column.datatype == "BYTES"]
    if texts or trees.num_feature != len(names):
        raise Blocked(
            "its signature is not the columns of its trees", subject=f"model {manifest.model}",
            found=f"text in {texts[0]}" if texts else f"{len(names)} columns", asked=f"{trees.num_feature} numbers",
        )  # fmt: skip
    kind = np.float32 if trees.input_type == "float32" else np.float64

    def matrix(columns: Mapping[str, Sequence[Any]]) -> Any:
        return (
            np.array([np.array(columns[name], dtype=np.float64) for name in names])
            .T.astype(kind)
            .reshape(-1, len(names))
        )

    def predict(rows: Any) -> Any:
        return treelite.gtil.predict(trees, rows, nthread=1)[:, 0, 0]

    decides = _word(header.get_field("postprocessor")) == "sigmoid"
    return FolderModel(manifest, decides, predict, matrix)


def _unpickled(root: Path, place: str, form: Any) -> Any:
    file = _inside(root, place)
    if form == "skops":
        io = _package("skops.io")
        return io.load(str(file), trusted=io.get_untrusted_types(file=str(file)))  # its types were inspected above
    with file.open("rb") as opened:
        return pickle.load(opened)


def _frame(manifest: Manifest) -> Callable[[Any], Any]:
    frames = Frames(manifest.inputs, "pandas")

    def given(columns: Mapping[str, Sequence[Any]]) -> Any:
        _package("pandas")
        return frames.make(columns)

    return given


def _matrix(manifest: Manifest) -> Callable[[Any], Any]:
    kind = _KINDS[manifest.inputs[0].datatype]
    frames = Frames(manifest.inputs, "pandas")

    def given(columns: Mapping[str, Sequence[Any]]) -> Any:
        matrix = frames.matrix(columns)
        if matrix is None:
            matrix = frame_of(columns, manifest.inputs).to_numpy().astype(kind)
        return np.ascontiguousarray(matrix)

    return given


def _numbers(found: Any, rows: int, subject: str) -> Scores:
    values = found.to_numpy() if hasattr(found, "to_numpy") else np.asarray(found)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (rows,) or values.dtype.kind not in "biuf":
        raise StepFailed(
            "it must answer one number a row", subject=subject, found=f"{values.dtype} of shape {values.shape}",
            asked=f"({rows},)",
        )  # fmt: skip
    scores: Scores = values.astype(np.float64)
    if not np.isfinite(scores).all():
        raise StepFailed(
            "it answered with what is no number", subject=subject, found=str(scores[~np.isfinite(scores)][0])
        )
    return scores


def _inside(root: Path, place: str) -> Path:
    file = (root / place).resolve()
    if not file.is_relative_to(root.resolve()) or not file.is_file():
        raise Damaged("its MLmodel names a file that is not in its folder", found=place)
    return file


def _bring_code(root: Path, settings: Mapping[str, Any]) -> None:
    places = settings.get("code") or []
    for place in places if isinstance(places, list) else [places]:
        folder = (root / str(place)).resolve()
        if folder.is_relative_to(root.resolve()) and str(folder) not in sys.path:
            sys.path.append(str(folder))  # at the end, so that nothing installed is ever shadowed


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).split(".")[0]
        raise Unavailable(
            f"the package {missing} is not installed where it would answer", asked=missing,
            next_step=f"Install {missing} beside Instar and start the server again.",
        ) from None  # fmt: skip


def _word(value: Any) -> str:
    return value if isinstance(value, str) else "".join(map(str, value))
