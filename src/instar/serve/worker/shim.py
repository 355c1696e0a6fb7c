"""A model in its own environment: loads what the process that hosts it names, and answers it over one socket, while that lives.

    PYTHON -I shim.py DESCRIPTOR              # of the socket to the host (`housed.py`); its end is our end
    PYTHON -I shim.py --zygote DESCRIPTOR     # of a line to the root (`outside.py`), for which shims are forked from here

Runs by its path under the interpreter of a version's environment, which has nothing of ours: only the standard library is
imported here, and what the bundle itself asks for. Nothing is unpickled that the host did not look at before, and nothing
is pickled for it. A message is four bytes of length, that much JSON, and after it the bytes of values, whose sizes the
JSON says. Numbers travel as the machine has them, text as JSON.
"""

# ruff: noqa: B905, UP006, UP035, UP045 (this runs on Python 3.8, too)
from __future__ import annotations

import array
import importlib
import importlib.util
import json
import math
import os
import pathlib
import select
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any, Callable, Optional, Sequence, Tuple

# A column: its type, its values, and which of them are missing.
Column = Tuple[str, bytearray, Optional[bytearray]]

CODES = {"BOOL": "b", "INT32": "i", "INT64": "q", "FP32": "f", "FP64": "d"}
KINDS = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
TEXT = "BYTES"
_LENGTH = struct.Struct("<I")


def send(line: socket.socket, head: dict[str, Any], parts: Sequence[bytes | bytearray] = ()) -> None:
    """One message; sizes of the parts are added to its head."""
    head["sizes"] = [len(part) for part in parts]
    text = json.dumps(head).encode()
    line.sendall(b"".join([_LENGTH.pack(len(text)), text, *parts]))


def receive(
    line: socket.socket, most: Optional[int] = None, until: Optional[float] = None
) -> tuple[dict[str, Any], list[bytearray]]:
    """The next message: its head and its parts.

    Args:
        most: Bytes of a message; by default what is asked is believed.
        until: Moment (`time.monotonic`) at which it must be there.

    Raises:
        EOFError: The other side is gone.
        TimeoutError: It is not there in time.
        ValueError: It is none, or too large.
    """
    size = _LENGTH.unpack(_exactly(line, 4, until))[0]
    if most is not None and size > most:
        raise ValueError(f"a head of {size} bytes, where {most} are the most")
    head = json.loads(_exactly(line, size, until))
    sizes = head.get("sizes") if isinstance(head, dict) else None
    if not isinstance(sizes, list) or not all(type(one) is int and one >= 0 for one in sizes):
        raise ValueError("a message that names no sizes")
    if most is not None and size + sum(sizes) > most:
        raise ValueError(f"a message of {size + sum(sizes)} bytes, where {most} are the most")
    return head, [_exactly(line, one, until) for one in sizes]


def _exactly(line: socket.socket, size: int, until: Optional[float]) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            line.settimeout(left)
        try:
            more = line.recv_into(view[got:])
        except ConnectionError:
            more = 0
        if not more:
            raise EOFError
        got += more
    return data


def serve(line: socket.socket) -> None:
    """Answer until the host is gone."""
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    loaded: Loaded | None = None
    while True:
        try:
            head, parts = receive(line)
        except EOFError:
            return
        try:
            if head["do"] == "load":
                loaded = Loaded(head)
                answer: dict[str, Any] = {"decides": loaded.decides}
                values: list[bytes] = []
            elif loaded is None:
                raise ValueError("no model is loaded")
            else:
                answer, values = loaded.answer(head, parts)
        except Exception as problem:
            answer, values = _told(problem), []
        send(line, answer, values)


def _end_with(line: socket.socket) -> None:
    """End at once when the host is gone, whatever the model is busy with."""
    watch = select.poll()
    watch.register(line.fileno(), 0)  # hang-ups are always told
    watch.poll()
    os._exit(0)


def _told(problem: BaseException) -> dict[str, Any]:
    """What went wrong, in its own words; a package that is missing is named."""
    cause: BaseException | None = problem
    missing, seen = "", set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            missing = cause.name
        cause = cause.__cause__ or cause.__context__
    traceback.print_exception(type(problem), problem, problem.__traceback__)
    return {"error": f"{type(problem).__name__}: {problem}", "missing": missing}


