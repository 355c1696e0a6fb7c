"""What an endpoint takes and gives: named columns, or named tensors; in route snapshots, plans and at each call.

A signature with columns is a *table model's*: rows in, a score and a decision a row out. A signature with tensors is a
*tensor model's*: any inputs and outputs of the Open Inference Protocol V2, given back as the model makes them.

    Signature((InputColumn("distance", "FP64"),))
    Signature(tensors=(TensorSpec("x", "FP32", (-1, 30)),), outputs=(TensorSpec("y", "FP32", (-1, 2)),), rows=True)
"""

from __future__ import annotations

import msgspec

from instar.core.ids import digest
from instar.core.limits import Limits

# Bytes of one element, by datatype of the protocol; those of BYTES (text) differ.
ELEMENT_BYTES = {
    "BOOL": 1, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
BYTES = "BYTES"
DATATYPES = (*ELEMENT_BYTES, BYTES)
FLOATS = frozenset({"FP16", "FP32", "FP64"})

DYNAMIC = -1  # a dimension of any length

_WHOLE = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
# Which datatypes a caller may declare for an input: its own, and those which it holds without loss. Clients that write JSON
# know one kind of number, so a float of any width may be declared for another: each value is checked for its range.
ACCEPTED: dict[str, frozenset[str]] = {
    "FP64": frozenset({*FLOATS, *_WHOLE}),
    "FP32": frozenset({*FLOATS, *_WHOLE} - {"INT64", "UINT64"}),
    "FP16": frozenset({*FLOATS, "INT8", "UINT8"}),
    "INT64": frozenset(_WHOLE - {"UINT64"}),
    "INT32": frozenset({"INT8", "INT16", "INT32", "UINT8", "UINT16"}),
    "INT16": frozenset({"INT8", "INT16", "UINT8"}),
    "INT8": frozenset({"INT8"}),
    "UINT64": frozenset({"UINT8", "UINT16", "UINT32", "UINT64"}),
    "UINT32": frozenset({"UINT8", "UINT16", "UINT32"}),
    "UINT16": frozenset({"UINT8", "UINT16"}),
    "UINT8": frozenset({"UINT8"}),
    "BOOL": frozenset({"BOOL"}),
    BYTES: frozenset({BYTES}),
}


class InputColumn(msgspec.Struct, frozen=True):
    """One column that an endpoint takes.

    Attributes:
        datatype: V2 name: FP64, FP32, INT64, INT32, BOOL or BYTES (text).
        nullable: May a value be null?
        required: Must a request name it? False for columns that only a shadow reads.
        personal: Kept apart in the record, so that it can be erased.
    """

    name: str
    datatype: str
    nullable: bool = False
    required: bool = True
    personal: bool = False


class TensorSpec(msgspec.Struct, frozen=True):
    """One tensor that an endpoint takes or gives.

    Attributes:
        datatype: One of `DATATYPES`.
        shape: Lengths by dimension, `DYNAMIC` where any is taken; empty for a single value.
        nullable: May a value of a float be missing? Null in JSON and NaN in binary then say so.
        required: Must a request name it?
        personal: Kept apart in the record, so that it can be erased.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    nullable: bool = False
    required: bool = True
    personal: bool = False


class Signature(msgspec.Struct, frozen=True):
    """What an endpoint takes, in the order in which records hold it.

    Attributes:
        columns: Of a table model.
        tensors, outputs: Of a tensor model.
        rows: The first dimension of all tensors and outputs is one and the same: each of its entries is a prediction.
        limits: What values an input may have, by name, where somebody declared it.
    """

    columns: tuple[InputColumn, ...] = ()
    tensors: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    rows: bool = False
    limits: dict[str, Limits] = {}

    @property
    def personal(self) -> bool:
        """Some of what it takes tells of a person: then no text on the record, ours or a model's, may quote a value."""
        return any(one.personal for one in self.columns) or any(one.personal for one in self.tensors)

    @property
    def digest(self) -> str:
        """Content digest; a call's record names it, so that its values can be read by position. Limits change no position."""
        if not self.tensors:
            return digest(msgspec.json.encode(self.columns))
        places = {"columns": self.columns, "tensors": self.tensors, "outputs": self.outputs, "rows": self.rows}
        return digest(msgspec.json.encode(places))
