"""Processes of this machine, asked for when something bears the name of one: does it still live, and is it the same?"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def host() -> str:
    """This machine since its last start: after a restart all its former processes are dead."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}".strip()


def born(pid: int) -> str:
    """When a process of this machine began, as text to compare; empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *rest = stat.rpartition(")")[2].split()
        return "" if state in ("Z", "X") else rest[18]  # field 22 of proc(5): clock ticks after boot
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except (OSError, IndexError):
        pass
    try:  # no /proc: being alive is all that can be known
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
