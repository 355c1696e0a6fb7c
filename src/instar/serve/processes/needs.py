"""What gateways and workers tell the root, and what it tells gateways, while a server runs: one line of JSON each.

A gateway asks for a worker when a call needs one, and says every moment how busy each is. The root says which processes
of a worker answer now, or why there is none. Nobody waits for the other in a call: a line that is full is hung up.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Need(msgspec.Struct, frozen=True, tag="need"):
    """A call, a proof or a reservation needs a worker: have one."""

    worker: str


class Load(msgspec.Struct, frozen=True):
    """How busy a worker is, as one gateway sees it.

    Attributes:
        flying: Calls handed to it and not answered.
        oldest_ms: How long the oldest of them has waited.
        calls: Answered since the last report.
    """

    flying: int
    oldest_ms: int
    calls: int


class Loads(msgspec.Struct, frozen=True, tag="loads"):
    """Workers that had calls since the last report."""

    workers: dict[str, Load]


class Hung(msgspec.Struct, frozen=True, tag="hung"):
    """A process has not answered for so long, not even whether it is there: end it."""

    worker: str
    copy: int
    seconds: float


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """The line to a process broke off: it is dying, or else it is to be ended."""

    worker: str
    copy: int


class Alone(msgspec.Struct, frozen=True, tag="alone"):
    """A worker hung up on the process that its model lived in: end that, should it be too busy to see it."""

    worker: str
    copy: int


class Used(msgspec.Struct, frozen=True):
    """What one version used in a worker since it last said so.

    Attributes:
        cpu_ns: Processor time while it scored.
        busy_ns: Wall time while it scored.
        byte_seconds: Memory held, over time; 0 where the process is its own and measured from outside.
        loads: Times that it was loaded.
    """

    endpoint: str
    version: int
    bundle: str
    calls: int = 0
    rows: int = 0
    cpu_ns: int = 0
    busy_ns: int = 0
    byte_seconds: float = 0.0
    loads: int = 0


class Usage(msgspec.Struct, frozen=True, tag="usage"):
    """A worker's account of what its versions used, and in what condition they are.

    Attributes:
        held: Bundles that are loaded now.
        failed: Bundles that cannot be loaded, and why.
    """

    worker: str
    versions: tuple[Used, ...]
    held: tuple[str, ...] = ()
    failed: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A worker's process takes calls now; its model is loaded, or why it cannot be is known."""

    worker: str
    copy: int


class Up(msgspec.Struct, frozen=True, tag="up"):
    """The processes of a worker that take calls now, by number; none: it is cold. Others take no new calls."""

    worker: str
    copies: tuple[int, ...]


class Cannot(msgspec.Struct, frozen=True, tag="cannot"):
    """A worker cannot be there for a while, and why."""

    worker: str
    reason: str
    seconds: float


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A process of a worker has ended, and how."""

    worker: str
    copy: int
    reason: str


ToRoot: TypeAlias = Need | Loads | Hung | Lost | Alone | Ready | Usage
FromRoot: TypeAlias = Up | Cannot | Ended

LINE_LIMIT_BYTES = 8 * 1024 * 1024

to_root = msgspec.json.Decoder(ToRoot)
from_root = msgspec.json.Decoder(FromRoot)


def encode(message: ToRoot | FromRoot) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"
