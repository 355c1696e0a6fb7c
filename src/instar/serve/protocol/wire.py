"""The language between a gateway and a worker process, spoken on one Unix socket for all calls at once.

A message is its length (four bytes), kind (one), job (four) and payload; little-endian. The request's body travels as it
came, and the answer's body and record travel as they will be sent and kept: neither side encodes twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from instar.core.errors import Damaged
from instar.serve.protocol.signature import Signature

# Gateway to worker.
LOAD, PLAN, INFER, PING, RELEASE = 1, 2, 3, 4, 5
# Worker to gateway.
LOADED, ANSWER, LATER, PONG, HELD = 11, 12, 13, 14, 15

PLANS_LIMIT = 4096  # that a worker knows of one gateway; the one that it was told first goes first

MESSAGE_LIMIT_BYTES = 256 * 1024 * 1024

_MESSAGE = struct.Struct("<IBI")
# Forms: how a body is to be read, and how its answer is written (see `forms`).
JSON, BINARY, RECORDS, INVOCATIONS, CSV, ARROW = range(6)
SAME = 255  # of an answer: the form that belongs to the one in which it was asked

_INFER = struct.Struct("<IBIIBIQQBBB")
_ASK = struct.Struct("<IBIQQBBB")
_ANSWER = struct.Struct("<IBIHBBIIII")
_PARTS = struct.Struct("<HBBIIII")


class Load(msgspec.Struct, frozen=True, array_like=True):
    """Have a bundle ready; answered by `Loaded`. With `keep` it is never the one that makes room, until `RELEASE` names it."""

    bundle: str
    folder: str
    keep: bool = False


class Loaded(msgspec.Struct, frozen=True, array_like=True):
    """`error` is null when it is ready."""

    bundle: str
    error: str | None


class PlanVersion(msgspec.Struct, frozen=True, array_like=True):
    """One version's part in a plan."""

    version: int
    role: str
    bundle: str
    folder: str
    columns: tuple[str, ...]
    threshold: float | None


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """What this worker does with a call of one route; sent once, then named by number.

    Attributes:
        schema: Number by which the call's record names the signature.
        first: Versions scored before answering; the first of them answers. Empty when another worker answers.
        later: Versions scored after, for the record.
        parameters: Put into the answer.
    """

    number: int
    endpoint: str
    schema: int
    signature: Signature
    first: tuple[PlanVersion, ...]
    later: tuple[PlanVersion, ...]
    parameters: dict[str, str | int]


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A call's body as it came, and how to read it.

    Attributes:
        form: How it is to be read.
        head: Bytes of the JSON head before binary tensors; 0 where there are none.
        deadline: Monotonic clock, nanoseconds, after which nobody waits for the answer; 0 for none.
        came: Monotonic clock, nanoseconds, when its last byte was there; 0 where nobody looked.
        answer: The form of the answer, or `SAME`.
        coding: How the body is packed (see `codings`).
        pack: How a large answer may be packed.
    """

    body: bytes
    form: int = JSON
    head: int = 0
    deadline: int = 0
    came: int = 0
    answer: int = SAME
    coding: int = 0
    pack: int = 0


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A worker's answer to a call.

    Attributes:
        body: For the caller.
        work: The worker's part of the record (`record.Work`), or for a refused call the error's kind and text.
        personal: The personal part of the record, or empty.
        form: Of the answer's body; it has one content type.
        head: Bytes of the JSON head before binary tensors; 0 where there are none.
        coding: How the body is packed.
    """

    status: int
    body: bytes
    work: bytes
    personal: bytes
    form: int = JSON
    head: int = 0
    coding: int = 0


def encode(kind: int, job: int, payload: bytes) -> bytes:
    """A message."""
    return _MESSAGE.pack(len(payload) + 5, kind, job) + payload


def encode_struct(kind: int, job: int, payload: Load | Loaded | Plan) -> bytes:
    """A message whose payload is MessagePack."""
    return encode(kind, job, msgspec.msgpack.encode(payload))


def encode_held(bundle: str, held: bool) -> bytes:
    """That a bundle is loaded now, or is not any more."""
    return encode(HELD, 0, (b"+" if held else b"-") + bundle.encode())


def encode_infer(job: int, plan: int, ask: Ask) -> bytes:
    """A call."""
    body = ask.body
    head = _INFER.pack(
        5 + _ASK.size + len(body), INFER, job, plan, ask.form, ask.head, ask.deadline, ask.came, ask.answer, ask.coding,
        ask.pack,
    )  # fmt: skip
    return head + body


def encode_answer(job: int, reply: Reply) -> bytes:
    """An answer to a call."""
    body, work, personal = reply.body, reply.work, reply.personal
    size = 5 + _PARTS.size + len(body) + len(work) + len(personal)
    head = _ANSWER.pack(
        size, ANSWER, job, reply.status, reply.form, reply.coding, reply.head, len(body), len(work), len(personal)
    )
    return b"".join((head, body, work, personal))


def decode_answer(payload: bytes) -> Reply:
    """The payload of an ANSWER message."""
    status, form, coding, head, body, work, _ = _PARTS.unpack_from(payload)
    start = _PARTS.size
    return Reply(
        status,
        payload[start : start + body],
        payload[start + body : start + body + work],
        payload[start + body + work :],
        form,
        head,
        coding,
    )


def decode_infer(payload: bytes) -> tuple[int, Ask]:
    """Plan number and request of an INFER message."""
    plan, *facts = _ASK.unpack_from(payload)
    return plan, Ask(payload[_ASK.size :], *facts)


class Splitter:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Kind, job and payload of each message that is whole now.

        Raises:
            Damaged: The stream is not of this language.
        """
        if self._rest:
            self._rest += data
            data = bytes(self._rest)
            self._rest.clear()
        at, size = 0, len(data)
        while at + 9 <= size:
            length, kind, job = _MESSAGE.unpack_from(data, at)
            if not 5 <= length <= MESSAGE_LIMIT_BYTES:
                raise Damaged("a message between gateway and worker has an impossible length", found=length)
            stop = at + 4 + length
            if stop > size:
                break
            yield kind, job, data[at + 9 : stop]
            at = stop
        if at < size:
            self._rest += data[at:]
