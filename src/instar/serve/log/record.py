"""What is kept of a call: the contents of a record frame, from the gateway that writes it to the log that is read later.

A frame's payload is a MessagePack array `[sequence, metadata, salt, personal]`:

- `sequence`: place in the segment, from 0 without gaps, so that a removed frame shows;
- `metadata`: the encoded entry (below), bytes, because digests are taken of them as they are;
- `salt`, `personal`: random bytes and the part of the entry that tells of a person, or null twice. Erasing a person
  erases these two; the leaf `H(sequence, metadata, H(salt, personal))` of the Merkle tree keeps its second half.

An entry is a MessagePack array whose first item is its kind. Fields are only ever added at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

FORMAT = 2  # 2 added tensors; what the first format wrote is read as it was

# Kinds of entries.
HEAD, CALL, SCHEMA, LATER, END, SKIPPED = 0, 1, 2, 3, 4, 5

# Roles of an answer in a call.
CHAMPION, CANARY, SHADOW, PINNED = "champion", "canary", "shadow", "pinned"

SALT_BYTES = 16

if TYPE_CHECKING:
    Values = Sequence
else:

    class Values:
        """Values that follow each other. Writers have them as lists; what is read are tuples, which the collector of garbage
        forgets at first sight: with lists it took most of the time of reading a long log."""

        def __class_getitem__(cls, kind: Any) -> Any:
            return tuple[kind, ...]


class Head(msgspec.Struct, frozen=True, array_like=True, tag=HEAD):
    """First entry of each segment: where it stands.

    Attributes:
        boot: Number of the gateway's start, as in the call ids.
        number: Place of the segment in that boot and endpoint, from 0.
        created: Wall time, microseconds since 1970.
    """

    format: int
    endpoint: str
    boot: int
    number: int
    created: int


class Schema(msgspec.Struct, frozen=True, array_like=True, tag=SCHEMA):
    """Columns by whose position later calls of this segment hold their inputs.

    Attributes:
        number: What calls name it by.
        columns: Of a table model: name, V2 datatype and whether the column is personal.
        tensors, outputs: Of a tensor model: name, datatype, shape, and for inputs whether they are personal.
        rows: Each entry of the first dimension is a prediction; else a call is one.
    """

    number: int
    columns: tuple[tuple[str, str, bool], ...]
    tensors: tuple[tuple[str, str, tuple[int, ...], bool], ...] = ()
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    rows: bool = False

    @property
    def personal(self) -> bool:
        """Some of the inputs are: then so are the keys by which callers name rows and people."""
        return any(one[-1] for one in (*self.columns, *self.tensors))


class Tensor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A tensor of a call, whole or sampled.

    Attributes:
        shape: As it was, whatever is kept of it.
        data: Values row by row: little-endian bytes of the datatype, or a list of text (bytes where it was no text).
            Of a sampled tensor the first values.
        tail: Of a sampled tensor the last values; else null.
        digest: Of a sampled tensor BLAKE3 over all its values; else null. Text counts as its length (eight bytes,
            little-endian) and its UTF-8.
        size: Of a sampled tensor the bytes that the digest is of, text without the lengths.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | Values[Any]
    tail: bytes | Values[Any] | None = None
    digest: bytes | None = None
    size: int | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one version said on each row, whether or not it was returned.

    Attributes:
        role: `champion`, `canary`, `shadow`, a shadow's own role, or `pinned` (the caller named the version).
        scores: Probability by row, or the number that a version predicts; empty when the version failed, and for a tensor
            model none of whose outputs is a score.
        decisions: 1 where the score reached `threshold`; none where that is null, for a version that decides nothing.
        error: Why it failed.
        outputs: What a tensor model gave; null for a table model, and when it failed.
    """

    version: int
    role: str
    scores: Values[float]
    decisions: Values[int]
    threshold: float | None
    error: str | None = None
    outputs: Values[Tensor] | None = None


