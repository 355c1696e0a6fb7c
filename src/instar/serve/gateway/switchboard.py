"""A gateway's routes at work: endpoints with their plans and workers, swapped whole when a snapshot has come.

A version that becomes routed is loaded once before its snapshot takes effect; until then, and for good when the
version that should answer cannot be loaded, the one before answers. So a hot swap never meets a version that does not load.
What was routed before this process began is loaded by the first call that needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from instar.core import telemetry
from instar.core.errors import Damaged
from instar.core.settings import Settings
from instar.core.watching import FolderWatch
from instar.serve.gateway.root_line import RootLine
from instar.serve.gateway.ways import Builder, Endpoint
from instar.serve.gateway.worker_group import WorkerGroup
from instar.serve.log import record
from instar.serve.processes.needs import FromRoot, Loads, Up
from instar.serve.protocol.signature import Signature
from instar.serve.traffic import leases
from instar.serve.traffic.routes import (
    EMPTY,
    EndpointRoute,
    Reading,
    Snapshot,
    bundle_folder,
    read_snapshot,
    root_socket,
    routes_file,
    serve_folder,
    worker_socket,
)

LOAD_SECONDS = 60.0  # a version's proof: its worker begun and its model loaded, in all
PROOFS = 4  # at once, so that a thousand new versions leave room for calls
REPORT_SECONDS = 0.1  # between two words to the root on how busy workers are
LOOK_SECONDS = 1.0  # between two looks, when nothing told that the routes changed
BLIND_LOOK_SECONDS = 0.02  # where the system tells of no changed files
# Beyond a call's longest time, for which a worker that no route names stays known: its shadows.
LINE_GRACE_SECONDS = 5.0

_log = logging.getLogger("instar.serve")


_lapsed = telemetry.gauge(
    "instar_canary_lapsed", "1 while a canary's lease has lapsed and the champion answers alone", ("endpoint",)
)


@dataclass(frozen=True)
class _Leased:
    """An endpoint with its canary, and the loop time until which the canary has its share."""

    endpoint: Endpoint
    until: float


@dataclass
class Switchboard:
    """Endpoints by name, and what keeps them current.

    Args:
        acknowledge: Called with a snapshot's number, the versions that failed to load, and why it was refused, if it was.
    """

    loop: asyncio.AbstractEventLoop
    store_folder: Path
    acknowledge: Callable[[int, dict[str, str], str | None], None]
    limits: Settings = field(default_factory=Settings)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    snapshot: Snapshot = EMPTY
    _groups: dict[str, WorkerGroup] = field(default_factory=dict)
    _unused: dict[str, float] = field(default_factory=dict)
    _schemas: dict[tuple[str, str], record.Schema] = field(default_factory=dict)
    _failed: dict[str, str] = field(default_factory=dict)
    _reading: Reading = field(default_factory=Reading)
    _plan_number: int = 0
    _seen: tuple[int, int] = (0, 0)
    _leases_seen: tuple[int, int] = (0, 0)
    _leased: dict[str, _Leased] = field(default_factory=dict)
    _refused: int = 0
    _unsaid: tuple[int, dict[str, str], str | None] | None = None

    def __post_init__(self) -> None:
        self._root = RootLine(self.loop, root_socket(self.store_folder), self._heard, self._ask_again)
        self._reporting = self.loop.call_later(REPORT_SECONDS, self._report)
        self._proofs = asyncio.Semaphore(PROOFS)

    async def watch(self) -> None:
        """Take up each snapshot as it is published, for ever."""
        folder = serve_folder(self.store_folder)
        folder.mkdir(parents=True, exist_ok=True)
        watch, changed = FolderWatch(folder), asyncio.Event()

        def told() -> None:
            watch.clear()
            changed.set()

        if watch.tells:
            self.loop.add_reader(watch.fileno(), told)
        try:
            while True:
                changed.clear()
                try:
                    await self.look()
                except (Damaged, OSError) as problem:  # or a disk that is full or away: it is tried again
                    _log.error("routes are not taken up, or not acknowledged: %s", problem)
                self._tidy()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), LOOK_SECONDS if watch.tells else BLIND_LOOK_SECONDS)
        finally:
            if watch.tells:
                self.loop.remove_reader(watch.fileno())
            watch.close()

    async def look(self) -> None:
        """Take up the snapshot on disk if it is another than the one in use, and what was said of canaries since."""
        if self._unsaid is not None:
            self._say(*self._unsaid)
        mark = _mark(routes_file(self.store_folder))
        if mark is not None and mark != self._seen:
            snapshot = read_snapshot(self.store_folder, self._reading)
            self._seen = mark
            if snapshot.number not in (self.snapshot.number, self._refused):
                await self._take_up(snapshot)
        mark = _mark(leases.leases_file(self.store_folder))
        if mark is not None and mark != self._leases_seen:
            self._leases_seen = mark
            self._renew()

    def ready(self) -> bool:
        """Can all endpoints that have a champion answer? One whose worker is cold can: a call begins it."""
        return all(
            endpoint.champion is None or endpoint.champion.first.line.problem is None
            for endpoint in self.endpoints.values()
        )

    def sweep(self) -> None:
        """Give up calls that took too long, processes that say nothing, and shares of canaries that nobody watches."""
        for group in self._groups.values():
            group.sweep()
        self._lapse()

    def close(self) -> None:
        """Hang up all lines."""
        self._reporting.cancel()
        self._root.close()
        for group in self._groups.values():
            group.close()

    def _heard(self, message: FromRoot) -> None:
        group = self._groups.get(message.worker)
        if group is not None:
            group.told(message)

    def _ask_again(self) -> None:
        for group in self._groups.values():
            group.ask_again()

    def _report(self) -> None:
        """Tell the root how busy workers are."""
        now = self.loop.time()
        loads = {name: load for name, group in self._groups.items() if (load := group.load_now(now)) is not None}
        if loads:
            self._root.tell(Loads(loads))
        self._reporting = self.loop.call_later(REPORT_SECONDS, self._report)

    async def _take_up(self, snapshot: Snapshot) -> None:
        failed = await self._prove(snapshot)
        # What answered until now is worth more than a newer policy which cannot answer.
        for name, route in snapshot.endpoints.items():
            known, champion = self.endpoints.get(name), route.policy.champion
            reason = failed.get(f"{name}@{champion}")
            if reason is not None and known is not None and known.champion is not None:
                self._refused = snapshot.number
                _log.error("route snapshot %d refused: version %s of %s: %s", snapshot.number, champion, name, reason)
                self._say(snapshot.number, failed, f"version {champion} of {name} does not load: {reason}")
                return
        before = self.snapshot.endpoints
        self.endpoints = {
            # Most endpoints stay as they were when one of a thousand changes.
            name: self._whole(name)
            if (route is before.get(name) or route == before.get(name)) and not self._differs(name, route, failed)
            else self._endpoint(name, route, failed)
            for name, route in snapshot.endpoints.items()
        }
        self.snapshot, self._failed = snapshot, failed
        for name in self._leased:
            _lapsed.labels(name).set(0)
        self._leased = {}
        self._renew()
        self._forget()
        for what, reason in failed.items():
            _log.error("route snapshot %d: version %s does not load: %s", snapshot.number, what, reason)
        self._say(snapshot.number, failed, None)

    def _say(self, number: int, failed: dict[str, str], error: str | None) -> None:
        """Acknowledge a snapshot, now or when there is room to."""
        self._unsaid = number, failed, error
        self.acknowledge(number, failed, error)
        self._unsaid = None

    def _whole(self, name: str) -> Endpoint:
        """An endpoint with its canary, watched or not."""
        leased = self._leased.get(name)
        return self.endpoints[name] if leased is None else leased.endpoint

    def _renew(self) -> None:
        """Work out until when each canary has its share."""
        try:
            known = leases.read_leases(self.store_folder)
        except Damaged as problem:
            _log.error("%s", problem)
            return
        now, wall, leased = self.loop.time(), time.time_ns() // 1000, {}
        for name, endpoint in self.endpoints.items():
            policy = endpoint.policy
            if policy.canary is None or endpoint.lapsed is None:
                continue
            whole = self._whole(name)
            until = now + leases.remaining(known.get(name), policy.number, policy.canary.lease, wall)
            leased[name] = _Leased(whole, until)
            if until > now and endpoint is not whole:
                _log.warning("endpoint %s: its canary is watched again and has its share", name)
                self.endpoints[name] = whole
        self._leased = leased
        self._lapse()

    def _lapse(self) -> None:
        now = self.loop.time()
        for name, leased in self._leased.items():
            over = leased.until <= now
            _lapsed.labels(name).set(over)
            if over and self.endpoints[name] is leased.endpoint:
                _log.error("endpoint %s: nobody watches its canary any more; the champion answers alone", name)
                self.endpoints[name] = leased.endpoint.without_canary()

    def _differs(self, name: str, route: EndpointRoute, failed: dict[str, str]) -> bool:
        return any((f"{name}@{number}" in failed) != (f"{name}@{number}" in self._failed) for number in route.versions)

    async def _prove(self, snapshot: Snapshot) -> dict[str, str]:
        """Load what was not routed before, and what is reserved; returns reasons of versions that do not load."""
        routed = {(v.worker, v.bundle) for route in self.snapshot.endpoints.values() for v in route.held}
        bundles: dict[tuple[str, str], list[str]] = {}
        kept: set[tuple[str, str]] = set()
        for name, route in snapshot.endpoints.items():
            for version in route.held:
                bundles.setdefault((version.worker, version.bundle), []).append(f"{name}@{version.version}")
                if route.reserves(version):
                    kept.add((version.worker, version.bundle))
        for worker, group in self._groups.items():
            group.keep_only({bundle for named, bundle in kept if named == worker})

        async def ask(worker: str, bundle: str) -> tuple[list[str], str | None]:
            names, group, keep = bundles[worker, bundle], self.group(worker), (worker, bundle) in kept
            failing = next((self._failed[name] for name in names if name in self._failed), None)
            new = self.snapshot.number > 0 and (worker, bundle) not in routed
            if not new and failing is None and (not keep or bundle in group.kept):
                return [], None  # it was loaded before, or is by the first call that needs it
            async with self._proofs:
                folder = str(bundle_folder(self.store_folder, bundle))
                return names, await group.load(bundle, folder, LOAD_SECONDS, keep=keep)

        answers = await asyncio.gather(*(ask(worker, bundle) for worker, bundle in bundles))
        return {what: reason for names, reason in answers if reason is not None for what in names}

    def group(self, worker: str) -> WorkerGroup:
        """A worker by name."""
        self._unused.pop(worker, None)
        group = self._groups.get(worker)
        if group is None:
            group = self._groups[worker] = WorkerGroup(
                self.loop, worker, lambda number: worker_socket(self.store_folder, number), self._root.tell,
                self.limits.hang_seconds, self.limits.call_seconds,
            )  # fmt: skip
            if worker in self._root.copies:
                group.told(Up(worker, self._root.copies[worker]))
        return group

    def _endpoint(self, name: str, route: EndpointRoute, failed: dict[str, str]) -> Endpoint:
        usable = {number for number in route.versions if f"{name}@{number}" not in failed}
        return Builder(self, name, route, usable, self._schema(name, route.signature)).endpoint()

    def next_plan(self) -> int:
        """A number for a plan."""
        self._plan_number += 1
        return self._plan_number

    def _schema(self, endpoint: str, signature: Signature) -> record.Schema:
        key = (endpoint, signature.digest)
        if key not in self._schemas:
            self._schemas[key] = record.Schema(
                len(self._schemas),
                tuple((c.name, c.datatype, c.personal) for c in signature.columns),
                tuple((t.name, t.datatype, t.shape, t.personal) for t in signature.tensors),
                tuple((t.name, t.datatype, t.shape) for t in signature.outputs),
                signature.rows,
            )
        return self._schemas[key]

    def _forget(self) -> None:
        named = self.snapshot.workers()
        plans: set[int] = set()
        for endpoint in self.endpoints.values():
            for way in endpoint.all_ways():
                legs = (way.first, *way.others, *(leg for _, _, leg in way.sampled))
                plans.update(leg.plan for leg in legs)
        terms = self.snapshot.terms()
        for worker, group in self._groups.items():
            group.forget(plans)
            group.retry = terms[worker].retry if worker in terms else True
            if worker not in named:
                self._unused.setdefault(worker, self.loop.time())

    def _tidy(self) -> None:
        limit = self.loop.time() - self.limits.call_seconds - LINE_GRACE_SECONDS
        for worker, since in list(self._unused.items()):
            if since < limit:
                del self._unused[worker]
                self._groups.pop(worker).close()


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
