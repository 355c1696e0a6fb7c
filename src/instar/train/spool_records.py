"""The records of a run's spool: what a training process says of its run, one frame each, in the order in which it said it.

They are kept as MessagePack arrays, with the kind first: a later format may add fields at the end, and no reader of today
is confused. Times are microseconds since 1970. Blobs that a record names lie beside the spool, or are in the store.
"""

from __future__ import annotations

from typing import Any

import msgspec


class _Record(msgspec.Struct, array_like=True, omit_defaults=True):
    """One record; its kind is the first element."""


class Start(_Record, tag="start"):
    """The first record of a run: all that is known before the first line of user code in it.

    Attributes:
        project: Whose it is; empty for the own one of the server that takes it.
        experiment: Its name.
        parent: Id of the run around it.
        inputs: Table versions, as `table@3` or ids.
        environment: Digest of the environment's description (`environment.py`).
        lock: Digest of the lock that it names.
        conditions: Digest of command line, hardware, threads and chance (`conditions.py`).
        code: `code.describe(...)`.
        process: Its number on its machine.
    """

    project: str
    experiment: str
    at: int
    name: str = ""
    parent: str | None = None
    parameters: dict[str, Any] = {}
    tags: dict[str, str] = {}
    inputs: list[str] = []
    environment: str | None = None
    lock: str | None = None
    conditions: str | None = None
    code: dict[str, Any] | None = None
    process: int = 0


class Points(_Record, tag="points"):
    """Values of metrics at one step and moment."""

    at: int
    step: int
    values: dict[str, float]


class Parameters(_Record, tag="parameters"):
    """Parameters that became known later."""

    values: dict[str, Any]


class Tags(_Record, tag="tags"):
    """Tags that are set."""

    values: dict[str, str]


class Artifact(_Record, tag="artifact"):
    """A file that is kept with the run."""

    path: str
    blob: str
    size: int  # bytes


class Model(_Record, tag="model"):
    """A fitted model: a folder with an `MLmodel`, as MLflow's clients log one.

    Attributes:
        id: Of the logged model, `m-…`.
        files: Path in the folder, digest of the blob, and size in bytes of each file.
    """

    id: str
    name: str
    files: list[tuple[str, str, int]]


class Input(_Record, tag="input"):
    """Data that the run reads: a table version, or something outside the store.

    Attributes:
        name: `table@3`, an id, or a name for something outside.
        source: Where it lies, for something outside, e.g. a path or an address.
        digest: Of its content, as whoever logs it has it.
        context: What it is for, e.g. `"training"`.
        schema, profile: JSON texts.
    """

    name: str
    source: str = ""
    source_type: str = ""
    digest: str = ""
    context: str = ""
    schema: str = ""
    profile: str = ""


class Remark(_Record, tag="note"):
    """A note on the run."""

    id: str
    text: str
    at: int


class Lost(_Record, tag="lost"):
    """Records that could not be kept, since the disk was full for longer than memory could hold them."""

    records: int
    reason: str


class End(_Record, tag="end"):
    """The last record of a run: `finished`, `failed`, or `killed` (interrupted by a person)."""

    state: str
    at: int
    error: str | None = None


Record = Start | Points | Parameters | Tags | Artifact | Model | Input | Remark | Lost | End

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)


def decode(frame: bytes | memoryview) -> Record:
    """A record from its frame.

    Raises:
        msgspec.DecodeError: It is none, or of a later format.
    """
    found: Record = _decoder.decode(frame)
    return found


def blobs_of(record: Record) -> list[str]:
    """Digests of the blobs that a record names."""
    if isinstance(record, Artifact):
        return [record.blob]
    if isinstance(record, Model):
        return [digest for _, digest, _ in record.files]
    if isinstance(record, Start):
        code = [value for value in (record.code or {}).values() if isinstance(value, str) and value.startswith("b3:")]
        return [digest for digest in (record.environment, record.lock, record.conditions, *code) if digest]
    return []


_NAMING = (b"start", b"artif", b"model")


def blobs_in(frame: bytes) -> list[str]:
    """The same for a frame; none for one that cannot be read, about which the store decides."""
    if frame[2:7] not in _NAMING:  # the kind stands behind the marks of the array and of the text
        return []
    try:
        return blobs_of(decode(frame))
    except msgspec.DecodeError:
        return []
