"""The spool of a run: local files in which a training process keeps what it says of its run until a store has it.

Logging appends a frame to a file of its own process and returns: no network, no database, no waiting. What `append`
returned for survives the death of the process; the disk is asked to hold it against a power failure at the end. Whoever
delivers (the process itself, `instar runs sync`, a server on the same store) reads the files beside a living writer.

    spool/run_01J…/about.json            whose it is
                   main.frames           of the process that started the run
                   part-….frames         of a forked child; frames are numbered within their file
                   files/ab/cdef…        content of artifacts, by digest
                   delivered             a store has it all; the folder goes after a grace
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from instar.core import frames
from instar.core.frames import pack

MAGIC = b"INSTARS1"
FOLDER = "spool"  # below a store, or below the user's own state
MAIN = "main"
HELD_BYTES = 16_000_000  # of frames that wait in memory while the disk is full
READ_BYTES, READ_FRAMES = 1_000_000, 5_000  # at a time
FRAME_HEADER_BYTES = frames.HEADER.size
GRACE_SECONDS = 86_400.0  # a delivered spool stays: a server that was put back to yesterday's backup can ask again


class About(msgspec.Struct, frozen=True):
    """Whose a spool is.

    Attributes:
        url: The server that its process was told to deliver to; None when it found its own way.
    """

    run: str
    project: str
    url: str | None
    created: float


class Writer:
    """One process's file of a run's spool. Threads share it; a forked child needs one of its own.

    Args:
        folder: The run's folder in the spool.
        name: `"main"`, or a name that no other process of the run has.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.lost = 0
        self.trouble: OSError | None = None
        self._unwritten: deque[bytes] = deque()
        self._held = 0
        self._lock = threading.RLock()  # a signal's handler may append in the middle of an append
        aside = folder / f".{name}.new"
        self._file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        # Locked before it has its name: nobody takes the file of a writer who is only being born for a dead one's.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.ftruncate(self._file, 0)
        os.write(self._file, MAGIC)
        self._end = len(MAGIC)
        self._count = 0  # frames in the file
        os.rename(aside, _file(folder, name))

    def append(self, payload: bytes, *, always: bool = False) -> bool:
        """Keep a record. Never raises for a full disk: then it waits in memory, and False says that it is not safe yet.

        Args:
            always: Hold it in memory even when that is full, too: for the few records that end a run.
        """
        frame = pack(payload)
        with self._lock:
            if self._retry() and self._write(frame):
                return True
            if self._held + len(frame) > HELD_BYTES and not always:
                self.lost += 1
            else:
                self._unwritten.append(frame)
                self._held += len(frame)
            return False

    def unwritten(self) -> tuple[int, list[bytes]]:
        """How many frames the file has, and the payloads that wait for room on the disk to follow them."""
        with self._lock:
            self._retry()
            return self._count, [frame[FRAME_HEADER_BYTES:] for frame in self._unwritten]

    def close(self) -> None:
        """Write what waits, if there is room; the disk is told to keep it, and the file is free for others."""
        with self._lock:
            self._retry()
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            self._let_go()

    def abandon_in_child(self) -> None:
        """Let go in a forked child: the file is the parent's, and so is its lock."""
        self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, -1  # its number may soon be another file's
        with contextlib.suppress(OSError):
            os.close(file)

    def _retry(self) -> bool:
        while self._unwritten:
            if not self._write(self._unwritten[0]):
                return False
            self._held -= len(self._unwritten.popleft())
        return True

    def _write(self, frame: bytes) -> bool:
        try:
            written = os.write(self._file, frame)
        except OSError as error:
            self.trouble = error
            return False
        if written < len(frame):  # the disk filled up in the middle of it
            self.trouble = OSError("only a part of the record could be written")
            os.ftruncate(self._file, self._end)
            return False
        self._end += written
        self._count += 1
        self.trouble = None
        return True


class Reader:
    """Reads the frames of one writer's file, beside it if it lives.

    Attributes:
        index: Number of the next frame.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.index = 0
        self._path = _file(folder, name)
        self._place = 0
        self._at_once = READ_BYTES

    def peek(self) -> tuple[list[memoryview], int]:
        """The next frames, and where the last of them ends; `advance` steps over them."""
        while True:
            found, end = frames.read(self._path, MAGIC, self._place, most=READ_FRAMES, most_bytes=self._at_once)
            if found or self._path.stat().st_size - self._place <= self._at_once:
                return found, end
            self._at_once *= 2  # one frame is larger than a whole reading

    def advance(self, count: int, end: int) -> None:
        """Step over so many frames, of which the last ends at byte `end`."""
        self.index, self._place = self.index + count, end

    def seek(self, index: int) -> None:
        """Go to a frame by its number, or to the end when there are fewer."""
        if index < self.index:
            self.index, self._place = 0, 0
        while self.index < index:
            found, end = self.peek()
            if not found:
                return
            if self.index + len(found) > index:
                found = found[: index - self.index]
                start = self._place or len(MAGIC)
                end = start + sum(len(frame) + FRAME_HEADER_BYTES for frame in found)
            self.advance(len(found), end)


def create(root: Path, about: About) -> Path:
    """Make the folder of a run in the spool at `root`."""
    folder = root / about.run
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".about.new"
    aside.write_bytes(msgspec.json.encode(about))
    aside.rename(folder / "about.json")
    return folder


def about(folder: Path) -> About:
    """Whose the spool in `folder` is."""
    return msgspec.json.decode((folder / "about.json").read_bytes(), type=About)


def runs(root: Path) -> list[Path]:
    """Folders of runs in the spool at `root`, the oldest first."""
    return sorted(file.parent for file in root.glob("run_*/about.json"))


def writers(folder: Path) -> list[str]:
    """Writers of a run, the process that started it first."""
    names = [file.stem for file in folder.glob("*.frames")]
    return sorted(names, key=lambda name: (name != MAIN, name))


def is_alive(folder: Path, writer: str) -> bool:
    """Does the process of that writer still hold its file?"""
    with contextlib.suppress(FileNotFoundError), _file(folder, writer).open("rb") as file:
        try:
            # Shared, so that two who ask at once do not take each other for the writer.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def cut_tail(folder: Path, writer: str) -> int:
    """Cut what a dead writer left of its last record; returns how many bytes that were."""
    return frames.cut_tail(_file(folder, writer), MAGIC)


@contextlib.contextmanager
def delivering(folder: Path) -> Iterator[bool]:
    """Be the only one to deliver a run's spool; False when somebody else does."""
    with (folder / "sync.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def staged(folder: Path, digest: str) -> Path:
    """The file of a blob that lies beside the spool; it is not there when the store had the blob before."""
    letters = digest.removeprefix("b3:")
    return folder / "files" / letters[:2] / letters[2:]


def mark_delivered(folder: Path) -> None:
    """Say that a store has it all."""
    (folder / "delivered").touch()


def is_delivered(folder: Path) -> bool:
    """Does a store have it all?"""
    return (folder / "delivered").exists()


def sweep(root: Path, grace_seconds: float = GRACE_SECONDS) -> list[str]:
    """Remove spools that were delivered longer ago than the grace; returns their runs."""
    gone = []
    for folder in runs(root):
        mark = folder / "delivered"
        with contextlib.suppress(FileNotFoundError), delivering(folder) as mine:
            if mine and time.time() - mark.stat().st_mtime >= grace_seconds:
                shutil.rmtree(folder)
                gone.append(folder.name)
    return gone


def _file(folder: Path, writer: str) -> Path:
    return folder / f"{writer}.frames"
