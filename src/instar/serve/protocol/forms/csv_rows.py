"""Rows as CSV (RFC 4180), the first line with the names of the columns: what `POST /invocations` takes and answers give."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import Any

from instar.core.errors import MalformedRequest, NotAcceptable
from instar.serve.protocol import replies, v2_json, wire
from instar.serve.protocol.forms import rows
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import FLOATS, Signature
from instar.serve.protocol.v2_json import Request

_BOOLS = {"true": True, "false": False, "1": True, "0": False}


def read(ask: wire.Ask, signature: Signature) -> Request:
    """A request of lines; an empty field is a missing value.

    Raises:
        MalformedRequest: It is no CSV in UTF-8, or a line has another number of fields than the first; with the line.
        WrongDatatype: A field is not of its input's datatype.
    """
    try:
        text = str(ask.body, "utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as problem:
        raise MalformedRequest(f"the body is not CSV: {problem}", subject="line 1", asked="CSV in UTF-8") from None
    if len(lines) < 2 or not lines[0]:
        raise MalformedRequest("there are no rows", subject="line 1", asked="a line of names, and a line a row")
    names, data = lines[0], lines[1:]
    if len(set(names)) != len(names):
        raise MalformedRequest("a column comes twice", subject="line 1", found=", ".join(names)[:200])
    for at, line in enumerate(data, 2):
        if len(line) != len(names):
            raise MalformedRequest(
                "a line has another number of fields than the first",
                subject=f"line {at}",
                found=len(line),
                asked=len(names),
            )
    specs = rows.inputs_of(signature)
    if signature.tensors and len(specs) == 1 and not set(names) & specs.keys():
        (datatype,) = specs.values()
        matrix = [
            [_value(field, datatype, at, name) for field, name in zip(line, names, strict=True)]
            for at, line in enumerate(data, 2)
        ]
        return Request(rows.from_matrix(matrix, signature, "line"))
    unknown = [name for name in names if name not in specs]
    if unknown:
        raise MalformedRequest(
            "the signature has no such input",
            subject="line 1",
            found=repr(unknown[0][:80]),
            asked=", ".join(specs)[:300],
        )
    columns = {
        name: [_value(line[at], specs[name], number, name) for number, line in enumerate(data, 2)]
        for at, name in enumerate(names)
    }
    return Request(rows.from_columns(columns, signature, "line"))


def where(ask: wire.Ask, name: str, row: int | None) -> str:
    """Where a caller finds a value."""
    return f"column {name}" if row is None else f"line {row + 2}, column {name}"


def write(answer: Answer) -> Written:
    """The answer: a line for each row, a column an output; of an output with several values a row, a column each of them.

    Raises:
        NotAcceptable: The outputs are no rows, or not equally many.
    """
    outputs = answer.outputs(False)
    counts = {output.shape[0] if output.shape else -1 for output in outputs}
    if len(counts) != 1 or -1 in counts:
        raise NotAcceptable(
            "the outputs are not rows, so they are no CSV", subject=f"endpoint {answer.model}",
            found=", ".join(f"{output.name} {output.shape}" for output in outputs), asked="application/json",
        )  # fmt: skip
    names, columns = [], []
    for output in outputs:
        values, width = replies.plain(output), math.prod(output.shape[1:])
        places = itertools.product(*map(range, output.shape[1:]))
        names += [output.name + "".join(f"[{at}]" for at in place) for place in places]
        columns += [values[at::width] for at in range(width)]
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(names)
    lines.writerows([[_field(value) for value in row] for row in zip(*columns, strict=True)])
    return text.getvalue().encode(), wire.CSV, 0


def _field(value: Any) -> Any:
    """As `read` takes it: small words for truth values, nothing for what is missing."""
    if value is None or value != value:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def _value(field: str, datatype: str, line: int, name: str) -> Any:
    if field == "":
        return None
    if datatype == "BYTES":
        return field
    try:
        if datatype == "BOOL":
            return _BOOLS[field.strip().lower()]
        return float(field) if datatype in FLOATS else int(field)
    except (ValueError, KeyError):
        raise v2_json.not_of(datatype, f"line {line}, column {name}", field) from None
