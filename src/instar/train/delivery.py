"""Delivery of a run's spool to a store, at any time after its records were written: batch by batch, each counted once.

The store says how many frames of each writer it has; everything after that is sent. So a delivery may be broken off anywhere,
begun again by another process, or run twice at once: no record is applied twice, and none is passed over.

    with spool.delivering(folder) as mine:
        if mine:
            Delivery(folder, sink).turn()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from instar.core import errors
from instar.train import spool, spool_records

Waiting = Mapping[str, tuple[int, Sequence[bytes]]]

BATCH_FRAMES = 5_000
BATCH_BYTES = 1_000_000


@dataclass(frozen=True)
class Batch:
    """Some frames of one writer of a run, in order.

    Attributes:
        first: Number of the first frame within its writer's.
        place: Machine and folder where they lie.
        gone: The process that began the run is dead.
        last: And nothing of it follows: a run without an end is abandoned.
    """

    project: str
    run: str
    writer: str
    first: int
    frames: Sequence[bytes]
    place: str = ""
    gone: bool = False
    last: bool = False


class Sink(Protocol):
    """Where a spool goes: a server, or a store on this machine."""

    def apply(self, batch: Batch) -> int:
        """Apply the frames that are new; returns how many of the writer's are applied now, which may be less than sent.

        A batch without frames asks for that number.

        Raises:
            Unavailable: Not now; a later try may succeed.
        """

    def put(self, project: str, run: str, digest: str, file: Path) -> None:
        """Keep a blob, before a record names it. Raises as `apply` does."""

    def close(self) -> None:
        """Let go of connections."""


class Delivery:
    """Delivers one run's spool, as far as it is written, each time it is asked.

    Args:
        waiting: By writer, the frames that are in memory only, since the disk is full: the number of the first, and all.
    """

    def __init__(
        self,
        folder: Path,
        sink: Sink,
        *,
        place: str = "",
        waiting: Callable[[], Waiting] = dict,
    ) -> None:
        self._folder, self._sink, self._place, self._waiting = folder, sink, place, waiting
        self._about = spool.about(folder)
        self._readers: dict[str, spool.Reader] = {}
        self._held: dict[str, int] = {}  # frames that the store has, with those that are in memory only
        self._put: set[str] = set()
        self._gone = False

    def turn(self, *, greet: bool = False) -> int:
        """Send all that is there now; returns how many frames were sent.

        Args:
            greet: Say that the process lives, even when there is nothing to send.

        Raises:
            Unavailable: The store is away. What it took before is counted, and the next turn goes on from there.
        """
        # Asked before reading: what the writer wrote until it died is then in the file.
        self._gone = not spool.is_alive(self._folder, spool.MAIN)
        sent = sum(self._all_of(writer) for writer in spool.writers(self._folder))
        if self._gone or (greet and not sent):
            main = self._readers.get(spool.MAIN)
            self._apply(spool.MAIN, main.index if main is not None else 0, [], last=self._gone)
        return sent

    def settled(self) -> bool:
        """Is everything delivered, and no process left that could write more?"""
        names = spool.writers(self._folder)
        if any(name not in self._readers or spool.is_alive(self._folder, name) for name in names):
            return False
        for writer, (first, held) in self._waiting().items():
            if self._held.get(writer, 0) < first + len(held):
                return False
        return not any(reader.peek()[0] for reader in self._readers.values())

    def _all_of(self, writer: str) -> int:
        reader = self._readers.get(writer)
        if reader is None:
            reader = self._readers[writer] = spool.Reader(self._folder, writer)
            reader.seek(self._apply(writer, 0, []))
        sent = 0
        while True:
            frames, ends = _cut(*reader.peek())
            if not frames:
                break
            sent += self._send(reader, frames, ends)
        return sent + self._send_held(reader)

    def _send_held(self, reader: spool.Reader) -> int:
        """Send what has no room on the disk. It comes by again when it has, and is counted as known then."""
        first, held = self._waiting().get(reader.name, (0, ()))
        known = max(self._held.get(reader.name, 0), reader.index)
        new = list(held[known - first :]) if first == reader.index else []  # else the file has grown meanwhile
        self._held[reader.name] = self._apply(reader.name, known, new) if new else known
        return len(new)

    def _send(self, reader: spool.Reader, frames: list[bytes], ends: list[int]) -> int:
        first = reader.index
        applied = self._apply(reader.name, first, frames)
        taken = applied - first
        if 0 < taken <= len(frames):
            reader.advance(taken, ends[taken - 1])
            return taken
        if taken == 0:
            raise errors.Unavailable("the server takes no more of this run", subject=self._about.run)
        # It has less than we thought (it was put back to a backup), or more (somebody else delivers too).
        reader.seek(applied)
        return 0

    def _apply(self, writer: str, first: int, frames: list[bytes], *, last: bool = False) -> int:
        for digest in (digest for frame in frames for digest in spool_records.blobs_in(frame)):
            self._keep(digest)
        about = self._about
        batch = Batch(about.project, about.run, writer, first, frames, self._place, self._gone, last)
        return self._sink.apply(batch)

    def _keep(self, digest: str) -> None:
        if digest in self._put:
            return
        with contextlib.suppress(FileNotFoundError):  # not staged: the store has it, or says that it has not
            self._sink.put(self._about.project, self._about.run, digest, spool.staged(self._folder, digest))
        self._put.add(digest)


def _cut(frames: Sequence[memoryview], end: int) -> tuple[list[bytes], list[int]]:
    """As many of the frames as go into one batch, with the places in the file where each ends."""
    kept: list[bytes] = []
    sizes = 0
    for frame in frames[:BATCH_FRAMES]:
        if kept and sizes + len(frame) > BATCH_BYTES:
            break
        kept.append(bytes(frame))
        sizes += len(frame)
    begin = end - sum(len(frame) + spool.FRAME_HEADER_BYTES for frame in frames)
    return kept, [begin + stop for stop in accumulate(len(frame) + spool.FRAME_HEADER_BYTES for frame in kept)]
