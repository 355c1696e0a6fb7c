"""A gateway's line to one worker process: all calls in flight on one Unix socket, while that process lives.

Which processes a worker has, and what becomes of calls whose process died, is left to `worker_group.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from instar.core.errors import Damaged, InstarError, Unavailable
from instar.serve.protocol import wire

CONNECT_SECONDS = 5.0
RECONNECT_SECONDS = 0.01
LOOK_SECONDS = 2.0  # between two looks at a silent process, at most, while our own loop turns

_loaded = msgspec.msgpack.Decoder(wire.Loaded)
_log = logging.getLogger("instar.serve")


class Waiter(Protocol):
    """A call in flight, as its worker sees it."""

    def answered(self, reply: wire.Reply) -> None:
        """The worker answered."""

    def later(self, answers: bytes) -> None:
        """The worker sent what only the record hears."""

    def failed(self, worker: Any, problem: InstarError) -> None:
        """Nothing more will come from that worker."""


class Flight:
    """A call handed to a worker, with all that is needed to hand it over once more.

    Attributes:
        since: Loop time at which it came.
        messages: How many are still to come.
        deaths: Of processes while they worked on it.
    """

    __slots__ = ("ask", "deaths", "messages", "plan", "since", "waiter")

    def __init__(self, plan: int, ask: wire.Ask, waiter: Waiter, messages: int, since: float) -> None:
        self.plan = plan
        self.ask = ask
        self.waiter = waiter
        self.messages = messages
        self.since = since
        self.deaths = 0


class WorkerLine(asyncio.Protocol):
    """The line to one process.

    Args:
        number: Of the process.
        plans: Encoded plans by number; each is told to a process when a call first needs it.
        opened: Called when calls may be sent.
        closed: Called when it is over, with the calls that were not answered.
        held: Called with each bundle that the process has loaded (true) or let go.

    Attributes:
        flying: Calls without an answer, by job, in the order of their coming.
        draining: It takes no new calls, and is hung up after the last.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        socket: Path,
        plans: dict[int, bytes],
        opened: Callable[[WorkerLine], object],
        closed: Callable[[WorkerLine, list[Flight]], object],
        held: Callable[[WorkerLine, str, bool], object],
    ) -> None:
        self._loop = loop
        self.number = number
        self._socket = socket
        self._plans = plans
        self._opened, self._closed_by, self._held = opened, closed, held
        self._transport: asyncio.Transport | None = None
        self._splitter = wire.Splitter()
        self._job = 0
        self.flying: dict[int, Flight] = {}
        self._laters: dict[int, Flight] = {}
        self._loading: dict[int, asyncio.Future[str | None]] = {}
        self._told: OrderedDict[int, None] = OrderedDict()
        self.answered = 0  # calls since the last report
        self.draining = False
        self._unsent: list[bytes] = []
        self._over = False
        self._heard = True
        self._silent: float | None = None
        self._looked = 0.0
        self._connecting = loop.create_task(self._connect())

    def send(self, flight: Flight) -> None:
        """Hand a call over."""
        assert self._transport is not None
        plan = flight.plan
        if plan not in self._told:
            self._tell(plan)
        self._job = job = (self._job + 1) & 0xFFFFFFFF
        self.flying[job] = flight
        # What one turn of the loop brings leaves in one write: each wakes the worker, and costs a system call.
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(wire.encode_infer(job, plan, flight.ask))

    def _flush(self) -> None:
        unsent = self._unsent
        if unsent and self._transport is not None:
            self._transport.writelines(unsent)
        self._unsent = []

    async def load(self, bundle: str, folder: str, keep: bool) -> str | None:
        """Have a bundle ready; returns why it cannot be, or None.

        Raises:
            Unavailable: The process ended meanwhile.
        """
        assert self._transport is not None
        self._job = job = (self._job + 1) & 0xFFFFFFFF
        future: asyncio.Future[str | None] = self._loop.create_future()
        self._loading[job] = future
        self._transport.write(wire.encode_struct(wire.LOAD, job, wire.Load(bundle, folder, keep)))
        return await future

    def release(self, bundle: str) -> None:
        """Tell that a bundle which was loaded to be kept is not reserved any more."""
        if self._transport is not None:
            self._transport.write(wire.encode(wire.RELEASE, 0, bundle.encode()))

    def silence(self, now: float) -> float:
        """Seconds for which the process said nothing though calls wait; asks it whether it is there. Called now and then.

        Between two looks no more is counted than passes while this loop turns: had it stood still, an answer may lie unread.
        """
        if self._heard or not self.flying or self._loading:
            self._heard, self._silent = False, None
        passed, self._looked = min(now - self._looked, LOOK_SECONDS), now
        if self._transport is None or not self.flying:
            return 0.0
        if self._silent is None:
            self._silent = 0.0
            self._transport.write(wire.encode(wire.PING, 0, b""))
        else:
            self._silent += passed
        return self._silent

    def give_up(self, limit: float) -> list[Flight]:
        """Calls that came before `limit`: their answers are not waited for any more."""
        late = []
        for job, flight in list(self.flying.items()):
            if flight.since > limit:
                break  # in order of their coming
            late.append(self.flying.pop(job))
        return late

    def drain(self) -> None:
        """Hang up after the last answer."""
        self.draining = True
        self._hang_up_when_done()

    def close(self) -> None:
        """Hang up."""
        self._over = self.draining = True
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> None:
        deadline = self._loop.time() + CONNECT_SECONDS
        while self._loop.time() < deadline:
            with contextlib.suppress(OSError):
                await self._loop.create_unix_connection(lambda: self, str(self._socket))
                return
            await asyncio.sleep(RECONNECT_SECONDS)
        self._closed_by(self, [])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._over:
            transport.close()
        elif self.draining:
            self._hang_up_when_done()
        else:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        flying = self.flying
        self._heard = True
        try:
            for kind, job, payload in self._splitter.feed(data):
                if kind == wire.ANSWER:
                    flight = flying.pop(job, None)
                    if flight is None:
                        continue
                    self.answered += 1
                    if flight.messages > 1:
                        flight.messages -= 1
                        self._laters[job] = flight
                    flight.waiter.answered(wire.decode_answer(payload))
                elif kind == wire.LATER:
                    flight = self._laters.get(job) or flying.get(job)
                    if flight is None:
                        continue
                    flight.messages -= 1
                    if flight.messages == 0:
                        self._laters.pop(job, None)
                        if flying.pop(job, None) is not None:
                            self.answered += 1
                    flight.waiter.later(payload)
                elif kind == wire.LOADED:
                    future = self._loading.pop(job, None)
                    if future is not None and not future.done():
                        future.set_result(_loaded.decode(payload).error)
                elif kind == wire.HELD:
                    self._held(self, payload[1:].decode(), payload[:1] == b"+")
        except (Damaged, msgspec.DecodeError) as problem:
            _log.error("worker process %d: %s", self.number, problem)
            if self._transport is not None:
                self._transport.abort()
        if self.draining:
            self._hang_up_when_done()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._unsent = []
        lost = list(self.flying.values())
        self.flying.clear()
        gone = Unavailable("the process that holds the model ended", subject=f"worker process {self.number}")
        for flight in self._laters.values():
            flight.waiter.failed(None, gone)
        self._laters.clear()
        for future in self._loading.values():
            if not future.done():
                future.set_exception(gone)
                future.exception()  # one that nobody waits for keeps the loop quiet
        self._loading.clear()
        self._closed_by(self, lost)

    def _tell(self, plan: int) -> None:
        assert self._transport is not None
        self._transport.write(self._plans[plan])
        # The worker keeps as many, and lets go of them in the same order.
        self._told[plan] = None
        if len(self._told) > wire.PLANS_LIMIT:
            self._told.popitem(last=False)

    def _hang_up_when_done(self) -> None:
        if self._transport is not None and not self.flying and not self._laters and not self._loading:
            self._transport.close()
