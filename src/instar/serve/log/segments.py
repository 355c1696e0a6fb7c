"""Append-only files of record frames, written while calls are answered, and read up to the last good checksum.

A segment is `store/calls/<endpoint>/<boot>-<number>.seg`, of `core.frames`. A crash can tear only the tail, since a frame is
acknowledged after the whole group before it reached the disk; readers stop there, and `salvage` tells it from other damage.
"""

from __future__ import annotations

import fcntl
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from instar.core import frames
from instar.core.durable import sync_folder
from instar.core.errors import Damaged
from instar.core.ids import ALPHABET
from instar.serve.log import record

MAGIC = b"INSTARC1"
_GATEWAYS = ".gateways"  # no endpoint's name begins with a dot
_DAMAGED = ".damaged"
AT_ONCE = 8192  # frames taken apart before they are told of
_END_BYTES = 64  # a frame that says that a segment is at its end has less

_NAME = re.compile(r"([0-9A-HJKMNP-TV-Z]{6})-(\d{6})\.seg\Z")


@dataclass(frozen=True)
class SegmentName:
    """Place of a segment: endpoint, boot of the gateway that wrote it, number in that boot."""

    endpoint: str
    boot: int
    number: int

    @property
    def id(self) -> str:
        return f"{self.endpoint}/{boot_letters(self.boot)}-{self.number:06d}"

    def path(self, calls: Path) -> Path:
        return calls / f"{self.id}.seg"


def name_of(id_: str) -> SegmentName:
    """A segment by its id."""
    endpoint, _, place = id_.rpartition("/")
    letters, _, number = place.partition("-")
    return SegmentName(endpoint, _boot_number(letters), int(number))


def boot_letters(boot: int) -> str:
    """A boot number as it stands in file names and call ids: six letters of base 32."""
    return "".join(ALPHABET[(boot >> shift) & 31] for shift in (25, 20, 15, 10, 5, 0))


def list_segments(calls: Path, endpoint: str | None = None, *, boot: int | None = None) -> list[SegmentName]:
    """Segments on disk, by endpoint, boot and number; of one endpoint, or of one boot, if asked."""
    folders = [calls / endpoint] if endpoint else sorted(p for p in calls.glob("*") if p.is_dir())
    found = []
    for folder in folders:
        begins = "" if boot is None else f"{boot_letters(boot)}-"
        for file in sorted(folder.glob(f"{begins}*.seg")) if folder.is_dir() else []:
            if match := _NAME.match(file.name):
                found.append(SegmentName(folder.name, _boot_number(match.group(1)), int(match.group(2))))
    return found


def read(path: Path, start: int = 0) -> tuple[list[memoryview], int]:
    """Payloads of a segment's good frames from byte `start` (0 for the beginning), and where the last one ends.

    Raises:
        Damaged: The file does not begin as a segment does.
    """
    return frames.read(path, MAGIC, start)


def begun_at(path: Path) -> int:
    """When a segment was begun, microseconds since 1970; 0 where that cannot be read."""
    try:
        payloads, _ = frames.read(path, MAGIC, most=1, most_bytes=4096)
    except (FileNotFoundError, Damaged):
        return 0
    first = _decoded(payloads[0]) if payloads else None
    return first[1].created if first is not None and isinstance(first[1], record.Head) else 0


def frames_of(path: Path, call: str) -> list[record.Frame]:
    """The frames of a segment that tell of one call, with those that describe its columns; none where it does not hold it.

    The bytes are searched for the id first: a segment without it is not taken apart.
    """
    needle = call.encode()
    try:
        if needle not in path.read_bytes():
            return []
        payloads, _ = read(path)
    except (FileNotFoundError, Damaged):
        return []
    found = []
    for payload in payloads:
        # Descriptions of columns are rare and short; entries of other calls are passed over undecoded.
        frame = record.decode_frame(payload)
        if needle in frame.metadata or record.kind(frame.metadata) == record.SCHEMA:
            found.append(frame)
    return found


