"""Rows as an Arrow stream (IPC), for many of them: a record batch in, a record batch out, at a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instar.core.errors import MalformedRequest, WrongDatatype
from instar.serve.protocol import v2_json, wire
from instar.serve.protocol.forms import rows
from instar.serve.protocol.forms.answer import Answer, Written
from instar.serve.protocol.signature import BYTES, Signature
from instar.serve.protocol.v2_json import Request, Tensor

if TYPE_CHECKING:
    import pyarrow as pa

_DATATYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "halffloat": "FP16", "float": "FP32", "double": "FP64",
    "string": BYTES, "large_string": BYTES, "string_view": BYTES, "binary": BYTES, "large_binary": BYTES, "null": "",
}  # fmt: skip


def read(ask: wire.Ask, signature: Signature) -> Request:
    """A request of one table: a column an input; a tensor's rows are lists of fixed length.

    Raises:
        MalformedRequest: It is no Arrow stream, or not whole.
        WrongDatatype: A column has a type that the protocol has no word for.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(pa.py_buffer(ask.body)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise MalformedRequest(
            f"the body is no Arrow stream: {str(problem)[:200]}", subject="$", asked="one stream in Arrow's IPC format"
        ) from None
    if not table.num_rows:
        raise MalformedRequest("there are no rows", subject="$")
    facts = {key.decode(errors="replace"): value for key, value in (table.schema.metadata or {}).items()}
    request_id = facts["id"].decode(errors="replace") if "id" in facts else None
    inputs = [_tensor(name, table.column(at), bool(signature.columns)) for at, name in enumerate(table.column_names)]
    return Request(inputs, request_id)


def where(ask: wire.Ask, name: str, row: int | None) -> str:
    """Where a caller finds a value."""
    return f"column {name}" if row is None else f"column {name}, row {row}"


def write(answer: Answer) -> Written:
    """The answer: a column an output, and in the stream's metadata who answered."""
    import numpy as np
    import pyarrow as pa

    columns, names = [], []
    for output in answer.outputs(False):
        data = output.data
        flat = pa.array(data if type(data) is list else np.ascontiguousarray(data).ravel())
        if output.datatype == BYTES and pa.types.is_binary(flat.type):
            flat = flat.cast(pa.string())
        for length in reversed(output.shape[1:]):
            flat = pa.FixedSizeListArray.from_arrays(flat, length)
        columns.append(flat)
        names.append(output.name)
    facts = {
        "model_name": answer.model,
        "model_version": answer.version,
        **{k: str(v) for k, v in answer.parameters.items()},
    }
    if answer.asked.request_id is not None:
        facts["id"] = answer.asked.request_id
    table = pa.table(columns, names=names).replace_schema_metadata(facts)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes(), wire.ARROW, 0


def _tensor(name: str, column: pa.ChunkedArray, as_list: bool) -> Tensor:
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all, in some versions
        array = array.chunk(0)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        if array.null_count:
            raise WrongDatatype("a row is null", subject=f"column {name}")
        array = array.flatten()
    datatype = _DATATYPES.get(str(array.type))
    if datatype is None:
        raise WrongDatatype(
            "the protocol has no word for that type", subject=f"column {name}", found=str(array.type),
            asked=", ".join(sorted({one for one in _DATATYPES.values() if one})),
        )  # fmt: skip
    values: Any = array.to_pylist() if as_list or datatype in ("", BYTES) or array.null_count else array.to_numpy(False)
    return Tensor(name, shape, datatype, values)


def datatype_of_nulls(tensor: Tensor, signature: Signature) -> Tensor:
    """A column without a value has no datatype of its own: it takes that of its input."""
    if tensor.datatype == "":
        datatype = rows.inputs_of(signature).get(tensor.name, "FP64")
        return v2_json.Tensor(tensor.name, tensor.shape, datatype, tensor.data)
    return tensor
