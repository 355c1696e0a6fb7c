"""The root's workers while a server runs: begun when a call needs one, more where calls wait, ended when nobody comes.

One worker holds all portable versions; every other version has its own, forked from the warm process. A worker is a name
that routes know, and any number of processes (copies), none while it is cold. Gateways are told which copies take calls;
a copy that they are not told of any more drains by itself, so no change of number loses a call.
"""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from instar.serve.processes import measuring
from instar.serve.processes.children import YOUNG_SECONDS, Process, pause_after, reason_of
from instar.serve.processes.needs import Cannot, Ended, FromRoot, Load, Up, Usage
from instar.serve.root.condition import FAILING, WARM, Condition
from instar.serve.root.copies import Copy, Worker
from instar.serve.root.nursery import Nursery
from instar.serve.traffic import capacity, routes
from instar.serve.traffic.capacity import DEFAULT

START_SECONDS = 120.0  # in which a process must take calls, its model loaded
DYING_SECONDS = 2.0  # for a process to end whose line broke off
LEAVE_SECONDS = 10.0  # beyond a call's longest time, for its last calls; then it is killed
RETIRE_SECONDS = 60.0  # a worker that no route names stays warm, for a quick way back
MOST_DEATHS = 3  # before it took calls; then who waits is told, and no longer held
CALLS_PAUSE_SECONDS = 0.5
LOOK_SECONDS = 2.0  # between two measurements

_log = logging.getLogger("instar.serve")


@dataclass(frozen=True)
class Limits:
    """What all workers share.

    Attributes:
        memory_bytes: Of all workers together.
        worker_bytes: Of one process of a version of its own; None: no limit.
        idle_seconds: Without a call, after which a version's own process ends.
        call_seconds: A call's longest time.
        cores: Processors.
    """

    memory_bytes: int
    worker_bytes: int | None = None
    idle_seconds: float = capacity.IDLE_SECONDS
    call_seconds: float = 30.0
    cores: int = field(default_factory=measuring.cores)