@dataclass(frozen=True)
class Found:
    """All that can be read of a closed segment.

    Attributes:
        frames: Good frames in their order.
        gaps: Sequences `[from, to)` that are missing between good frames: damage, not a torn tail.
        torn: Bytes behind the last good frame.
        begun: When the segment was begun, microseconds since 1970; 0 where that cannot be read.
    """

    frames: list[record.Frame]
    gaps: tuple[tuple[int, int], ...]
    torn: int
    begun: int


def salvage(path: Path, hear: Callable[[record.Frame, record.Entry], None] = lambda frame, entry: None) -> Found:
    """Read a segment whose writer is gone, past what is damaged.

    A crash tears only the tail. When good frames follow bad bytes, something else happened to the file, and what is lost between
    them is said; it is never taken for the end.

    Args:
        hear: Told of each good frame and of what stands in it, in their order.
    """
    data = path.read_bytes()
    found: list[record.Frame] = []
    at, good = min(len(MAGIC), len(data)), len(MAGIC)
    while at < len(data):
        payloads, end = frames.unpack(data, at, AT_ONCE)
        for payload in payloads:
            decoded = _decoded(payload)
            if decoded is not None and (not found or decoded[0].sequence > found[-1].sequence):
                found.append(decoded[0])
                hear(*decoded)
                good = end
        at = end if len(payloads) == AT_ONCE else _next_frame(data, max(end, at) + (0 if payloads else 1))
    expected, gaps = 0, []
    for frame in found:
        if frame.sequence != expected:
            gaps.append((expected, frame.sequence))
        expected = frame.sequence + 1
    head = record.decode_entry(found[0].metadata) if found else None
    begun = head.created if isinstance(head, record.Head) else 0
    return Found(found, tuple(gaps), max(len(data) - good, 0), begun)


def _next_frame(data: bytes, start: int) -> int:
    """Where the next good frame begins, at `start` or later; the end where none does."""
    last = len(data.rstrip(b"\0"))  # zeros at the end, which a file system may leave, need no look at each
    for at in range(start, last - frames.HEADER.size):
        length, checksum = frames.HEADER.unpack_from(data, at)
        stop = at + frames.HEADER.size + length
        if 0 < length <= frames.FRAME_LIMIT_BYTES and stop <= len(data):
            payload = memoryview(data)[at + frames.HEADER.size : stop]
            if zlib.crc32(payload) == checksum and _decoded(payload) is not None:
                return at
    return len(data)


def _decoded(payload: bytes | memoryview) -> tuple[record.Frame, record.Entry] | None:
    try:
        frame = record.decode_frame(payload)
        return frame, record.decode_entry(frame.metadata)
    except msgspec.DecodeError:
        return None


def closed(path: Path) -> bool:
    """Did the writer of a segment close it in good order? It ends with an entry that says so, and only this end is read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END_BYTES, 0))
        tail = file.read()
    for start in range(len(tail) - frames.HEADER.size):
        payloads, end = frames.unpack(tail, start, 1)
        if payloads and end == len(tail):
            decoded = _decoded(payloads[0])
            return decoded is not None and isinstance(decoded[1], record.End)
    return False


def set_aside(calls: Path, name: SegmentName) -> Path:
    """Put a damaged segment where nobody seals or removes it."""
    target = calls / _DAMAGED / f"{name.id}.seg"
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(name.path(calls), target)
    sync_folder(target.parent)
    sync_folder(name.path(calls).parent)
    return target


class BootLock:
    """Held by a gateway for as long as it lives, so that others can tell its segments from those of a dead one."""

    def __init__(self, calls: Path, boot: int) -> None:
        self._path = _lock_path(calls, boot)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def is_alive(calls: Path, boot: int) -> bool:
    """Does the gateway of that boot still run?"""
    try:
        with _lock_path(calls, boot).open("r") as file:
            # Shared, so that two who ask at once do not take each other for the gateway.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def alive_boots(calls: Path) -> list[str]:
    """Boots, in letters, of the gateways that run."""
    locks = sorted((calls / _GATEWAYS).glob("*.lock"))
    return [lock.stem for lock in locks if is_alive(calls, _boot_number(lock.stem))]


def _lock_path(calls: Path, boot: int) -> Path:
    return calls / _GATEWAYS / f"{boot_letters(boot)}.lock"


def _boot_number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 32 + ALPHABET.index(letter)
    return number