class Loaded:
    """A model in memory.

    Attributes:
        decides: A score is a probability, of which the version decides; else it is what is predicted.
    """

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self.decides: bool
        self._predict: Callable[[Any], Any]
        self.decides, self._predict, estimator = _part("worker/shim_load").load(asked)
        self._bare = None if estimator is None else self._nameless(estimator)

    def _nameless(self, estimator: Any) -> Callable[[Any], Any] | None:
        """What answers of a matrix as the model does of a data frame, where that is sure (`train/nameless.py`)."""
        names, kinds = [name for name, _ in self._asked["columns"]], {kind for _, kind in self._asked["columns"]}
        if self._asked["form"] != "pandas" or len(kinds) != 1:
            return None
        answering = _part("worker/shim_load").answering

        def framed(matrix: Any) -> Any:
            return importlib.import_module("pandas").DataFrame(matrix, columns=names)

        def ask(model: Any, given: Any) -> Any:
            return answering(model)(given)

        bare = _part("../train/nameless").nameless(estimator, names, kinds.pop(), framed, ask)
        return None if bare is None else answering(bare)

    def answer(self, head: dict[str, Any], parts: list[bytearray]) -> tuple[dict[str, Any], list[bytes]]:
        """The head and the parts of the answer."""
        if head["do"] == "infer":
            return _tensors(self._predict, self._asked, head["tensors"], parts)
        rows = head["rows"]
        if head["missing"] is None:
            return self._scores(self._of_block(parts[0], rows), rows)
        columns: dict[str, Column] = {}
        at = 0
        for (name, datatype), missing in zip(self._asked["columns"], head["missing"]):
            columns[name] = datatype, parts[at], parts[at + 1] if missing else None
            at += 2 if missing else 1
        return self._scores(self._predict(_frame(columns, rows, self._asked["form"])), rows)

    def _of_block(self, data: bytearray, rows: int) -> Any:
        """What is found of columns of one datatype, none of whose values is missing, one after the other."""
        asked = self._asked["columns"]
        form, kind = self._asked["form"], asked[0][1]
        if form not in ("pandas", "numpy"):
            size = len(data) // len(asked)
            columns: dict[str, Column] = {
                name: (kind, data[at * size : (at + 1) * size], None) for at, (name, _) in enumerate(asked)
            }
            return self._predict(_frame(columns, rows, form))
        numpy = importlib.import_module("numpy")
        matrix = numpy.frombuffer(data, dtype=KINDS[kind]).reshape(len(asked), rows).T
        if form == "numpy":
            return self._predict(numpy.ascontiguousarray(matrix))
        if self._bare is not None:
            return self._bare(matrix)
        return self._predict(importlib.import_module("pandas").DataFrame(matrix, columns=[name for name, _ in asked]))

    def _scores(self, found: Any, rows: int) -> tuple[dict[str, Any], list[bytes]]:
        scores = array.array("d", [float(one) for one in _flat(found)])
        if len(scores) != rows:
            raise ValueError(f"it answered {len(scores)} numbers for {rows} rows")
        if not all(map(math.isfinite, scores)):
            raise ValueError("it answered with what is no number")
        return {}, [scores.tobytes()]


def _flat(found: Any) -> list[Any]:
    if hasattr(found, "to_numpy"):
        found = found.to_numpy()
    values = found.tolist() if hasattr(found, "tolist") else list(found)
    return [one[0] if isinstance(one, (list, tuple)) and len(one) == 1 else one for one in values]


