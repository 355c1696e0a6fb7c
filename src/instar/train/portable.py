"""Scoring with the portable form of a model, at each call: numpy and treelite or ONNX Runtime, no pickle, no data frame.

Values go in as the protocol brings them (text, numbers, None) and come out as P(target is true). Encoders of the native
pipeline are replayed from tables in the manifest, so that unknown and missing categories score as they do natively.

    model = PortableModel.load(manifest, file)
    model.score({"carrier": ["UA", None], "distance": [1400, 250]})   # -> array([0.18, 0.31])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instar.core.errors import Damaged, MissingInput
from instar.train.bundle import Encoding, Field, Manifest, Portable
from instar.train.sessions import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN = float("nan")

# Below this many rows, filling the matrix row by row in Python is quicker than numpy's calls a column.
FEW_ROWS = 4


class PortableModel:
    """A loaded portable form. Scoring holds no state: one object serves many threads."""

    def __init__(self, portable: Portable, predict: Callable[[Any], NDArray[np.float64]]) -> None:
        self._portable = portable
        self._predict = predict
        self._readers = [_Reader(field) for field in portable.fields]
        self._width = sum(len(field.at) for field in portable.fields)

    @classmethod
    def load(cls, manifest: Manifest, file: Path) -> PortableModel:
        """Load the portable form of `manifest` from its file (a blob, or `portable.*` of an unpacked bundle).

        Raises:
            Damaged: The file is not what the manifest says, or the manifest has no portable form.
        """
        if manifest.portable is None:
            raise Damaged("it has no portable form", subject=f"bundle of {manifest.model}", found=manifest.unportable)
        return cls.from_bytes(manifest.portable, file.read_bytes())

    @classmethod
    def from_bytes(cls, portable: Portable, data: bytes) -> PortableModel:
        """Load a portable form from memory."""
        if portable.form == "treelite":
            return cls(portable, _treelite(data, portable))
        if portable.form == "onnx":
            return cls(portable, _onnx(data, portable))
        raise Damaged("its portable form is unknown", found=portable.form, asked="treelite or onnx")

    def score(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> NDArray[np.float64]:
        """P(target is true) for each row.

        Args:
            columns: Equally long columns by name, shape (n,) each; None and NaN are missing values. Others are ignored.

        Returns:
            Shape (n,), float64.

        Raises:
            MissingInput: A column that the model reads is not there.
        """
        try:
            if self._portable.layout == "columns":
                return self._predict(self._tensors(columns))
            return self._predict(self._matrix(columns))
        except KeyError as error:
            raise MissingInput(
                "an input is missing",
                subject=f"input {error.args[0]}",
                found=", ".join(columns) or "none",
                asked=", ".join(dict.fromkeys(field.column for field in self._portable.fields)),
            ) from None

    def _matrix(self, columns: Mapping[str, Any]) -> NDArray[np.float64]:
        matrix = _fill(self._readers, columns, self._width)
        # Forests of scikit-learn compare in single precision; a value between two thresholds must fall alike.
        return matrix.astype(np.float32).astype(np.float64) if self._portable.single else matrix

    def _tensors(self, columns: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {}
        for reader in self._readers:
            values = columns[reader.column]
            if reader.is_text:
                tensor = np.array(["" if value is None else str(value) for value in values], dtype=object)
            else:
                tensor = np.array(list(values), dtype=np.float32)
            tensors[reader.column] = tensor.reshape(-1, 1)
        return tensors


def fill(fields: Sequence[Field], columns: Mapping[str, Any], width: int) -> NDArray[np.float64]:
    """The matrix that `fields` make of `columns`, shape (n, width); cells that no field fills are NaN."""
    return _fill([_Reader(field) for field in fields], columns, width)


def _fill(readers: list[_Reader], columns: Mapping[str, Any], width: int) -> NDArray[np.float64]:
    rows = len(columns[readers[0].column]) if readers else 0
    if rows < FEW_ROWS:
        cells = [[NAN] * width for _ in range(rows)]
        for reader in readers:
            reader.fill_rows(columns[reader.column], cells)
        return np.array(cells, dtype=np.float64).reshape(rows, width)
    matrix = np.full((rows, width), NAN)
    for reader in readers:
        reader.fill_matrix(columns[reader.column], matrix)
    return matrix


class _Reader:
    """One field, prepared: a lookup table for encoded columns."""

    def __init__(self, field: Field) -> None:
        self.column = field.column
        self.at = list(field.at)
        self.is_text = field.text
        self._table: dict[Any, tuple[float, ...]] | None = None
        if field.encoding is not None:
            self._table = _table(field.encoding)
            self._missing, self._unknown = _vector(field.encoding.missing), _vector(field.encoding.unknown)

    def fill_rows(self, values: Any, cells: list[list[float]]) -> None:
        for row, value in zip(cells, values, strict=True):
            if self._table is None:
                row[self.at[0]] = NAN if value is None else float(value)
            else:
                for position, code in zip(self.at, self._code(value), strict=True):
                    row[position] = code

    def fill_matrix(self, values: Any, matrix: NDArray[np.float64]) -> None:
        if self._table is None:
            matrix[:, self.at[0]] = np.array(values, dtype=np.float64)  # None becomes NaN
        else:
            listed = values.tolist() if isinstance(values, np.ndarray) else values
            matrix[:, self.at] = [self._code(value) for value in listed]

    def _code(self, value: Any) -> tuple[float, ...]:
        if value is None or value != value:  # NaN is the one value that differs from itself
            return self._missing
        assert self._table is not None
        return self._table.get(value, self._unknown)


def _table(encoding: Encoding) -> dict[Any, tuple[float, ...]]:
    return {value: _vector(code) for value, code in zip(encoding.values, encoding.codes, strict=True)}


def _vector(code: tuple[float | None, ...]) -> tuple[float, ...]:
    return tuple(NAN if number is None else number for number in code)


def _treelite(data: bytes, portable: Portable) -> Callable[[Any], NDArray[np.float64]]:
    import treelite

    try:
        trees = treelite.Model.deserialize_bytes(data)
    except treelite.TreeliteError as error:
        raise Damaged("its trees cannot be read", found=str(error)) from error
    predict, output = treelite.gtil.predict, portable.output

    def score(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(matrix):
            return np.empty(0)
        scores: NDArray[np.float64] = predict(trees, matrix, nthread=1)
        return scores[:, 0, output].astype(np.float64)

    return score


def _onnx(data: bytes, portable: Portable) -> Callable[[Any], NDArray[np.float64]]:
    session = open_session(data)
    first, output = session.get_inputs()[0], portable.output
    dtype = np.float64 if first.type == "tensor(double)" else np.float32
    wanted = [session.get_outputs()[-1].name]  # classifiers: labels, then probabilities

    def score(given: Any) -> NDArray[np.float64]:
        feed = given if portable.layout == "columns" else {first.name: given.astype(dtype)}
        scores: NDArray[np.float64] = np.asarray(session.run(wanted, feed)[0], dtype=np.float64)
        return scores.reshape(len(scores), -1)[:, output]

    return score
