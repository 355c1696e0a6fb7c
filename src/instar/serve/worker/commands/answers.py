"""Questions to a program and its answers held to what its manifest says, at the moment of a call.

A program may say anything: what is not as declared is an error that names the program, the field, what came and what was asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from instar.core.errors import StepFailed
from instar.serve.protocol.signature import ACCEPTED, FLOATS
from instar.serve.protocol.tensors import DTYPES
from instar.train.bundle import Column, Tensor

Array = NDArray[Any]


class Output(msgspec.Struct):
    """One output of an answer."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class Answer(msgspec.Struct):
    """An answer of the protocol."""

    outputs: list[Output]
    id: str | None = None


_answer = msgspec.json.Decoder(Answer)


def of_columns(columns: Sequence[Column], given: Mapping[str, Sequence[Any]], id: str) -> bytes:
    """A question with one tensor a column; a value that is missing is null."""
    inputs = [
        {"name": one.name, "datatype": one.datatype, "shape": [len(given[one.name])], "data": list(given[one.name])}
        for one in columns
    ]
    return msgspec.json.encode({"id": id, "inputs": inputs})


def of_tensors(tensors: Sequence[Tensor], given: Mapping[str, Array], id: str) -> bytes:
    """A question with tensors; NaN is null."""
    inputs = []
    for one in tensors:
        if one.name in given:
            array = given[one.name]
            data = array.ravel().tolist()  # msgspec writes NaN as null
            if any(type(value) is bytes for value in data):
                raise StepFailed(
                    f"input {one.name} has bytes that are no UTF-8", asked="text, which is all that JSON can say"
                )
            inputs.append({"name": one.name, "datatype": one.datatype, "shape": list(array.shape), "data": data})
    return msgspec.json.encode({"id": id, "inputs": inputs})


def read(status: int, body: bytes, id: str, subject: str) -> dict[str, Output]:
    """The outputs of an answer by name.

    Raises:
        StepFailed: It is an error, or no answer of the protocol.
    """
    if status != 200:
        raise StepFailed(f"it answered with status {status}", subject=subject, found=_said(body))
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StepFailed("its answer is none of the protocol", subject=subject, found=str(error)) from None
    if answer.id is not None and answer.id != id:
        raise StepFailed("it answered another question", subject=subject, found=f"id {answer.id}", asked=f"id {id}")
    return {one.name: one for one in answer.outputs}


def scores(outputs: Mapping[str, Output], rows: int, subject: str) -> list[float]:
    """The column `score` of an answer.

    Raises:
        StepFailed: It is not there, has another number of rows, or is none of numbers.
    """
    found = outputs.get("score")
    if found is None:
        raise StepFailed("its answer has no output `score`", subject=subject, found=", ".join(outputs) or "no outputs")
    if found.datatype not in FLOATS:
        raise _field("score", "datatype", found.datatype, "FP64 or FP32", subject)
    if found.shape not in ([rows], [rows, 1]):
        raise _field("score", "shape", found.shape, f"[{rows}]", subject)
    data = [one for row in found.data for one in (row if isinstance(row, list) else [row])]
    if len(data) != rows:
        raise _field("score", "data", f"{len(data)} values", f"{rows}", subject)
    if any(type(one) not in (float, int) for one in data):
        wrong = next(one for one in data if type(one) not in (float, int))
        raise _field("score", "data", json.dumps(wrong)[:60], "numbers", subject)
    try:
        return [float(one) for one in data]
    except OverflowError as error:
        raise StepFailed("output score cannot be read", subject=subject, found=str(error)) from None


def arrays(outputs: Mapping[str, Output], asked: Sequence[Tensor], rows: int | None, subject: str) -> dict[str, Array]:
    """The declared outputs of an answer.

    Args:
        rows: Of the question, where the first dimension counts rows.

    Raises:
        StepFailed: One is not there, or is not as it was declared.
    """
    made: dict[str, Array] = {}
    for tensor in asked:
        found = outputs.get(tensor.name)
        if found is None:
            if tensor.optional:
                continue
            raise StepFailed(f"its answer has no output {tensor.name}", subject=subject, found=", ".join(outputs))
        if found.datatype != tensor.datatype and found.datatype not in ACCEPTED[tensor.datatype]:
            raise _field(tensor.name, "datatype", found.datatype, tensor.datatype, subject)
        wanted = [rows if rows is not None and at == 0 else length for at, length in enumerate(tensor.shape)]
        fits = len(found.shape) == len(wanted)
        if not fits or any(there not in (-1, here) for there, here in zip(wanted, found.shape, strict=True)):
            raise _field(tensor.name, "shape", found.shape, wanted, subject)
        made[tensor.name] = _array(found, tensor.datatype, subject)
    return made


def _array(found: Output, datatype: str, subject: str) -> Array:
    flat = found.data
    while flat and all(type(one) is list for one in flat):
        flat = [one for row in flat for one in row]
    kinds: tuple[type, ...] = (float, int, type(None)) if datatype in FLOATS else (int,)
    kinds = {"BOOL": (bool,), "BYTES": (str,)}.get(datatype, kinds)
    for one in flat:
        if type(one) not in kinds:
            raise _field(found.name, "data", json.dumps(one)[:60], datatype, subject)
    try:
        values = [np.nan if one is None else one for one in flat] if datatype in FLOATS else flat
        with np.errstate(over="ignore"):
            return np.array(values, dtype=DTYPES[datatype]).reshape(found.shape)
    except (ValueError, OverflowError) as error:
        raise StepFailed(f"output {found.name} cannot be read", subject=subject, found=str(error)) from None


def _field(name: str, field: str, found: object, asked: object, subject: str) -> StepFailed:
    return StepFailed(f"the {field} of its output {name} is another", subject=subject, found=found, asked=asked)


def _said(body: bytes) -> str:
    """What an error's body says."""
    try:
        said = json.loads(body)
        text = said["error"] if isinstance(said, dict) and "error" in said else body.decode()
    except (ValueError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace")
    return " ".join(str(text).split())[:300]