class Work(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a call's entry that the worker makes.

    Attributes:
        signature: Number of the `Schema` which `inputs` follows.
        inputs: Values by column and row; null for a column that was not given or is personal.
        answered: Version whose answer was returned.
        decode_us, infer_us: Time in the worker, microseconds; a batch's inference time is that of the whole batch.
        fallback: Why another version than the one routed to answered.
        tensors: What a tensor model was given, without what is personal; null for a table model.
    """

    request_id: str | None
    entities: Values[str] | None
    table_version: str | None
    signature: int
    rows: int
    inputs: Values[Values[Any] | None]
    answered: int
    answers: Values[Answer]
    decode_us: int
    infer_us: int
    fallback: str | None = None
    tensors: Values[Tensor] | None = None


class Call(msgspec.Struct, frozen=True, array_like=True, tag=CALL, gc=False):
    """One call, answered or failed.

    Attributes:
        at: Event time, microseconds since 1970 (header `Instar-Event-Time`, else arrival).
        recorded: Wall time of arrival, microseconds since 1970.
        policy: Number of the policy revision which chose the route.
        reason: `champion`, `canary` or `pinned`.
        version: Version that the route chose; null when the call failed before.
        key: Routing key (header `Instar-Key`); null when the call id served as such, or when it is kept as personal.
        status: HTTP status.
        total_us: From the request's last byte to the record, microseconds.
        worker_us: Of these, waiting for the worker.
        error: Why it failed: kind and text.
        work: Null for a failed call.
        laters: `Later` entries still to come when this was written.
    """

    call: str
    at: int
    recorded: int
    caller: str
    policy: int
    reason: str
    version: int | None
    key: str | None
    status: int
    total_us: int
    worker_us: int
    error: str | None
    work: Work | None
    laters: int = 0


class Later(msgspec.Struct, frozen=True, array_like=True, tag=LATER, gc=False):
    """Answers of shadows, and of a paired version in another process, which came after the call's own entry."""

    call: str
    recorded: int
    answers: Values[Answer]


class End(msgspec.Struct, frozen=True, array_like=True, tag=END):
    """Last entry of a segment that was closed in good order."""

    closed: int


class Skipped(msgspec.Struct, frozen=True, array_like=True, tag=SKIPPED):
    """Calls that have no entry of their own, so that whoever reads the log sees that they were.

    Attributes:
        since, until: Wall time of the first and the last, microseconds since 1970.
        answered: Answers that were given without a record, as the disk failed and the settings say so.
        refused: Calls that were refused, as too many came or their record could not be kept.
        reason: Of the first of them.
    """

    since: int
    until: int
    answered: int
    refused: int
    reason: str


class Personal(msgspec.Struct, frozen=True, array_like=True):
    """The part of a call that tells of a person.

    Attributes:
        columns: Masked values of personal columns by row.
        entities, key: Entity and routing keys: where a column is personal, they are.
    """

    columns: Mapping[str, Values[Any]]
    entities: Values[str] | None
    key: str | None = None


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record frame's payload."""

    sequence: int
    metadata: bytes
    salt: bytes | None = None
    personal: bytes | None = None


Entry = Head | Call | Schema | Later | End | Skipped

_encode = msgspec.msgpack.Encoder().encode
_entry = msgspec.msgpack.Decoder(Entry)
_frame = msgspec.msgpack.Decoder(Frame)
_personal = msgspec.msgpack.Decoder(Personal)


def encode_entry(entry: Entry | Work | Personal | list[Answer]) -> bytes:
    """An entry, or the worker's part of one, as bytes."""
    return _encode(entry)


NO_ANSWERS = encode_entry([])


def encode_call(
    call: str,
    at: int,
    recorded: int,
    caller: str,
    policy: int,
    reason: str,
    version: int | None,
    key: str | None,
    status: int,
    total_us: int,
    worker_us: int,
    error: str | None,
    work: bytes | None,
    laters: int = 0,
) -> bytes:
    """The entry of a `Call` with these fields around the worker's part as it came, which is not decoded again."""
    return _encode(
        (
            CALL, call, at, recorded, caller, policy, reason, version, key, status, total_us, worker_us, error,
            msgspec.Raw(work) if work else None, laters,
        )
    )  # fmt: skip


def encode_later(call: str, recorded: int, answers: bytes) -> bytes:
    """A later entry around the answers as they came."""
    return _encode((LATER, call, recorded, msgspec.Raw(answers)))


def encode_frame(sequence: int, metadata: bytes, salt: bytes | None = None, personal: bytes | None = None) -> bytes:
    """A frame's payload."""
    return _encode((sequence, metadata, salt, personal))


def decode_frame(payload: bytes | memoryview) -> Frame:
    """The payload of a frame."""
    return _frame.decode(payload)


def decode_entry(metadata: bytes) -> Entry:
    """The entry in a frame's metadata."""
    entry: Entry = _entry.decode(metadata)
    return entry


def kind(metadata: bytes) -> int:
    """Kind of an entry, without decoding it: the first item of its array."""
    return metadata[1] if metadata[0] != 0xDC else metadata[3]


def call_of(metadata: bytes) -> str:
    """Id of the call that a `Call` or a `Later` tells of, without decoding the rest: the text behind the kind."""
    start = 2 if metadata[0] != 0xDC else 4
    length = metadata[start] - 0xA0  # of a short text, as an id is
    return metadata[start + 1 : start + 1 + length].decode()


def decode_personal(personal: bytes) -> Personal:
    """The personal part of a frame."""
    return _personal.decode(personal)


def leaf(sequence: int, personal_digest: bytes, metadata: bytes) -> bytes:
    """Leaf of the Merkle tree: H(0, sequence, H(salt, personal), metadata).

    Args:
        personal_digest: H(salt, personal), also when the two themselves were erased.
    """
    return blake3(b"\0" + _SEQUENCE.pack(sequence) + personal_digest + metadata).digest()


_SEQUENCE = struct.Struct("<Q")
_NO_PERSON = blake3(b"").digest()


def hash_personal(salt: bytes | None, personal: bytes | None) -> bytes:
    """H(salt, personal): what stays of the personal part after it is erased."""
    if salt is None and personal is None:
        return _NO_PERSON
    return blake3((salt or b"") + (personal or b"")).digest()


def merkle_root(leaves: list[bytes]) -> bytes:
    """Root over leaves in order; nodes are H(1, left, right), and a lone node moves up as it is (RFC 6962 in spirit)."""
    if not leaves:
        return blake3(b"").digest()
    level = leaves
    while len(level) > 1:
        above = [blake3(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]
