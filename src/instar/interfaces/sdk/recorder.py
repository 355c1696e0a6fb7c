"""The live half of a run: puts records into its spool from all threads and forked children, and sees to its end.

A record is encoded and appended to a file in the calling thread, which takes some microseconds; everything that may wait is
done by the sender's thread. A forked child gets a file of its own; the sender of its parent delivers it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import threading
import time
import weakref
from pathlib import Path

from instar.core import ids
from instar.interfaces.sdk.place import Place, own_spool
from instar.interfaces.sdk.sender import Sender
from instar.train import spool
from instar.train.delivery import Waiting
from instar.train.spool import About, Writer
from instar.train.spool_records import End, Lost, Points, Record, encode

log = logging.getLogger("instar.run")

LARGEST_RECORD = 16_000_000  # bytes; a server refuses what is much larger, and nothing behind it would be delivered


class Recorder:
    """Where one process keeps what it says of one run.

    Args:
        run: The run's id.
        main: This process began the run, and ends it.
    """

    def __init__(self, place: Place, run: str, *, main: bool = True) -> None:
        self.place, self.run, self.main = place, run, main
        self.folder = place.spool / run
        self.ended = False
        self.lock = threading.RLock()  # a signal's handler may end the run in the middle of a record
        self.sender: Sender | None = None
        self._at = 0
        self._told = 0  # losses that are on the record
        self._complained: bool | None = None  # None: not since the disk was good; True: of losses
        self._writer = self._begin() if main else None
        _all.add(self)

    def _begin(self) -> Writer | None:
        """Open the spool where the run belongs, or where there is room for it; None, loudly, when there is none at all."""
        about = About(self.run, self.place.project, self.place.url, time.time())
        shared = Path(tempfile.gettempdir()) / f"instar-{os.getuid()}"
        for root in (self.place.spool, own_spool(), shared):
            try:
                if root == shared:
                    _make_ours(root)
                self.folder = spool.create(root, about)
                return Writer(self.folder, spool.MAIN)
            except OSError as error:
                log.warning("run %s: no spool can be made in %s: %s", self.run, root, error)
        log.warning("run %s is not recorded: there is no room for it anywhere", self.run)
        return None

    def send(self) -> None:
        """Begin to deliver in the background."""
        if self.main and self.sender is None and self._writer is not None:
            self.sender = Sender(self.folder, self.place, waiting=self._waiting)

    def now(self) -> int:
        """Microseconds since 1970, later than all before, so that two equal points are never taken for one."""
        with self.lock:
            self._at = max(time.time_ns() // 1000, self._at + 1)
            return self._at

    def points(self, values: dict[str, float], step: int) -> None:
        """Record values of metrics at a step, now; nothing after the run's end."""
        if not self.ended:
            self.write(Points(self.now(), step, values))

    def write(self, record: Record, *, always: bool = False) -> None:
        """Record something. A full disk is said loudly and counted; it never raises."""
        writer = self._writer or self._own()
        if writer is None:
            return
        payload = encode(record)
        if len(payload) > LARGEST_RECORD:
            self.lose(f"a record of {len(payload)} bytes: keep it as a file")
            return
        lost = writer.lost
        kept = writer.append(payload, always=always)
        if not kept and (writer.lost > lost or writer.trouble is not None):
            self._complain(writer)
        elif kept and writer.lost > self._told:
            self._tell(writer)

    def lose(self, what: str) -> None:
        """Something cannot be kept: say so loudly, and on the record."""
        log.warning("run %s loses %s", self.run, what)
        self.write(Lost(1, what), always=True)

    def end(self, state: str, error: str | None, wait_seconds: float) -> bool:
        """Record the end of the run, and wait a moment until it is delivered; returns whether it was.

        In a forked child only this process's part ends.
        """
        if self.ended:
            return True
        self.ended = True
        _all.discard(self)
        writer = self._writer
        if self.main:
            if writer is not None and writer.lost > self._told:
                self._tell(writer)
            self.write(End(state, self.now(), error), always=True)
        if writer is not None:
            writer.close()
        return self.sender.end(wait_seconds) if self.sender is not None else False

    @property
    def lost(self) -> int:
        """Records of this process that could not be kept."""
        return self._writer.lost if self._writer is not None else 0

    def _own(self) -> Writer | None:
        with self.lock:
            if self._writer is None and not self.main:
                with contextlib.suppress(OSError):
                    self._writer = Writer(self.folder, ids.new_id("part"))
            return self._writer

    def _waiting(self) -> Waiting:
        return {spool.MAIN: self._writer.unwritten()} if self._writer is not None else {}

    def _tell(self, writer: Writer) -> None:
        with self.lock:
            lost, self._told = writer.lost - self._told, writer.lost
            self._complained = None
        if not lost:  # another thread was first
            return
        writer.append(encode(Lost(lost, str(writer.trouble or "the disk of the spool was full"))), always=True)

    def _complain(self, writer: Writer) -> None:
        if self._complained != (writer.lost > 0):
            self._complained = writer.lost > 0
            log.warning(
                "run %s: the spool at %s cannot be written (%s); %s", self.run, self.folder, writer.trouble,
                "records are lost from now on, and counted" if writer.lost else "records are held in memory for now",
            )  # fmt: skip

    def _in_child(self) -> None:
        """The process was forked: locks may be held by threads that are not here, and the file is the parent's."""
        self.lock = threading.RLock()
        if self._writer is not None:
            self._writer.abandon_in_child()
        self._writer, self.sender, self.main, self._told = None, None, False, 0


def _make_ours(folder: Path) -> None:
    """A folder where everybody may write: nobody else may read it, or have made it before us for us to fill."""
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not ours")


_all: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forked() -> None:
    for recorder in list(_all):
        recorder._in_child()


os.register_at_fork(after_in_child=_forked)
