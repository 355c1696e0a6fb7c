"""What a process uses, as the system counts it: for budgets and for the bill, while it runs."""

from __future__ import annotations

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_bytes(pid: int, *, programs: bool = False) -> int:
    """Memory that is the process's own, with its share of what it shares (PSS); else what is resident; 0 when it is gone.

    Args:
        programs: With that of its child processes.
    """
    if programs:
        return memory_bytes(pid) + sum(memory_bytes(child, programs=True) for child in _children(pid))
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident_bytes(pid)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in the machine's memory; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError):
        return _asked(pid)[1]


def resident_bytes_here() -> int:
    """Memory of this very process, quick enough to ask around each load of a model."""
    return resident_bytes(os.getpid())


def cpu_seconds(pid: int, *, programs: bool = False) -> float:
    """Processor time of a process so far; 0 when it is gone.

    Args:
        programs: With that of its child processes, also of those that have ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        own = sum(map(int, fields[11 : 15 if programs else 13])) / TICK
        return own + sum(cpu_seconds(child, programs=True) for child in _children(pid)) if programs else own
    except (OSError, IndexError):
        return _asked(pid)[0]


def machine_memory_bytes() -> int:
    """Memory that processes here may have: the machine's, or the control group's where that is less."""
    total = _PAGE * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return total


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    except (OSError, ValueError):
        return []


def _asked(pid: int) -> tuple[float, int]:
    """Processor seconds and resident bytes where there is no /proc."""
    if Path("/proc/self/statm").exists():
        return 0.0, 0
    import psutil

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, int(process.memory_info().rss)
    except psutil.Error:
        return 0.0, 0
