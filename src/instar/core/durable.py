"""Files that survive a power failure, whole or not at all: a file that was synced is found again only if its folder was, too."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: after a file was made in it, renamed within it, or removed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o666) -> None:
    """Write a file so that readers see the old or the new content, never a part.

    Args:
        durable: The content is on the disk before the name says so.
        mode: Of the new file, as far as the process's mask allows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:  # a full disk gets back what little was taken of it
        scratch.unlink(missing_ok=True)
        raise
