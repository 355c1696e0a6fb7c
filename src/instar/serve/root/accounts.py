"""The root's account of what a running server uses: processor time and memory of each process, by version where it has one.

A version's own process is its cost. In the process that holds all portable models, a version's cost is what was measured
around its scoring and the memory it holds; the rest of that process, gateways, the control process and the warm process
are lines of their own, so that the sum is what the server used. Every few seconds, and at the end, the account is written as
one file, which the control side takes into the store (`costs.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from instar.serve.processes import measuring
from instar.serve.processes.children import Process
from instar.serve.processes.needs import Used
from instar.serve.traffic import routes
from instar.serve.traffic.routes import Snapshot, replace_file, serve_folder

WRITE_SECONDS = 10.0
GB = 1e9

VERSION = "version"


class Line(msgspec.Struct):
    """What was used since the last account.

    Attributes:
        what: `version`, or which process of the server it is that serves all.
        byte_seconds: Memory held, over time.
        busy_seconds: Wall time of scoring.
        starts: Times that the version was loaded, or the process began.
    """

    what: str
    endpoint: str = ""
    version: int = 0
    bundle: str = ""
    calls: int = 0
    rows: int = 0
    cpu_seconds: float = 0.0
    byte_seconds: float = 0.0
    busy_seconds: float = 0.0
    starts: int = 0


class Account(msgspec.Struct):
    """One file: from when until when (microseconds since 1970), and the lines."""

    since: int
    until: int
    lines: list[Line]


class _Whole:
    """A worker, a gateway or another process, in all."""

    __slots__ = ("byte_seconds", "cpu_seconds")

    def __init__(self) -> None:
        self.cpu_seconds = self.byte_seconds = 0.0


class Accounts:
    """What is used, as it grows.

    Args:
        folder: Of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since = time.time_ns() // 1000
        self._due = time.monotonic() + WRITE_SECONDS
        self._cpu: dict[int, float] = {}
        self._at: dict[int, float] = {}
        self._wholes: dict[str, _Whole] = {}
        self._versions: dict[str, dict[tuple[str, int, str], Line]] = {}
        self._routed: dict[str, tuple[str, int, str]] = {}

    def take_up(self, snapshot: Snapshot) -> None:
        """Know which version a worker is there for, though it may never be asked."""
        for name, route in snapshot.endpoints.items():
            for number, version in route.versions.items():
                if version.worker != routes.PORTABLE:
                    self._routed.setdefault(version.worker, (name, number, version.bundle))

    def used(self, worker: str, versions: Iterable[Used]) -> None:
        """A worker said what its versions used."""
        lines = self._versions.setdefault(worker, {})
        for one in versions:
            key = (one.endpoint, one.version, one.bundle)
            line = lines.setdefault(key, Line(VERSION, *key))
            line.calls += one.calls
            line.rows += one.rows
            line.cpu_seconds += one.cpu_ns / 1e9
            line.busy_seconds += one.busy_ns / 1e9
            line.byte_seconds += one.byte_seconds
            line.starts += one.loads

    def measured(self, processes: Sequence[tuple[str, int, int]]) -> None:
        """Look at processes: name, number, and memory if it was measured already."""
        now = time.monotonic()
        for name, pid, size in processes:
            whole = self._wholes.setdefault(name, _Whole())
            programs = name.startswith(routes.NATIVE)
            cpu = measuring.cpu_seconds(pid, programs=programs)
            whole.cpu_seconds += max(0.0, cpu - self._cpu.get(pid, 0.0))
            whole.byte_seconds += (size or measuring.memory_bytes(pid, programs=programs)) * (
                now - self._at.get(pid, now)
            )
            self._cpu[pid], self._at[pid] = max(cpu, self._cpu.get(pid, 0.0)), now

    def ended(self, name: str, process: Process) -> None:
        """A process has ended, and the system says what it used in all."""
        whole = self._wholes.setdefault(name, _Whole())
        whole.cpu_seconds += max(0.0, process.cpu_seconds - self._cpu.pop(process.pid, 0.0))
        self._at.pop(process.pid, None)

    def write_if_due(self) -> None:
        """Write the account when it is time."""
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the account since the last one.

        Raises:
            OSError: It cannot be written now; what was used is kept for the next.
        """
        self._due = time.monotonic() + WRITE_SECONDS
        now = time.time_ns()
        account = Account(self._since, now // 1000, lines_of(self._wholes, self._versions, self._routed))
        if account.lines:
            replace_file(usage_folder(self._folder) / f"{now:020d}.{os.getpid()}.json", msgspec.json.encode(account))
        self._since, self._wholes, self._versions = now // 1000, {}, {}


def usage_folder(store_folder: Path) -> Path:
    """Where accounts lie until they are in the store."""
    return serve_folder(store_folder) / "usage"


def lines_of(
    wholes: Mapping[str, _Whole],
    versions: Mapping[str, Mapping[tuple[str, int, str], Line]],
    routed: Mapping[str, tuple[str, int, str]],
) -> list[Line]:
    """The lines whose sum is what all processes used."""
    lines = []
    for name, whole in wholes.items():
        mine = list(versions.get(name, {}).values())
        if name == routes.PORTABLE:
            cpu = whole.cpu_seconds - sum(line.cpu_seconds for line in mine)
            memory = whole.byte_seconds - sum(line.byte_seconds for line in mine)
            lines += [*mine, Line("portable worker", cpu_seconds=max(0.0, cpu), byte_seconds=max(0.0, memory))]
        elif mine or name in routed:
            lines += _shared(whole, mine or [Line(VERSION, *routed[name])])
        else:
            lines.append(Line(name, cpu_seconds=whole.cpu_seconds, byte_seconds=whole.byte_seconds))
    for name, mine_by_key in versions.items():
        if name not in wholes:
            lines += mine_by_key.values()
    return lines


def _shared(whole: _Whole, lines: list[Line]) -> list[Line]:
    """A process of its own is its version's cost, shared by what was measured where several endpoints ask it."""
    total = sum(line.cpu_seconds for line in lines)
    for line in lines:
        share = line.cpu_seconds / total if total else 1 / len(lines)
        line.cpu_seconds, line.byte_seconds = whole.cpu_seconds * share, whole.byte_seconds * share
    return lines
