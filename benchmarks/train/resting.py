"""What a server takes while nobody calls: memory (PSS, so that shared pages count once) and processor time of its whole tree."""

from __future__ import annotations

import os
import time
from pathlib import Path


def rest(pid: int, seconds: float) -> dict[str, float]:
    """Megabytes and per cent of one core of a process and all below it, over `seconds`."""
    before, began = _cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    spent, took = _cpu_seconds(pid), time.perf_counter() - began
    share = 100 * sum(spent.get(one, 0.0) - before.get(one, 0.0) for one in spent) / took
    return {"memory at rest MB": sum(_pss(one) for one in tree(pid)), "CPU at rest %": share}


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, new = {pid}, {pid}
    while new:
        new = {one for one, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def _pss(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass  # it ended meanwhile
    return 0.0


def _cpu_seconds(pid: int) -> dict[int, float]:
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            found[one] = (int(fields[11]) + int(fields[12])) / tick
        except OSError:
            continue
    return found
