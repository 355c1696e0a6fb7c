"""Rows in the kind of frame that a model was fitted on: polars, pandas, pyarrow or plain columns, whenever a native form scores.

`frame_of` and `as_form` say what a frame is: the signature's columns and types in its order, made by polars. `Frames` makes the
same for one signature call after call, without polars where that is quicker; what it is not sure of it leaves to those two.

    frames = Frames(manifest.inputs, "pandas")
    frames.make({"distance": [1400.0, None]})     # -> a pandas.DataFrame of float64, 1400.0 and NaN
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.core.errors import MissingInput
from instar.train.bundle import Column
from instar.train.nameless import nameless

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
Array = NDArray[Any]

# Below this many rows polars makes a frame quicker row by row than column by column.
FEW_ROWS = 64

_DTYPES: dict[str, pl.DataType] = {
    "BOOL": pl.Boolean(), "INT32": pl.Int32(), "INT64": pl.Int64(), "FP32": pl.Float32(), "FP64": pl.Float64(),
    "BYTES": pl.String(),
}  # fmt: skip
_ARRAYS: dict[str, type[np.generic]] = {
    "BOOL": np.bool_, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_PLAIN = {"BOOL": bool, "INT32": int, "INT64": int, "FP64": float, "BYTES": str}
_TEXT = frozenset({str, type(None)})
_NUMBERS = frozenset({float, int, type(None)})


def frame_of(columns: Columns, inputs: Sequence[Column]) -> pl.DataFrame:
    """A frame of the signature's columns and types, in its order.

    Raises:
        MissingInput: A column is not there.
    """
    try:
        given = [_plain(columns[column.name]) for column in inputs]
    except KeyError as error:
        raise MissingInput("an input is missing", subject=f"input {error.args[0]}", found=", ".join(columns)) from None
    dtypes = {column.name: _DTYPES[column.datatype] for column in inputs}
    if given and len(given[0]) < FEW_ROWS:
        return pl.DataFrame(list(zip(*given, strict=True)), schema=dtypes, orient="row")
    return pl.DataFrame([pl.Series(name, one, dtype=dtypes[name]) for name, one in zip(dtypes, given, strict=True)])


def as_form(frame: pl.DataFrame, form: str) -> Any:
    """The frame in another library's kind: `"polars"`, `"pandas"`, `"pyarrow"`, or `"columns"`, which is a dict of lists."""
    if form == "columns":
        return frame.to_dict(as_series=False)
    if form == "pandas":
        return frame.to_pandas()
    return frame.to_arrow() if form == "pyarrow" else frame


class Frames:
    """Makes frames of one signature.

    Args:
        inputs: The signature, in the order of the frame.
        form: As in `as_form`.
    """

    def __init__(self, inputs: Sequence[Column], form: str) -> None:
        self._inputs = tuple(inputs)
        self._form = form
        self._names = [column.name for column in inputs]
        groups: dict[str, list[str]] = {}
        for column in inputs:
            groups.setdefault(column.datatype, []).append(column.name)
        self._texts = groups.pop("BYTES", [])
        self._numbers = groups
        self._quick: dict[str, Callable[[Columns], Any]] = {"pandas": self._pandas, "columns": self._lists}
        self._index: Any = None  # of the data frames' columns: half of what a small one costs

    def make(self, columns: Columns) -> Any:
        """The frame.

        Raises:
            MissingInput: A column is not there.
        """
        quick = self._quick.get(self._form)
        made = quick(columns) if quick is not None else None
        return made if made is not None else as_form(frame_of(columns, self._inputs), self._form)

    def matrix(self, columns: Columns) -> Array | None:
        """All columns as one array of shape (rows, columns), as numpy would make it of the data frame.

        None where they are not numbers of one datatype, or hold what only `make` can tell.
        """
        if self._texts or len(self._numbers) != 1:
            return None
        ((datatype, names),) = self._numbers.items()
        block = _block(columns, names, datatype)
        return None if block is None else block.T

    def without(self, model: Any, ask: Callable[[Any, Any], Any]) -> Any | None:
        """A model that takes `matrix` and answers as `model` does of its data frame, where that is sure: see `nameless`.

        Args:
            ask: From a model and what it is given to its answer.
        """
        if self._texts or len(self._numbers) != 1:
            return None

        def framed(matrix: Array) -> Any:
            return importlib.import_module("pandas").DataFrame(matrix, columns=self._names)

        return nameless(model, self._names, next(iter(self._numbers)), framed, ask)

    def _pandas(self, columns: Columns) -> Any:
        pandas = importlib.import_module("pandas")
        if self._index is None:
            self._index = pandas.Index(self._names)
        if not self._texts and len(self._numbers) == 1:
            matrix = self.matrix(columns)
            return None if matrix is None else pandas.DataFrame(matrix, columns=self._index)
        made: dict[str, Any] = dict.fromkeys(self._names)
        for datatype, names in self._numbers.items():
            block = _block(columns, names, datatype)
            if block is None:
                return None
            made.update(zip(names, block, strict=True))
        for name in self._texts:
            made[name] = _text(columns, name)
            if made[name] is None:
                return None
        if len({len(one) for one in made.values()}) != 1:
            return None
        frame = pandas.DataFrame(made)
        frame.columns = self._index
        return frame

    def _lists(self, columns: Columns) -> dict[str, list[Any]] | None:
        made: dict[str, list[Any]] = {}
        for column in self._inputs:
            values, kind = columns.get(column.name), _PLAIN.get(column.datatype)
            if type(values) is not list or kind is None or not set(map(type, values)) <= {kind, type(None)}:
                return None
            made[column.name] = list(values)  # the model's own, since the call's are recorded after it
        return made if len(set(map(len, made.values()))) == 1 else None


def _block(columns: Columns, names: Sequence[str], datatype: str) -> Array | None:
    """Columns of one datatype as the rows of an array; None where numpy would take values for what they are not."""
    asked = _ARRAYS[datatype]
    try:
        given = [columns[name] for name in names]
        block = np.array(given)
        if block.dtype == object and datatype in ("FP64", "FP32") and set(map(type, block.flat)) <= _NUMBERS:
            block = np.array(given, dtype=np.float64)  # which takes None for NaN, as a data frame does
    except (KeyError, ValueError, OverflowError):
        return None
    if block.ndim != 2 or not block.shape[1]:
        return None
    if block.dtype == asked:
        return block
    if datatype == "FP32" and block.dtype == np.float64:
        with np.errstate(over="ignore"):
            return block.astype(np.float32)
    if datatype == "INT32" and block.dtype == np.int64:
        small = block.astype(np.int32)
        return small if (small == block).all() else None
    return None


def _text(columns: Columns, name: str) -> Any:
    """A column of text as data frames have it, by the way that polars takes."""
    values = columns.get(name)
    if type(values) is not list or not set(map(type, values)) <= _TEXT:
        return None
    arrow = importlib.import_module("pyarrow")
    return arrow.array(values, arrow.large_string()).to_pandas().array


def _plain(values: Any) -> Any:
    # Arrays of objects come from decoders; polars reads lists with None faster and types them by the dtype given.
    return values.tolist() if isinstance(values, np.ndarray) else values
