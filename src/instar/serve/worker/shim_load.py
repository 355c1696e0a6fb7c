"""Loading a model in an environment that is not ours, when the shim's host asks: a pickle, a library's file, a folder, a class.

Loaded by its path by `shim.py`, and like that of the standard library alone. The host says of each file what it held when it
looked at it (SHA-256): what was swapped since is not loaded.
"""

# ruff: noqa: UP006, UP035 (as `shim.py`)
from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import pickle
import sys
from typing import Any, Callable, Sequence, Tuple

# Whether a score is a probability, of which the version decides, or is what is predicted; what answers; and the estimator
# that it answers with, of one that was pickled.
Loaded = Tuple[bool, Callable[[Any], Any], Any]

NOTEBOOKS = "notebooks"  # in a bundle's code: modules that cells of notebooks make
_CHUNK = 1 << 20


def load(asked: dict[str, Any]) -> Loaded:
    """The model that the host asks for.

    Args:
        asked: `way` and what belongs to it; `checked`: digests of files by their paths; `code`: where modules of its own lie.

    Raises:
        ValueError: A file was swapped after the host had looked at it, or the model does not answer as it must.
    """
    way, checked = asked["way"], asked["checked"]
    for path in checked:
        if path != asked.get("file") or way != "pickle":
            _hold(path, checked)
    if asked["code"]:
        _bring(asked["code"], asked["own"])
    if way == "pyfunc":
        os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")  # the host looked at what it unpickles
        return False, importlib.import_module("mlflow.pyfunc").load_model(asked["folder"]).predict, None
    if way == "class":
        return asked["decides"], _class(asked), None
    if way == "xgboost":
        return _xgboost(asked["kind"], asked["file"])
    if way == "lightgbm":
        return _lightgbm(asked["file"])
    model = pickle.loads(_held(asked["file"], checked))
    decides = _tells_two_apart(model) if asked["logged"] else True
    return decides, answering(model), model


def answering(model: Any) -> Callable[[Any], Any]:
    """What answers of an estimator: its share of the second class, or what it predicts."""
    return _Shares(model) if hasattr(model, "predict_proba") else model.predict


def _held(path: str, checked: dict[str, str]) -> bytes:
    """The bytes of a file, which are those that the host looked at."""
    with open(path, "rb") as file:
        data = file.read()
    _same(path, hashlib.sha256(data).hexdigest(), checked)
    return data


def _hold(path: str, checked: dict[str, str]) -> None:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            found.update(chunk)
    _same(path, found.hexdigest(), checked)


def _same(path: str, found: str, checked: dict[str, str]) -> None:
    if found != checked[path]:
        raise ValueError(f"its file {os.path.basename(path)} was changed after it was looked at, and is not loaded")


def _xgboost(kind: str, file: str) -> Loaded:
    xgboost = importlib.import_module("xgboost")
    model = getattr(xgboost, kind)()
    model.load_model(file)
    if kind != "Booster":
        return _tells_two_apart(model), answering(model), None
    objective = json.loads(model.save_config())["learner"]["objective"]["name"]
    names = model.feature_names

    def predict(given: Any) -> Any:
        named = {} if hasattr(given, "columns") else {"feature_names": names}
        return model.predict(xgboost.DMatrix(given, **named))

    return objective == "binary:logistic", predict, None


def _lightgbm(file: str) -> Loaded:
    model = importlib.import_module("lightgbm").Booster(model_file=file)
    return model.dump_model(num_iteration=1).get("objective", "").startswith("binary"), model.predict, None


def _class(asked: dict[str, Any]) -> Callable[[Any], Any]:
    """What answers of an object of the class that a bundle's entry names."""
    module_name, _, name = asked["entry"].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if problem.name != module_name:
            raise
        raise ValueError(f"entry {asked['entry']}: the folder has no module {module_name}") from None
    made = getattr(module, name, None)
    if not isinstance(made, type):
        raise ValueError(f"entry {asked['entry']}: module {module_name} has no class {name}")
    model = made(asked["folder"]) if _takes_folder(made) else made()
    method = "infer" if asked["form"] == "tensors" else "predict"
    answers = getattr(model, method, None)
    if not callable(answers):
        raise ValueError(f"entry {asked['entry']}: class {name} has no method {method}")
    result: Callable[[Any], Any] = answers
    return result


def _takes_folder(made: type) -> bool:
    if made.__init__ is object.__init__:  # type: ignore[misc]
        return False
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return any(one.kind in kinds for one in inspect.signature(made).parameters.values())


def _tells_two_apart(model: Any) -> bool:
    """Whether an estimator that was logged decides between two classes; else it predicts a number.

    Raises:
        ValueError: It does neither.
    """
    classes = getattr(model, "classes_", None)
    if classes is None:
        if not hasattr(model, "predict"):
            raise ValueError(f"{type(model).__name__} has no predict")
        return False
    if not hasattr(model, "predict_proba"):
        raise ValueError("it tells classes apart without probabilities, which is not served as yet")
    if len(classes) != 2:
        raise ValueError(f"it tells {len(classes)} classes apart; two are served")
    return True


class _Shares:
    """P(the second class), or P(true) where one class only was seen."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, given: Any) -> list[Any]:
        shares = self._model.predict_proba(given)
        shares = shares.tolist() if hasattr(shares, "tolist") else list(shares)
        if not shares or not hasattr(shares[0], "__len__"):
            return shares
        if len(shares[0]) == 1:
            sure = bool(next(iter(getattr(self._model, "classes_", [True]))))
            return [one[0] if sure else 1.0 - one[0] for one in shares]
        if len(shares[0]) > 2:
            raise ValueError(f"it tells {len(shares[0])} classes apart; two are served")
        return [one[1] for one in shares]


def _bring(code: str, own: Sequence[str]) -> None:
    """Put the bundle's code before what is installed, and after the standard library, which it never hides."""
    places = [code, os.path.join(code, NOTEBOOKS)] if code.endswith(".zip") else [code]
    at = next((i for i, place in enumerate(sys.path) if "-packages" in place), len(sys.path))
    sys.path[at:at] = [place for place in places if place not in sys.path]
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        if name.partition(".")[0] not in getattr(sys, "stdlib_module_names", ()):
            del sys.modules[name]
