"""Group commit of records: while a call waits for its answer, its frame is made durable together with its neighbours'.

The event loop hands frames in and goes on; a thread takes all that are waiting, writes each segment once, syncs it, and
tells the loop. So the disk's pace sets the size of a group, and no call waits for a timer. Where the answer waits for the
operating system alone, the loop writes what one turn of it brought, at its end, and there is no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from instar.core import frames
from instar.core.durable import sync_folder
from instar.serve.log import record, segments

log = logging.getLogger("instar.record")

ROLL_BYTES = 64 * 1024 * 1024
ROLL_SECONDS = 300.0
DAY_US = 86_400_000_000
LATER_SECONDS = 30.0  # how long a rolled segment stays open for answers of shadows
AGAIN_SECONDS = 1.0  # after a segment that could not be written, before the next is tried


# Called on the event loop once the bytes are kept, with None, or with the reason why they are not.
Told = Callable[[str | None], object]


@dataclass
class Segment:
    """A segment being written. The loop owns the counters, the writer owns the file.

    Attributes:
        until: Wall time, microseconds since 1970, from which on calls go into another: midnight (UTC), so that what is sealed
            of a day holds a day.
        waiting: Calls whose later answers belong into this segment.
        written: Bytes that were kept; what lies behind them in the file of a broken segment is cut off.
        broken: A write or sync failed; the segment is closed for good.
    """

    name: segments.SegmentName
    path: Path
    until: int
    opened: float = field(default_factory=time.monotonic)
    sequence: int = 0
    size: int = 0
    waiting: int = 0
    schemas: set[int] = field(default_factory=set)
    retired: float | None = None
    closed: bool = False
    written: int = 0
    broken: str | None = None
    file: int = -1


_Item = tuple[Segment, bytes, Told | None, bool]


class Committer:
    """Who writes.

    Args:
        durable: Sync before telling (`durable`), or tell when the operating system has it (`prompt`).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, durable: bool = True) -> None:
        self._loop = loop
        self._durable = durable
        self._queue: deque[_Item] = deque()
        self._wake = threading.Lock()  # held while the thread is awake: taking it is how it sleeps
        self._wake.acquire()
        self._waking = threading.Lock()  # around saying that it sleeps, and ending that
        self._sleeping = False
        self._due = False
        self._stop = False
        self.groups = 0
        self._thread: threading.Thread | None = None
        if durable:
            self._thread = threading.Thread(target=self._run, name="instar-commit", daemon=True)
            self._thread.start()

    def submit(self, segment: Segment, data: bytes, told: Told | None, last: bool = False) -> None:
        """Queue bytes for a segment; `told` hears when they are kept. `last` closes the file after them."""
        self._queue.append((segment, data, told, last))
        if not self._due:
            # At the end of this turn of the loop, so that what it brings is one group.
            self._due = True
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Write what is queued, then end. Blocks."""
        if self._thread is None:
            self._write()
            return
        self._stop = True
        self._rouse()
        self._thread.join()

    def _turn(self) -> None:
        self._due = False
        if self._thread is None:
            self._write()
        else:
            self._rouse()

    def _rouse(self) -> None:
        with self._waking:
            if self._sleeping:
                self._sleeping = False
                self._wake.release()

    def _write(self) -> None:
        queue = self._queue
        group = [queue.popleft() for _ in range(len(queue))]
        if group:
            self.groups += 1
            self._commit(group)

    def _run(self) -> None:
        queue = self._queue
        while True:
            if not queue:
                if self._stop:
                    return
                with self._waking:
                    # Looked at again: a frame may have come in between.
                    if queue or self._stop:
                        continue
                    self._sleeping = True
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
                    self._append(segment, b"".join([item[1] for item in items]))
                    if any(item[3] for item in items):
                        os.close(segment.file)
                        segment.file = -1
                except OSError as problem:
                    segment.broken = f"{type(problem).__name__}: {problem}"
                    _leave(segment)
            waiting = [item[2] for item in items if item[2] is not None]
            if not waiting:
                continue
            if self._durable:
                self._loop.call_soon_threadsafe(_tell, waiting, segment.broken)
            else:
                _tell(waiting, segment.broken)

    def _append(self, segment: Segment, data: bytes) -> None:
        if segment.file < 0:
            segment.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if os.fstat(file).st_size:  # an empty one may be left of a try that failed
                os.close(file)
                raise FileExistsError(f"{segment.path} is there already")
            segment.file = file
            if self._durable:
                sync_folder(segment.path.parent)
                sync_folder(segment.path.parent.parent)
        view = memoryview(data)
        while view:
            view = view[os.write(segment.file, view) :]
        if self._durable:
            os.fdatasync(segment.file) if hasattr(os, "fdatasync") else os.fsync(segment.file)
        segment.written += len(data)


def _leave(segment: Segment) -> None:
    """Leave a broken segment with what was kept in it and no more."""
    if segment.file < 0:
        return
    with contextlib.suppress(OSError):  # the disk that failed may fail again; recovery cuts the tail, too
        os.ftruncate(segment.file, segment.written)
    with contextlib.suppress(OSError):
        os.close(segment.file)
    segment.file = -1


def _tell(waiting: list[Told], broken: str | None) -> None:
    for told in waiting:
        told(broken)


class Gap:
    """Calls that have no entry of their own, until an entry says how many they were."""

    def __init__(self, wall_us: Callable[[], int]) -> None:
        self._wall_us = wall_us
        self._waiting: record.Skipped | None = None
        self._told: record.Skipped | None = None

    @property
    def open(self) -> bool:
        """Is there something to say, and nothing being said?"""
        return self._waiting is not None and self._told is None

    def add(self, reason: str, *, answered: int = 0, refused: int = 0) -> None:
        """Some more."""
        now = self._wall_us()
        before = self._waiting or record.Skipped(now, now, 0, 0, reason[:300])
        self._waiting = record.Skipped(
            before.since, now, before.answered + answered, before.refused + refused, before.reason
        )

    def take(self) -> record.Skipped:
        """What is to be said now; `told` hears whether it was."""
        assert self._waiting is not None
        self._told, self._waiting = self._waiting, None
        return self._told

    def told(self, problem: str | None) -> record.Skipped | None:
        """The entry is kept, or has to be said again; returns what it was of."""
        told, self._told = self._told, None
        if problem is not None and told is not None:
            more = self._waiting
            self._waiting = told
            if more is not None:
                self.add(more.reason, answered=more.answered, refused=more.refused)
        return told


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
        self._again = 0.0
        self._complained = False  # of a disk that fails: once, until records are kept again
        self.gap = Gap(wall_us)

    @property
    def waiting(self) -> bool:
        """Is any call's record still waiting for answers of shadows?"""
        current = [self._current] if self._current is not None else []
        return any(segment.waiting > 0 for segment in [*self._retired, *current])

    def failing(self) -> str | None:
        """Why nothing can be kept for now; None when it can, or it is time to try again."""
        segment = self._current
        if segment is None or segment.broken is None:
            return None
        now = time.monotonic()
        if not self._again:
            self._again = now + AGAIN_SECONDS
            if not self._complained:
                log.error("endpoint %s: records of calls cannot be kept: %s", self._endpoint, segment.broken)
                self._complained = True
        return segment.broken if now < self._again else None

    def current(self) -> Segment:
        """The segment into which a new call goes."""
        segment = self._current
        if segment is not None and (
            segment.broken is not None or segment.size >= ROLL_BYTES or self._wall_us() >= segment.until
        ):
            self._retire(segment)
            segment = None
        if segment is None:
            name = segments.SegmentName(self._endpoint, self._boot, self._number)
            self._number += 1
            now = self._wall_us()
            segment = self._current = Segment(name, name.path(self._calls), now - now % DAY_US + DAY_US)
            head = record.Head(record.FORMAT, self._endpoint, self._boot, name.number, now)
            self._put(segment, segments.MAGIC, record.encode_entry(head))
            self._again = 0.0
            self._say_gap(segment)
        return segment

    def _say_gap(self, segment: Segment) -> None:
        if self.gap.open:
            self._put(segment, b"", record.encode_entry(self.gap.take()), told=self._said_gap)

    def _said_gap(self, problem: str | None) -> None:
        gap = self.gap.told(problem)
        if problem is None and gap is not None and self._complained:
            self._complained = False
            log.warning(
                "endpoint %s: records of calls are kept again; %d answers have none, %d calls were refused",
                self._endpoint, gap.answered, gap.refused,
            )  # fmt: skip

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
        """Append an entry; `told` hears whether it is kept."""
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
        old = current is not None and time.monotonic() - current.opened >= ROLL_SECONDS
        if current is not None and (old or self._wall_us() >= current.until or self._was_removed(current)):
            self._retire(current)
        if self.gap.open and self.failing() is None:
            self._say_gap(self.current())
        now = time.monotonic()
        for segment in list(self._retired):
            if segment.waiting <= 0 or now - (segment.retired or now) >= LATER_SECONDS:
                self._end(segment)

    def _was_removed(self, segment: Segment) -> bool:
        """Did somebody remove the file under the writer's hands? What follows goes into the next, whose number shows the hole."""
        gone = segment.written > 0 and segment.broken is None and not segment.path.exists()
        if gone:
            log.error("the file of segment %s was removed while it was written: its calls are lost", segment.name.id)
        return gone

    def close(self) -> None:
        """Close all segments in good order."""
        if self.gap.open:
            self._say_gap(self.current())
        if self._current is not None:
            self._retire(self._current)
        for segment in list(self._retired):
            self._end(segment)

    def _retire(self, segment: Segment) -> None:
        segment.retired = time.monotonic()
        self._retired.append(segment)
        self._current = None
        if segment.broken is not None and not segment.written:
            self._number = segment.name.number  # nothing is in it: its place is not lost, so no number is missing

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
