"""Making the portable form of a fitted scikit-learn model, when it is packed, and measuring that it answers alike.

    estimator = Pipeline([ColumnTransformer, …, HistGradientBoostingClassifier])
                          └── tables in the manifest (`encoders`)   └── trees for treelite, or ONNX for what follows

Trees go to treelite, whose answers equal the native ones to the last bits; everything else that skl2onnx knows goes to
ONNX. What neither takes is served natively, and the manifest says why.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.core import ids
from instar.core.errors import Damaged
from instar.train.bundle import Column, Encoding, Field, Parity, Portable
from instar.train.encoders import NotLiftable, compose, lift
from instar.train.frames import as_form
from instar.train.portable import PortableModel

# Largest difference in probability that passes. Trees are summed alike; ONNX works in single precision in places.
TOLERANCE = {"treelite": 1e-9, "onnx": 1e-5}

_MODULE = "sklearn.ensemble."
_BOOSTING = "HistGradientBoostingClassifier"
_TREES = {_BOOSTING, "RandomForestClassifier", "ExtraTreesClassifier", "GradientBoostingClassifier"}


@dataclass(frozen=True)
class Converted:
    """A portable form and its bytes; `portable` is None when there is none, and `why` says so."""

    portable: Portable | None
    data: bytes = b""
    why: str = ""


class NotConvertible(Exception):
    """There is no portable form; says why."""


def convert(estimator: Any, rows: pl.DataFrame, form: str) -> Converted:
    """The portable form of a fitted binary classifier.

    Args:
        estimator: What the step returned.
        rows: Features of the rows that it was fitted on, in the order of its columns.
        form: The kind of frame that it was fitted on: `"polars"`, `"pandas"` or `"pyarrow"`.
    """
    try:
        if not type(estimator).__module__.startswith("sklearn."):
            raise NotConvertible(f"{type(estimator).__qualname__} is not a class of scikit-learn")
        if len(getattr(estimator, "classes_", ())) != 2:
            raise NotConvertible("it does not tell two classes apart")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # converters warn about each other's versions; parity is what we check
            return _convert(estimator, rows, form)
    except (NotConvertible, ImportError) as error:
        return Converted(None, why=str(error))


def parity(
    converted: Converted,
    native: Callable[[pl.DataFrame], NDArray[np.float64]],
    rows: pl.DataFrame,
    inputs: Sequence[Column],
) -> Parity | None:
    """Compare both forms on held-out rows, and again on these rows with unknown texts and with missing values.

    Args:
        converted: The portable form; without one there is nothing to compare.
        native: Scores of the native form on a frame.
        rows: Features of rows that the model was not fitted on, where there are such.
        inputs: Signature: only nullable columns are made missing.
    """
    if converted.portable is None:
        return None
    names = [column.name for column in inputs]
    unknown = rows.with_columns(pl.lit("\x00never seen").alias(c.name) for c in inputs if c.datatype == "BYTES")
    missing = rows.with_columns(pl.lit(None, dtype=rows.schema[c.name]).alias(c.name) for c in inputs if c.nullable)
    tested = pl.concat([rows.select(names), unknown.select(names), missing.select(names)]).unique(maintain_order=True)
    model = PortableModel.from_bytes(converted.portable, converted.data)
    try:
        found = model.score({name: tested[name].to_list() for name in names})
        difference = float(np.abs(found - native(tested)).max()) if tested.height else 0.0
        trouble = "" if tested.height else "there are no rows to compare on"
    except Exception as error:  # a form that cannot score is a form that does not agree
        difference, trouble = 1.0, f"{type(error).__name__}: {error}"
    tolerance = TOLERANCE[converted.portable.form]
    return Parity(tested.height, difference, tolerance, not trouble and difference <= tolerance, trouble)


def _convert(estimator: Any, rows: pl.DataFrame, form: str) -> Converted:
    front, tail = _split(estimator)
    try:
        fields, width = _layout(front, rows, form)
    except NotLiftable as error:
        if "refuses" in str(error):  # ONNX would answer where the native form raises
            raise NotConvertible(f"an encoder is not portable: {error}") from error
        return _columns_onnx(estimator, rows, str(error))
    last = tail[-1]
    if len(tail) == 1 and type(last).__module__.startswith(_MODULE) and type(last).__name__ in _TREES:
        return _trees(last, fields, width, rows)
    return _matrix_onnx(tail, fields, width)


def _split(estimator: Any) -> tuple[Any | None, list[Any]]:
    """The column transformer in front, if there is one, and the estimators that follow it."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    steps = [estimator]
    while isinstance(steps[0], Pipeline):
        steps[:1] = [step for _, step in steps[0].steps if step is not None and step != "passthrough"]
    steps[-1:] = [step for _, step in steps[-1].steps] if isinstance(steps[-1], Pipeline) else steps[-1:]
    return (steps[0], steps[1:]) if isinstance(steps[0], ColumnTransformer) else (None, steps)


def _layout(front: Any | None, rows: pl.DataFrame, form: str) -> tuple[list[Field], int]:
    if front is None:
        return [_number(name, at, rows) for at, name in enumerate(rows.columns)], rows.width
    fields: list[Field] = []
    inputs = front._transformer_to_input_indices
    # The function may have fitted on more columns than it needs, even on the target: names count, not places.
    seen = list(getattr(front, "feature_names_in_", rows.columns))
    for name, transformer, _ in front.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        outputs = front.output_indices_[name]
        columns = [seen[index] for index in inputs[name]]
        if not set(columns) <= set(rows.columns):
            raise NotConvertible(f"{name} reads columns that are no features: {', '.join(columns)}")
        if _is_identity(transformer):
            fields += [_number(column, outputs.start + at, rows) for at, column in enumerate(columns)]
            continue
        known: Sequence[Any] = getattr(transformer, "categories_", None) or [()] * len(columns)
        if len(known) != len(columns):
            raise NotLiftable(f"the categories of {name} do not match its columns")
        fields += lift(_transform(transformer, form), rows.select(columns), known, outputs.start)
    return fields, max(part.stop for part in front.output_indices_.values())


