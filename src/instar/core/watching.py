"""Told when files in a folder change, instead of looking again and again: for processes that wait, while they wait.

    watch = FolderWatch(folder)
    select.select([watch], [], [], timeout)     # readable when something was written or replaced there
    watch.clear()

Linux tells through inotify (inotify(7)); elsewhere nothing is told, and whoever waits must look by itself now and then.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

# inotify.h: a file was closed after writing, moved here, or deleted.
_CHANGES = 0x00000008 | 0x00000080 | 0x00000200


class FolderWatch:
    """One watched folder.

    Attributes:
        tells: Whether changes are told at all.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = _inotify(folder) if sys.platform == "linux" else -1
        self.tells = self._descriptor >= 0

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._descriptor

    def clear(self) -> None:
        """Forget what was told so far."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass

    def close(self) -> None:
        """Watch no longer."""
        if self.tells:
            os.close(self._descriptor)
            self.tells = False


def _inotify(folder: Path) -> int:
    """A descriptor that tells of changes; -1 where the system has none to give."""
    import ctypes

    libc = ctypes.CDLL(None)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor >= 0 and libc.inotify_add_watch(descriptor, os.fsencode(folder), _CHANGES) < 0:
        os.close(descriptor)
        return -1
    return descriptor
