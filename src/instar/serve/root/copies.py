"""A worker as the root knows it while a server runs: a name among routes, and the processes that stand for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from instar.serve.processes.children import Process
from instar.serve.processes.needs import Load
from instar.serve.traffic import routes
from instar.serve.traffic.capacity import DEFAULT, Standing, Terms

LOADS_SECONDS = 1.0  # for which a gateway's word on its calls holds


@dataclass
class Copy:
    """One process of a worker."""

    number: int
    process: Process | None = None  # None: it was asked of the warm process, which has not answered yet
    began: float = field(default_factory=time.monotonic)
    up: bool = False
    leaving: float | None = None
    lost: float | None = None  # a gateway's line to it broke off
    successor: int | None = None  # the copy that takes its place when it is up
    bytes: int = 0
    shim_bytes: int = 0  # of them, of the process that its model lives in
    why: str = ""  # it was ended


@dataclass
class Worker:
    """One worker that routes name, or named a while ago."""

    name: str
    terms: Terms = DEFAULT
    bundle: str = ""  # folder of the one that it is there for
    digest: str = ""
    environment: str = ""  # of its own that it runs in
    threads: int | None = None  # processors at most, by the version's own word
    memory_bytes: int | None = None
    copies: dict[int, Copy] = field(default_factory=dict)
    unnamed_since: float | None = None
    used: float = field(default_factory=time.monotonic)
    crowded: float = field(default_factory=time.monotonic)  # it last had use for all its copies
    deaths: int = 0
    not_before: float = 0.0
    reason: str = ""
    wanted: bool = False
    loads: dict[int, tuple[Load, float]] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def native(self) -> bool:
        return self.name != routes.PORTABLE

    def staying(self) -> list[Copy]:
        return [copy for copy in self.copies.values() if copy.leaving is None and copy.lost is None]

    def up(self) -> tuple[int, ...]:
        return tuple(copy.number for copy in self.staying() if copy.up)

    def standing(self, now: float) -> Standing:
        loads = [load for load, at in self.loads.values() if now - at < LOADS_SECONDS]
        oldest = max((load.oldest_ms / 1000 for load in loads), default=0.0)
        kept = self.terms.reserve or not self.native
        size = sum(copy.bytes for copy in self.copies.values())
        return Standing(
            self.name, len(self.staying()), sum(load.flying for load in loads), oldest, self.used, size, kept
        )
