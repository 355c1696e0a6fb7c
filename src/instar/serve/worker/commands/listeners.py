"""Which program listens at a port of this machine: asked when one that we started says that it is ready.

held_by(8080, group=4711)      # -> True, False, or None where the system does not tell
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_LISTENS = "0A"  # a state in /proc/net/tcp


def held_by(port: int, group: int) -> bool | None:
    """Does a process of that group listen there? None where the system does not tell, as elsewhere than on Linux."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return None
    return any(sockets & _open(process) for process in _of_group(group))


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/self/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _of_group(group: int) -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and os.getpgid(int(process.name)) == group:
                yield process
        except OSError:  # it has ended
            continue


def _open(process: Path) -> set[str]:
    found = set()
    try:
        for descriptor in (process / "fd").iterdir():
            try:
                found.add(os.readlink(descriptor))
            except OSError:
                continue
    except OSError:
        return set()
    return found
