"""Group commit of records: while a call waits for its answer, its frame is made durable together with its neighbours'.

The event loop hands frames in and goes on; one thread takes all that are waiting, writes each segment once, syncs it,
and tells the loop. So the disk's pace sets the size of a group, and no call waits for a timer.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from instar.core import frames
from instar.core.durable import sync_folder
from instar.serve import record, segments

ROLL_BYTES = 64 * 1024 * 1024
ROLL_SECONDS = 300.0
LATER_SECONDS = 30.0  # how long a rolled segment stays open for answers of shadows


@dataclass
class Segment:
    """A segment being written. The loop owns the counters, the thread owns the file.

    Attributes:
        waiting: Calls whose later answers belong into this segment.
        broken: A write or sync failed; the segment is closed for good.
    """

    name: segments.SegmentName
    path: Path
    opened: float = field(default_factory=time.monotonic)
    sequence: int = 0
    size: int = 0
    waiting: int = 0
    schemas: set[int] = field(default_factory=set)
    retired: float | None = None
    closed: bool = False
    broken: str | None = None
    file: int = -1


# Called on the event loop once the bytes are kept, with None, or with the reason why they are not.
Told = Callable[[str | None], object]

_Item = tuple[Segment, bytes, Told | None, bool]


class Committer:
    """The thread that writes.

    Args:
        durable: Sync before telling (`durable`), or tell when the operating system has it (`prompt`).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, durable: bool = True) -> None:
        self._loop = loop
        self._durable = durable
        self._queue: deque[_Item] = deque()
        self._wake = threading.Semaphore(0)
        self._sleeping = False
        self._stop = False
        self.groups = 0
        self._thread = threading.Thread(target=self._run, name="instar-commit", daemon=True)
        self._thread.start()

    def submit(self, segment: Segment, data: bytes, told: Told | None, last: bool = False) -> None:
        """Queue bytes for a segment; `told` is called when they are kept. `last` closes the file after them."""
        self._queue.append((segment, data, told, last))
        if self._sleeping:
            self._sleeping = False
            self._wake.release()

    def close(self) -> None:
        """Write what is queued, then end the thread."""
        self._stop = True
        self._wake.release()
        self._thread.join()

    def _run(self) -> None:
        queue = self._queue
        while True:
            if not queue:
                if self._stop:
                    return
                self._sleeping = True
                # Looked at again after saying that we sleep: a frame may have come in between.
                if queue or self._stop:
                    self._sleeping = False
                else:
                    self._wake.acquire()
                continue
            group = [queue.popleft() for _ in range(len(queue))]
            self.groups += 1
            self._commit(group)

    def _commit(self, group: list[_Item]) -> None:
        by_segment: dict[int, list[_Item]] = {}
        for item in group:
            by_segment.setdefault(id(item[0]), []).append(item)
        for items in by_segment.values():
            segment = items[0][0]
            if segment.broken is None:
                try:
                    self._write(segment, b"".join(item[1] for item in items))
                    if any(item[3] for item in items):
                        os.close(segment.file)
                        segment.file = -1
                except OSError as problem:
                    segment.broken = f"{type(problem).__name__}: {problem}"
                    if segment.file >= 0:
                        os.close(segment.file)
                        segment.file = -1
            waiting = [item[2] for item in items if item[2] is not None]
            if waiting:
                self._loop.call_soon_threadsafe(_tell, waiting, segment.broken)

    def _write(self, segment: Segment, data: bytes) -> None:
        if segment.file < 0:
            segment.path.parent.mkdir(parents=True, exist_ok=True)
            segment.file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            sync_folder(segment.path.parent)
            sync_folder(segment.path.parent.parent)
        view = memoryview(data)
        while view:
            view = view[os.write(segment.file, view) :]
        if self._durable:
            os.fdatasync(segment.file) if hasattr(os, "fdatasync") else os.fsync(segment.file)


def _tell(waiting: list[Told], broken: str | None) -> None:
    for told in waiting:
        told(broken)


class EndpointLog:
    """The log of one endpoint in one gateway: numbers frames, rolls segments. Lives on the event loop.

    Args:
        calls: The store's folder `calls`.
        wall_us: Wall time in microseconds since 1970.
    """

    def __init__(self, committer: Committer, calls: Path, endpoint: str, boot: int, wall_us: Callable[[], int]) -> None:
        self._committer = committer
        self._calls = calls
        self._endpoint = endpoint
        self._boot = boot
        self._wall_us = wall_us
        self._number = 0
        self._current: Segment | None = None
        self._retired: list[Segment] = []

    @property
    def waiting(self) -> bool:
        """Is any call's record still waiting for answers of shadows?"""
        current = [self._current] if self._current is not None else []
        return any(segment.waiting > 0 for segment in [*self._retired, *current])

    def current(self) -> Segment:
        """The segment into which a new call goes."""
        segment = self._current
        if segment is not None and (
            segment.broken is not None
            or segment.size >= ROLL_BYTES
            or time.monotonic() - segment.opened >= ROLL_SECONDS
        ):
            self._retire(segment)
            segment = None
        if segment is None:
            name = segments.SegmentName(self._endpoint, self._boot, self._number)
            self._number += 1
            segment = self._current = Segment(name, name.path(self._calls))
            head = record.Head(record.FORMAT, self._endpoint, self._boot, name.number, self._wall_us())
            self._put(segment, segments.MAGIC, record.encode_entry(head))
        return segment

    def schema(self, segment: Segment, schema: record.Schema) -> None:
        """Make sure that a segment holds the schema its next call names."""
        if schema.number not in segment.schemas:
            segment.schemas.add(schema.number)
            self._put(segment, b"", record.encode_entry(schema))

    def append(
        self,
        segment: Segment,
        metadata: bytes,
        told: Told,
        salt: bytes | None = None,
        personal: bytes | None = None,
    ) -> None:
        """Append an entry; `told` is called when it is kept, or cannot be."""
        self._put(segment, b"", metadata, salt, personal, told)

    def later(self, segment: Segment, metadata: bytes) -> None:
        """Append an entry which nobody waits for."""
        if not segment.closed:
            self._put(segment, b"", metadata)

    def roll(self) -> None:
        """Retire the current segment, if it holds anything."""
        if self._current is not None:
            self._retire(self._current)

    def tick(self) -> None:
        """Roll what is old, and close what was rolled and waits for no shadow any more. Called now and then."""
        current = self._current
        if current is not None and time.monotonic() - current.opened >= ROLL_SECONDS:
            self._retire(current)
        now = time.monotonic()
        for segment in list(self._retired):
            if segment.waiting <= 0 or now - (segment.retired or now) >= LATER_SECONDS:
                self._end(segment)

    def close(self) -> None:
        """Close all segments in good order."""
        if self._current is not None:
            self._retire(self._current)
        for segment in list(self._retired):
            self._end(segment)

    def _retire(self, segment: Segment) -> None:
        segment.retired = time.monotonic()
        self._retired.append(segment)
        self._current = None

    def _end(self, segment: Segment) -> None:
        self._retired.remove(segment)
        self._put(segment, b"", record.encode_entry(record.End(self._wall_us())), last=True)
        segment.closed = True

    def _put(
        self,
        segment: Segment,
        before: bytes,
        metadata: bytes,
        salt: bytes | None = None,
        personal: bytes | None = None,
        told: Told | None = None,
        last: bool = False,
    ) -> None:
        data = frames.pack(record.encode_frame(segment.sequence, metadata, salt, personal))
        segment.sequence += 1
        segment.size += len(data)
        self._committer.submit(segment, before + data if before else data, told, last)