def _frame(columns: dict[str, Column], rows: int, form: str) -> Any:
    """Rows in the kind of frame that the model was fitted on; `"columns"` is a plain dict of lists."""
    if form == "columns":
        return {name: _values(*column) for name, column in columns.items()}
    if form == "polars":
        polars = importlib.import_module("polars")
        kinds = {
            "BOOL": "Boolean",
            "INT32": "Int32",
            "INT64": "Int64",
            "FP32": "Float32",
            "FP64": "Float64",
            TEXT: "String",
        }
        schema = {name: getattr(polars, kinds[column[0]]) for name, column in columns.items()}
        return polars.DataFrame({name: _values(*column) for name, column in columns.items()}, schema=schema)
    if form == "pyarrow":
        arrow = importlib.import_module("pyarrow")
        kinds = {
            "BOOL": "bool_",
            "INT32": "int32",
            "INT64": "int64",
            "FP32": "float32",
            "FP64": "float64",
            TEXT: "large_string",
        }
        made = {
            name: arrow.array(_values(*column), getattr(arrow, kinds[column[0]])()) for name, column in columns.items()
        }
        return arrow.table(made)
    numpy = importlib.import_module("numpy")
    arrays = {name: _array(numpy, *column) for name, column in columns.items()}
    if form == "numpy":
        first = next(iter(columns.values()))[0]
        matrix = numpy.empty((rows, len(arrays)), dtype=KINDS[first])
        for at, one in enumerate(arrays.values()):
            matrix[:, at] = one
        return matrix
    return importlib.import_module("pandas").DataFrame(arrays)


def _values(datatype: str, data: bytearray, missing: bytearray | None) -> list[Any]:
    if datatype == TEXT:
        texts: list[Any] = json.loads(data)
        return texts
    values = array.array(CODES[datatype])
    values.frombytes(bytes(data))
    plain = [bool(one) for one in values] if datatype == "BOOL" else values.tolist()
    return plain if missing is None else [None if gone else one for one, gone in zip(plain, missing)]


def _array(numpy: Any, datatype: str, data: bytearray, missing: bytearray | None) -> Any:
    """As data frames of pandas have it: a missing number is NaN, and what is no number an object."""
    if datatype == TEXT:
        return json.loads(data)
    if missing is not None and datatype == "BOOL":
        return numpy.array(_values(datatype, data, missing), dtype=object)
    values = numpy.frombuffer(data, dtype=KINDS[datatype])
    if missing is None:
        return values.copy()
    values = values.astype("float32" if datatype == "FP32" else "float64")
    values[numpy.frombuffer(missing, dtype="bool")] = float("nan")
    return values


def _tensors(
    predict: Callable[[Any], Any], asked: dict[str, Any], given: list[dict[str, Any]], parts: list[bytearray]
) -> tuple[dict[str, Any], list[bytes]]:
    numpy = importlib.import_module("numpy")
    inputs = {}
    for one, data in zip(given, parts):
        if one["datatype"] == TEXT:
            made = numpy.empty(len(one["text"]), dtype=object)
            made[:] = one["text"]
        else:
            made = numpy.frombuffer(data, dtype=KINDS[one["datatype"]])
        inputs[one["name"]] = made.reshape(one["shape"])
    found = predict(inputs[asked["alone"]] if asked["alone"] else inputs)
    if hasattr(found, "to_dict") and hasattr(found, "columns"):
        found = {str(name): found[name] for name in found.columns}
    elif not hasattr(found, "items"):
        found = {asked["output"]: found}
    kinds = {kind: name for name, kind in KINDS.items()}
    outputs: list[dict[str, Any]] = []
    values: list[bytes] = []
    for name, value in found.items():
        made = numpy.ascontiguousarray(value)
        output = {"name": str(name), "shape": list(numpy.shape(value))}
        if made.dtype.name in kinds:
            outputs.append(dict(output, datatype=kinds[made.dtype.name]))
            values.append(made.tobytes())
        elif made.dtype.kind in "USO":
            outputs.append(dict(output, datatype=TEXT, text=[_text(one) for one in made.ravel().tolist()]))
            values.append(b"")
        else:
            raise TypeError(f"its output {name} has a type that is not served: {made.dtype}")
    return {"outputs": outputs}, values


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _part(place: str) -> Any:
    """Another file of `serve`, as `processes/zygote`, which like this one needs the standard library alone."""
    name = f"instar_{place.rpartition('/')[2]}"
    found = sys.modules.get(name)
    if found is None:
        file = pathlib.Path(__file__).parents[1] / f"{place}.py"
        spec: Any = importlib.util.spec_from_file_location(name, file)
        found = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    return found


def main() -> None:
    """Entry of the process."""
    _part("worker/shim_load")  # before there is a fence, and once for all that are forked
    if sys.argv[1] == "--zygote":
        _part("worker/shim_warm").be_warm(socket.socket(fileno=int(sys.argv[2])), serve, _part)
        return
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
