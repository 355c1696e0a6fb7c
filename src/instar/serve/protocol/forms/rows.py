"""Rows and columns from plain JSON values to the tensors of a request: shared by the forms in which people write rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instar.core.errors import MalformedRequest, MissingInput, RequestError
from instar.serve.protocol.signature import InputColumn, Signature, TensorSpec
from instar.serve.protocol.v2_json import Request, Tensor, short

_PLACE = re.compile(r"\$\.inputs\[(\d+)\](?:\.data\[(\d+)\]|\.shape|\.data|\.datatype|\.name)?")


def from_records(records: Sequence[Any], signature: Signature, path: str) -> list[Tensor]:
    """Tensors from rows by input name; a row may leave out what is nullable or not required.

    Args:
        path: JSON path of the rows.

    Raises:
        MalformedRequest: A row is not an object, or has a name that is no input.
        MissingInput: A row lacks an input that must be there.
    """
    specs = inputs_of(signature)
    nulls, nullable = {one.name for one in _named(signature) if one.nullable}, _nullable(signature)
    for at, record in enumerate(records):
        if type(record) is not dict:
            raise MalformedRequest("a row is not an object", subject=f"{path}[{at}]", found=short(record))
        if not record.keys() <= specs.keys():
            name = next(iter(record.keys() - specs.keys()))
            raise MalformedRequest(
                "the signature has no such input", subject=f"{path}[{at}].{name[:80]}", asked=", ".join(specs)[:300]
            )
    tensors = []
    for name, datatype in specs.items():
        if name not in nulls and not any(name in record for record in records):
            continue
        values = []
        for at, record in enumerate(records):
            if name not in record and name not in nullable:
                raise MissingInput(f"input {name!r} is missing", subject=f"{path}[{at}]", asked=f"{name} ({datatype})")
            values.append(record.get(name))
        tensors.append(tensor(name, datatype, values))
    return tensors


def from_columns(columns: Mapping[str, Any], signature: Signature, path: str) -> list[Tensor]:
    """Tensors from lists of values by input name.

    Raises:
        MalformedRequest: A column is not a list, or no input.
    """
    specs = inputs_of(signature)
    tensors = []
    for name, values in columns.items():
        if name not in specs:
            raise MalformedRequest(
                "the signature has no such input", subject=f"{path}.{name[:80]}", asked=", ".join(specs)[:300]
            )
        if type(values) is not list:
            raise MalformedRequest("the values of an input are not a list", subject=f"{path}.{name}")
        tensors.append(tensor(name, specs[name], values))
    return tensors


def from_matrix(rows: list[Any], signature: Signature, path: str) -> list[Tensor]:
    """The one tensor of a signature that has one, or columns in the signature's order.

    Raises:
        MalformedRequest: The signature has several tensors, or a row has another number of values than there are columns.
    """
    specs = inputs_of(signature)
    if signature.tensors:
        if len(specs) > 1:
            raise MalformedRequest(
                "the model takes several inputs: name them", subject=path, asked=", ".join(specs)[:300]
            )
        ((name, datatype),) = specs.items()
        return [tensor(name, datatype, rows)]
    wide = len(specs) > 1
    for at, row in enumerate(rows):
        if wide and (type(row) is not list or len(row) != len(specs)):
            raise MalformedRequest(
                "a row has another number of values than the model has inputs", subject=f"{path}[{at}]",
                found=len(row) if type(row) is list else short(row), asked=len(specs),
                next_step="Name the values: dataframe_split or records.",
            )  # fmt: skip
    if not wide:
        ((name, datatype),) = specs.items()
        return [tensor(name, datatype, [row[0] if type(row) is list and len(row) == 1 else row for row in rows])]
    return [tensor(name, specs[name], [row[at] for row in rows]) for at, name in enumerate(specs)]


def tensor(name: str, datatype: str, values: list[Any]) -> Tensor:
    """Values of an input, nested as they are, with the shape that the first of them has."""
    shape, inner = [len(values)], values
    while inner and type(inner[0]) is list:
        inner = inner[0]
        shape.append(len(inner))
    return Tensor(name, shape, datatype, values)


def inputs_of(signature: Signature) -> dict[str, str]:
    """Datatypes by input."""
    return {one.name: one.datatype for one in _named(signature)}


def _named(signature: Signature) -> list[InputColumn | TensorSpec]:
    return [*signature.columns, *signature.tensors]


def _nullable(signature: Signature) -> set[str]:
    return {one.name for one in _named(signature) if one.nullable or not one.required}


def retold(problem: RequestError, request: Request, place: Callable[[str, int | None], str]) -> RequestError:
    """The same refusal with the place where the caller finds it: errors of inputs name those as tensors.

    Args:
        place: From the input's name and the row, where one is known, to a path in what the caller sent.
    """
    match = _PLACE.match(problem.subject)
    if match is None or int(match[1]) >= len(request.inputs):
        return problem
    row = int(match[2]) if match[2] else None
    subject = place(request.inputs[int(match[1])].name, row)
    return type(problem)(
        problem.what, subject=subject, found=problem.found, asked=problem.asked, next_step=problem.next_step
    )