def _number(name: str, at: int, rows: pl.DataFrame) -> Field:
    if rows.schema[name] == pl.String:
        raise NotLiftable(f"column {name} is text and enters as it is")
    return Field(name, (at,))


def _is_identity(transformer: Any) -> bool:
    from sklearn.preprocessing import FunctionTransformer

    return transformer == "passthrough" or (type(transformer) is FunctionTransformer and transformer.func is None)


def _transform(transformer: Any, form: str) -> Callable[[pl.DataFrame], NDArray[np.float64]]:
    def transform(frame: pl.DataFrame) -> NDArray[np.float64]:
        result = transformer.transform(as_form(frame, form))
        if hasattr(result, "toarray"):
            result = result.toarray()
        return np.asarray(result, dtype=np.float64).reshape(frame.height, -1)

    return transform


def _trees(model: Any, fields: list[Field], width: int, rows: pl.DataFrame) -> Converted:
    import treelite

    single = type(model).__name__ != _BOOSTING
    if not single:
        model, fields = _own_categories(model, fields)
    try:
        trees = treelite.sklearn.import_model(model)
    except (treelite.TreeliteError, NotImplementedError, AssertionError, ValueError) as error:
        raise NotConvertible(f"treelite does not take it: {error}") from error
    classes = treelite.gtil.predict(trees, np.zeros((1, width)), nthread=1).shape[2]
    data = bytes(trees.serialize_bytes())
    portable = Portable(
        "treelite", ids.digest(data), len(data), tuple(fields), single=single, output=1 if classes == 2 else 0
    )
    return Converted(portable, data)


def _own_categories(model: Any, fields: list[Field]) -> tuple[Any, list[Field]]:
    """Take the encoder inside the boosting model out into the fields, so that its trees read plain codes 0, 1, 2…

    The model itself treats a category that it did not see as missing; treelite's trees would send it to the right.
    """
    if getattr(model, "_preprocessor", None) is None:
        return model, fields
    model = copy.deepcopy(model)
    encoder = model._preprocessor.named_transformers_["encoder"]
    lifted = {}
    for position, categories in zip(np.flatnonzero(model.is_categorical_), encoder.categories_, strict=True):
        values = [value.item() if isinstance(value, np.generic) else value for value in categories]
        values = [value for value in values if value is not None and value == value]
        codes = tuple((float(code),) for code in range(len(values)))
        lifted[int(position)] = Encoding(tuple(values), codes, (None,), (None,))
    encoder.categories_ = [np.arange(len(encoding.values)) for encoding in lifted.values()]
    return model, [_with_own(field, lifted) for field in fields]


def _with_own(field: Field, lifted: dict[int, Encoding]) -> Field:
    for index, position in enumerate(field.at):
        if position in lifted:
            own = lifted[position]
            encoding = compose(field.encoding, index, own) if field.encoding is not None else own
            field = msgspec.structs.replace(field, encoding=encoding)
    return field


def _matrix_onnx(tail: list[Any], fields: list[Field], width: int) -> Converted:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.pipeline import make_pipeline

    model = tail[0] if len(tail) == 1 else make_pipeline(*tail)
    try:
        data = _onnx(model, [("X", DoubleTensorType([None, width]))])
        return _running(Portable("onnx", ids.digest(data), len(data), tuple(fields), output=1), data)
    except NotConvertible:  # some operators of the runtime exist in single precision only
        data = _onnx(model, [("X", FloatTensorType([None, width]))])
        return _running(Portable("onnx", ids.digest(data), len(data), tuple(fields), output=1), data)


def _columns_onnx(estimator: Any, rows: pl.DataFrame, why: str) -> Converted:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    fields = [Field(name, text=dtype == pl.String) for name, dtype in rows.schema.items()]
    kinds = [(f.column, (StringTensorType if f.text else FloatTensorType)([None, 1])) for f in fields]
    try:
        data = _onnx(estimator, kinds)
    except NotConvertible as error:
        raise NotConvertible(f"{why}; {error}") from error
    used = _graph_inputs(data)
    taken = tuple(field for field in fields if field.column in used)
    return _running(Portable("onnx", ids.digest(data), len(data), taken, layout="columns", output=1), data)


def _running(portable: Portable, data: bytes) -> Converted:
    """A graph that the runtime loads: not every graph that can be written can be run."""
    try:
        PortableModel.from_bytes(portable, data)
    except Damaged as error:
        raise NotConvertible(f"ONNX Runtime does not run it: {error.found}") from error
    return Converted(portable, data)


def _onnx(model: Any, kinds: list[tuple[str, Any]]) -> bytes:
    import skl2onnx

    try:
        graph = skl2onnx.to_onnx(model, initial_types=kinds, options={"zipmap": False})
    except Exception as error:  # converters raise classes of their own, KeyErrors and TypeErrors
        raise NotConvertible(f"skl2onnx does not take it: {type(error).__name__}: {error}") from error
    data: bytes = graph.SerializeToString()
    return data


def _graph_inputs(data: bytes) -> set[str]:
    import onnx

    return {given.name for given in onnx.load_from_string(data).graph.input}
