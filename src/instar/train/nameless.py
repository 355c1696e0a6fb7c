"""Estimators of scikit-learn that look at nothing but numbers: given a matrix instead of a data frame, when a model is loaded.

scikit-learn holds the names of a data frame to those of the fit, and asks pandas for the type of every column: at each call,
and for a few rows that takes longer than the arithmetic. Where the signature says what those names and types are, it is enough
to look once. `nameless` gives a model that takes the matrix which scikit-learn would have made of the frame, and only where
that is sure: the estimator is scikit-learn's own, holds no other estimator or function that could ask for a name, and has said
the same of a few rows in both ways.

    quick = nameless(pipeline, ["x0", "x1"], "FP64", framed, ask)     # None where it must have its data frame

Of the standard library alone: processes in environments of their own (`serve/worker/shim.py`) load this file by its path.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

_NUMBERS = {"FP64": "float64", "FP32": "float32", "INT64": "int64", "INT32": "int32"}
# Parameters that can ask for no name: all else may be an estimator, a function, or names of columns.
_PLAIN = (bool, int, float, str, type(None))
_HANDS_ON = "FunctionTransformer"  # without a function it hands on the data frame as it came


def nameless(
    model: Any,
    names: Sequence[str],
    datatype: str,
    framed: Callable[[Any], Any],
    ask: Callable[[Any, Any], Any],
) -> Any | None:
    """A model that takes the matrix of the frame's values and answers as `model` does of the frame, or None.

    Args:
        model: Fitted on a data frame with columns of these names, or on a matrix. It is not changed.
        datatype: Of all columns.
        framed: Makes the data frame of a matrix.
        ask: From a model and what it is given to its answer.
    """
    sklearn: Any = sys.modules.get("sklearn")
    if sklearn is None or datatype not in _NUMBERS:
        return None
    if sklearn.get_config().get("transform_output", "default") != "default":
        return None
    bare = _bare(model, list(names))
    return bare if bare is not None and _same(model, bare, len(names), datatype, framed, ask) else None


def _bare(model: Any, names: list[str]) -> Any | None:
    """A copy without the names of the fit."""
    if not type(model).__module__.startswith("sklearn.") or hasattr(model, "_sklearn_output_config"):
        return None
    if type(model).__name__ == "Pipeline":
        return _bare_pipeline(model, names)
    if type(model).__name__ == _HANDS_ON or getattr(model, "n_features_in_", None) != len(names):
        return None
    if not all(isinstance(value, _PLAIN) for value in model.get_params(deep=False).values()):
        return None
    fitted_on = getattr(model, "feature_names_in_", None)
    if fitted_on is not None and list(fitted_on) != names:
        return None
    bare = copy.copy(model)
    bare.__dict__.pop("feature_names_in_", None)
    return bare


def _bare_pipeline(model: Any, names: list[str]) -> Any | None:
    (_, front), *rest = model.steps
    bare = _bare(front, names)
    steps = [step for _, step in rest if step is not None and step != "passthrough"]
    if bare is None or any(hasattr(step, "_sklearn_output_config") for step in steps):
        return None
    return _Chain([bare, *steps])


class _Chain:
    """The steps of a pipeline one after the other, without looking at each call whether all of them are fitted."""

    def __init__(self, steps: list[Any]) -> None:
        self._before, self._last = steps[:-1], steps[-1]
        if hasattr(self._last, "classes_"):
            self.classes_ = self._last.classes_
        for asked in ("transform", "predict", "predict_proba"):
            if hasattr(self._last, asked):
                setattr(self, asked, partial(self._ask, getattr(self._last, asked)))

    def _ask(self, last: Callable[[Any], Any], given: Any) -> Any:
        for step in self._before:
            given = step.transform(given)
        return last(given)


def _same(
    model: Any, bare: Any, width: int, datatype: str, framed: Callable[[Any], Any], ask: Callable[[Any, Any], Any]
) -> bool:
    """Whether both say the same of a few rows, and the bare one without a warning."""
    numpy = importlib.import_module("numpy")
    whole = datatype in ("INT64", "INT32")
    rows = [[0, 1, at % 5 - 2] if whole else [0.0, 1.0, at % 7 / 4 - 0.75] for at in range(width)]
    matrix = numpy.array(rows, dtype=_NUMBERS[datatype]).T  # which lies in memory as those of calls do
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = ask(model, framed(matrix.copy(order="K")))
            warnings.simplefilter("error")
            found = ask(bare, matrix)
    except Exception:  # whatever it raises, it is not sure
        return False
    return bool(numpy.array_equal(wanted, found, equal_nan=True))
