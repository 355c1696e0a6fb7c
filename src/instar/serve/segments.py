"""Append-only files of record frames, written while calls are answered, and read up to the last good checksum.

A segment is `store/calls/<endpoint>/<boot>-<number>.seg`, of `core.frames`. A crash can tear only the tail, since a frame is
acknowledged after the whole group before it reached the disk; `recover` cuts what is torn.
"""

from __future__ import annotations

import fcntl
import re
from dataclasses import dataclass
from pathlib import Path

from instar.core import frames
from instar.core.ids import ALPHABET

MAGIC = b"INSTARC1"
_GATEWAYS = ".gateways"  # no endpoint's name begins with a dot

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


def boot_letters(boot: int) -> str:
    """A boot number as it stands in file names and call ids: six letters of base 32."""
    return "".join(ALPHABET[(boot >> shift) & 31] for shift in (25, 20, 15, 10, 5, 0))


def list_segments(calls: Path, endpoint: str | None = None) -> list[SegmentName]:
    """Segments on disk, by endpoint, boot and number."""
    folders = [calls / endpoint] if endpoint else sorted(p for p in calls.glob("*") if p.is_dir())
    found = []
    for folder in folders:
        for file in sorted(folder.glob("*.seg")) if folder.is_dir() else []:
            if match := _NAME.match(file.name):
                found.append(SegmentName(folder.name, _boot_number(match.group(1)), int(match.group(2))))
    return found


def read(path: Path, start: int = 0) -> tuple[list[memoryview], int]:
    """Payloads of a segment's good frames from byte `start` (0 for the beginning), and where the last one ends.

    Raises:
        Damaged: The file does not begin as a segment does.
    """
    return frames.read(path, MAGIC, start)


def recover(path: Path) -> int:
    """Cut a torn tail off a segment whose writer is gone; returns how many bytes were cut."""
    return frames.cut_tail(path, MAGIC)


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
