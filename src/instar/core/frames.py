"""Record frames in append-only files, for logs and spools: each is a length, a checksum and a payload, so a torn tail shows.

A file begins with eight letters of magic that say what it holds. A frame is the length and the CRC-32 of its payload
(little-endian, four bytes each) and the payload, of one byte at least.

>>> payloads, end = unpack(pack(b"one") + pack(b"two")[:-1])
>>> [bytes(payload) for payload in payloads], end
([b'one'], 11)
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from instar.core.errors import Damaged

HEADER = struct.Struct("<II")
FRAME_LIMIT_BYTES = 256 * 1024 * 1024  # a longer length can only be damage


def pack(payload: bytes) -> bytes:
    """A frame: header and payload, which is not empty."""
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def unpack(data: bytes | memoryview, start: int = 0, most: int = -1) -> tuple[list[memoryview], int]:
    """Payloads of the good frames in `data` from `start`, at most so many, and where the last of them ends."""
    view = memoryview(data)
    payloads: list[memoryview] = []
    end, size = start, len(view)
    while end + HEADER.size <= size and len(payloads) != most:
        length, checksum = HEADER.unpack_from(view, end)
        stop = end + HEADER.size + length
        # No payload is empty: a header of zeros is what a file system may leave at the end after a power failure.
        if not length or stop > size or length > FRAME_LIMIT_BYTES:
            break
        payload = view[end + HEADER.size : stop]
        if zlib.crc32(payload) != checksum:
            break
        payloads.append(payload)
        end = stop
    return payloads, end


def read(
    path: Path, magic: bytes, start: int = 0, *, most: int = -1, most_bytes: int = -1
) -> tuple[list[memoryview], int]:
    """Payloads of a file's good frames from byte `start` (0 for the beginning), and where the last one ends.

    Args:
        magic: What the file must begin with.
        most: Return at most so many; -1 returns all.
        most_bytes: Read no further than so many bytes from there; -1 reads to the end.

    Raises:
        Damaged: The file does not begin with `magic`.
    """
    with path.open("rb") as file:
        if start < len(magic):
            found = file.read(len(magic))
            if found != magic:
                # A crash between creating the file and its first write leaves less than the magic: no frames, no damage.
                if magic.startswith(found):
                    return [], 0
                raise Damaged(
                    "the file does not begin as it should",
                    subject=str(path),
                    found=found,
                    asked=magic,
                    next_step="Restore it from a backup.",
                )
            start = len(magic)
        else:
            file.seek(start)
        payloads, end = unpack(file.read(most_bytes), 0, most)
    return payloads, start + end


def cut_tail(path: Path, magic: bytes) -> int:
    """Cut a torn tail off a file whose writer is gone; returns how many bytes were cut."""
    size = path.stat().st_size
    _, end = read(path, magic)
    if end < size:
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
    return size - end