class Workers:
    """All workers of a server.

    Args:
        tell: Tells all gateways.
        ended: Called with a worker's name and a process of it that has ended.
    """

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        limits: Limits,
        tell: Callable[[FromRoot], object],
        ended: Callable[[str, Process], object],
    ) -> None:
        self._folder, self._nursery, self._limits = folder, nursery, limits
        self._tell, self._ended = tell, ended
        self._workers: dict[str, Worker] = {}
        self._number = 0
        self._measured = 0.0

    # What happens to us.

    def take_up(self, snapshot: routes.Snapshot) -> None:
        """Know the workers that routes name, and let go of others after a while."""
        named, terms = snapshot.workers(), snapshot.terms()
        for name, versions in named.items():
            worker = self._workers.setdefault(name, Worker(name))
            worker.unnamed_since = None
            worker.terms = terms.get(name, DEFAULT)
            if worker.native:
                worker.digest = versions[0].bundle
                worker.environment = versions[0].environment
                worker.threads, worker.memory_bytes = versions[0].threads, versions[0].memory_bytes
                worker.bundle = str(routes.bundle_folder(self._folder, worker.digest))
                self._nursery.expect(self._arguments(worker, 0))
        for name, worker in self._workers.items():
            if name not in named and worker.unnamed_since is None:
                worker.unnamed_since = time.monotonic()

    def knows(self, name: str) -> bool:
        """Was that worker named by routes that were taken up?"""
        return name in self._workers

    def need(self, name: str) -> FromRoot | None:
        """Have a worker; returns what to answer at once, if anything."""
        worker = self._workers.get(name)
        if worker is None:
            return Cannot(name, "no route names it", 0.0)
        now = time.monotonic()
        worker.used = now
        if worker.up():
            return Up(name, worker.up())
        if worker.not_before > now and worker.deaths >= MOST_DEATHS:
            return Cannot(name, worker.reason, worker.not_before - now)
        worker.wanted = True
        return None

    def loaded(self, gateway: int, loads: dict[str, Load]) -> None:
        """A gateway said how busy workers are."""
        now = time.monotonic()
        for name, load in loads.items():
            worker = self._workers.get(name)
            if worker is not None:
                worker.loads[gateway] = (load, now)
                if load.flying or load.calls:
                    worker.used = now

    def told(self, usage: Usage) -> None:
        """A worker said what it holds, and what it could not load."""
        worker = self._workers.get(usage.worker)
        if worker is not None:
            worker.held, worker.failed = usage.held, usage.failed

    def conditions(self) -> dict[str, Condition]:
        """In what condition versions are, by bundle; those that are cold are left out."""
        found: dict[str, Condition] = {}
        for worker in self._workers.values():
            up = len(worker.up())
            size = sum(copy.bytes for copy in worker.copies.values()) if worker.native else 0
            if up:
                found.update({bundle: Condition(WARM, up * worker.native, size) for bundle in worker.held})
                found.update({bundle: Condition(FAILING, problem=why) for bundle, why in worker.failed.items()})
            elif worker.native and worker.deaths >= MOST_DEATHS:
                found[worker.digest] = Condition(FAILING, problem=worker.reason)
        return found

    def forget(self, gateway: int) -> None:
        """A gateway has gone."""
        for worker in self._workers.values():
            worker.loads.pop(gateway, None)

    def hung(self, name: str, number: int, seconds: float) -> None:
        """A gateway heard nothing of a process for so long while calls waited."""
        copy = self._copy(name, number)
        if copy is not None and copy.up and copy.process is not None:
            copy.why = f"killed, since it had answered nothing for {seconds:.0f} s"
            _log.error("worker %s: %s", name, copy.why)
            copy.process.signal(signal.SIGKILL)

    def lost(self, name: str, number: int) -> None:
        """A gateway's line to a process broke off: it takes no calls any more, though its end may not be seen yet."""
        copy = self._copy(name, number)
        if copy is not None and copy.leaving is None and copy.lost is None:
            copy.lost = time.monotonic()
            self._tell(Up(name, self._workers[name].up()))

    def alone(self, name: str, number: int) -> None:
        """A worker hung up on the process that its model lived in."""
        shim = self._nursery.shims.get(number)
        if shim is not None and shim.worker == name:
            shim.process.signal(signal.SIGKILL)

    def ready(self, name: str, number: int) -> None:
        """A process takes calls now."""
        copy = self._copy(name, number)
        if copy is None or copy.up:
            return
        worker, copy.up = self._workers[name], True
        worker.used = worker.crowded = time.monotonic()
        for old in worker.copies.values():
            if old.successor == number:
                self._leave(worker, old)
        self._tell(Up(name, worker.up()))

    def all_up(self) -> list[Up]:
        """What a gateway that came anew must know."""
        return [Up(name, worker.up()) for name, worker in self._workers.items() if worker.copies]

    def processes(self) -> list[tuple[str, Process, int]]:
        """Every process of a worker, or of its model: the worker's name, and memory as last measured."""
        copies = [(name, copy) for name, worker in self._workers.items() for copy in worker.copies.values()]
        found = [
            (name, copy.process, copy.bytes - copy.shim_bytes) for name, copy in copies if copy.process is not None
        ]
        shims = self._nursery.shims.items()
        sizes = {copy.number: copy.shim_bytes for _, copy in copies}
        return found + [(shim.worker, shim.process, sizes.get(number, 0)) for number, shim in shims]

    def pids(self) -> set[int]:
        """Processes that are waited for here."""
        return {process.pid for _, process, _ in self.processes()}

    # What we do.

    def tend(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for number, process in self._nursery.born():
            self._born(number, process)
        for worker in list(self._workers.values()):
            for copy in list(worker.copies.values()):
                self._look_at(worker, copy, now)
            self._have(worker, now)
        self._bury_shims()
        if now - self._measured > LOOK_SECONDS:
            self._measured = now
            self._measure(now)
        self._balance(now)

    def seconds_to_next(self) -> float:
        """Until something is due though nothing is told."""
        now = time.monotonic()
        due = [worker.not_before - now for worker in self._workers.values() if worker.wanted]
        due += [
            worker.used + self._idle_seconds(worker) - now
            for worker in self._workers.values()
            if worker.native and not worker.terms.reserve and worker.staying()
        ]
        return max(0.01, min([LOOK_SECONDS, *due]))

    def end(self, deadline: float) -> None:
        """End all: gateways are gone, so there are no calls."""
        processes = [process for _, process, _ in self.processes()]
        for process in processes:
            process.signal(signal.SIGTERM)
        for name, process, _ in self.processes():
            process.wait(deadline)
            self._ended(name, process)

    def _have(self, worker: Worker, now: float) -> None:
        if worker.unnamed_since is not None and now - worker.unnamed_since > RETIRE_SECONDS:
            for copy in worker.staying():
                self._leave(worker, copy)
            if not worker.copies:
                del self._workers[worker.name]
            return
        # The portable worker is always there: what it holds comes and goes inside of it.
        needed = worker.wanted or worker.terms.reserve or not worker.native
        if needed and not worker.staying() and worker.unnamed_since is None and now >= worker.not_before:
            worker.wanted = False
            self._start(worker)

    def _start(self, worker: Worker) -> Copy:
        self._number += 1
        copy = worker.copies[self._number] = Copy(self._number)
        arguments = self._arguments(worker, copy.number)
        copy.process = self._nursery.start(copy.number, arguments, forked=worker.native)
        return copy

    def _arguments(self, worker: Worker, number: int) -> list[str]:
        socket = routes.worker_socket(self._folder, number)
        arguments = ["--socket", str(socket), "--worker", worker.name, "--number", str(number)]
        arguments += ["--root", str(routes.root_socket(self._folder)), "--store", str(self._folder)]
        arguments += ["--scratch", str(routes.scratch_folder(self._folder, number))]
        if worker.native and worker.name != routes.SHADOWS:
            arguments += ["--environment", worker.environment] if worker.environment else []
            arguments += ["--threads", str(worker.threads)] if worker.threads else []
            return [*arguments, "--bundle", worker.bundle]
        return [*arguments, "--memory", str(self._limits.memory_bytes // 2)]

    def _born(self, number: int, process: Process) -> None:
        for worker in self._workers.values():
            copy = worker.copies.get(number)
            if copy is not None:
                copy.process = process
                if copy.leaving is not None:
                    process.signal(signal.SIGTERM)

    def _look_at(self, worker: Worker, copy: Copy, now: float) -> None:
        process = copy.process
        if process is not None and process.poll() is not None:
            self._gone(worker, copy, process, now)
            return
        if not copy.up and copy.leaving is None and now - copy.began > START_SECONDS:
            copy.why = f"it did not load its model within {START_SECONDS:.0f} s"
            if process is None:
                self._nursery.restart()
                worker.copies.pop(copy.number)
            else:
                process.signal(signal.SIGKILL)
        if copy.lost is not None and now - copy.lost > DYING_SECONDS and process is not None:
            copy.why = copy.why or "killed, since a gateway's line to it broke off"
            process.signal(signal.SIGKILL)
        if (
            copy.leaving is not None
            and now - copy.leaving > self._limits.call_seconds + LEAVE_SECONDS
            and process is not None
        ):
            process.signal(signal.SIGKILL)

    def _bury_shims(self) -> None:
        """End the models' processes whose workers are gone, and count what those used that have ended."""
        copies = {number for worker in self._workers.values() for number in worker.copies}
        for number, shim in list(self._nursery.shims.items()):
            if number not in copies:
                shim.process.signal(signal.SIGKILL)
            if shim.process.poll() is not None:
                del self._nursery.shims[number]
                self._ended(shim.worker, shim.process)

    def _gone(self, worker: Worker, copy: Copy, process: Process, now: float) -> None:
        del worker.copies[copy.number]
        routes.worker_socket(self._folder, copy.number).unlink(missing_ok=True)
        shutil.rmtree(routes.scratch_folder(self._folder, copy.number), ignore_errors=True)
        self._ended(worker.name, process)
        if copy.leaving is not None:
            return
        reason = copy.why or reason_of(process.code or 0)
        worker.deaths = worker.deaths + 1 if now - copy.began < YOUNG_SECONDS or not copy.up else 1
        # What ends a process that took calls is a call, and refused when it did so twice: others wait for the next one.
        pause = pause_after(worker.deaths)
        worker.not_before = now + (min(pause, CALLS_PAUSE_SECONDS) if copy.up else pause)
        worker.reason = f"its process ended {'while it took calls' if copy.up else 'before it took calls'}: {reason}"
        _log.warning("worker %s ended: %s", worker.name, reason)
        self._tell(Ended(worker.name, copy.number, reason))
        if not copy.up and not worker.staying():
            if worker.deaths >= MOST_DEATHS:
                # Who waits for it is told now, and not after a pause that grows.
                self._tell(Cannot(worker.name, worker.reason, worker.not_before - now))
                return
            worker.wanted = True
        self._tell(Up(worker.name, worker.up()))  # where there is none, who waits asks again

    def _leave(self, worker: Worker, copy: Copy) -> None:
        """Have a copy take no new calls and end after those it has."""
        if copy.leaving is None:
            copy.leaving = time.monotonic()
            self._tell(Up(worker.name, worker.up()))
            if copy.process is not None:
                copy.process.signal(signal.SIGTERM)

    def _measure(self, now: float) -> None:
        for worker in self._workers.values():
            limit = worker.memory_bytes or worker.terms.memory_bytes or self._limits.worker_bytes
            for copy in worker.staying():
                if copy.process is None:
                    continue
                copy.bytes = measuring.memory_bytes(copy.process.pid, programs=worker.native)
                shim = self._nursery.shims.get(copy.number)
                copy.shim_bytes = measuring.memory_bytes(shim.process.pid, programs=True) if shim is not None else 0
                copy.bytes += copy.shim_bytes
                if worker.native and limit and copy.up and copy.bytes > limit and copy.successor is None:
                    _log.warning(
                        "worker %s holds %d MB, more than its %d MB: it is being replaced",
                        worker.name, copy.bytes >> 20, limit >> 20,
                    )  # fmt: skip
                    copy.successor = self._start(worker).number
        standings = [worker.standing(now) for worker in self._workers.values()]
        for name in capacity.to_give_up(standings, self._limits.memory_bytes):
            _log.info("worker %s makes room: it was used longest ago", name)
            self._rest(self._workers[name])

    def _balance(self, now: float) -> None:
        standings = {name: worker.standing(now) for name, worker in self._workers.items() if worker.copies}
        busy = sum(min(one.flying, one.copies) for one in standings.values())
        for name, one in standings.items():
            worker = self._workers[name]
            if one.flying >= one.copies:
                worker.crowded = now
            most = worker.terms.most or self._limits.cores
            coming = any(not copy.up for copy in worker.copies.values())
            if not coming and capacity.wants_more(one, busy, self._limits.cores, most):
                _log.info("worker %s gets another process: calls wait %d ms", name, one.oldest_seconds * 1000)
                self._start(worker)
                busy += 1
            elif one.copies > 1 and not coming and now - worker.crowded > capacity.QUIET_SECONDS:
                worker.crowded = now
                self._leave(worker, worker.staying()[-1])
            idle = now - worker.used > self._idle_seconds(worker)
            if worker.native and not worker.terms.reserve and not one.flying and idle:
                self._rest(worker)

    def _idle_seconds(self, worker: Worker) -> float:
        return worker.terms.idle_seconds or self._limits.idle_seconds

    def _rest(self, worker: Worker) -> None:
        for copy in worker.staying():
            self._leave(worker, copy)

    def _copy(self, name: str, number: int) -> Copy | None:
        worker = self._workers.get(name)
        return None if worker is None else worker.copies.get(number)
