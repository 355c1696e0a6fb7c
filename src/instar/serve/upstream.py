"""A gateway's line to one worker process: all calls in flight on one Unix socket, found again when the worker was replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from instar.core.errors import Damaged, InstarError, Unavailable
from instar.serve import wire

CALL_SECONDS = 30.0  # after which a call to a worker is given up
RECONNECT_SECONDS = 0.02

_loaded = msgspec.msgpack.Decoder(wire.Loaded)
_log = logging.getLogger("instar.serve")


class Waiter(Protocol):
    """A call in flight, as its line sees it."""

    def answered(self, reply: wire.Reply) -> None:
        """The worker answered."""

    def later(self, answers: bytes) -> None:
        """The worker sent what only the record hears."""

    def failed(self, line: WorkerLine, problem: InstarError) -> None:
        """Nothing more will come over that line."""


class WorkerLine(asyncio.Protocol):
    """The line. `ready` is set while calls may be sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: str, socket: Path) -> None:
        self._loop = loop
        self.worker = worker
        self._socket = socket
        self._transport: asyncio.Transport | None = None
        self._splitter = wire.Splitter()
        self._job = 0
        self._flying: dict[int, tuple[Waiter, int, float]] = {}
        self._loading: dict[int, asyncio.Future[str | None]] = {}
        self._loads: dict[str, str] = {}
        self._plans: dict[int, bytes] = {}
        self.ready = asyncio.Event()
        self._closed = False
        self._connecting = loop.create_task(self._connect())

    # What a gateway asks.

    async def load(self, bundle: str, folder: str, timeout: float) -> str | None:
        """Have a bundle ready in the worker; returns why it cannot be, or None. A worker that comes anew loads it again."""
        try:
            async with asyncio.timeout(timeout):
                await self.ready.wait()
                reason = await self._send_load(bundle, folder)
        except TimeoutError:
            return f"worker {self.worker} was not ready in {timeout:g} s: see the server's log"
        except Unavailable as problem:
            return str(problem)
        if reason is None:
            self._loads[bundle] = folder
        return reason

    def plan(self, plan: wire.Plan) -> None:
        """Tell the worker a plan; told again to a worker that comes anew."""
        message = wire.encode_struct(wire.PLAN, 0, plan)
        self._plans[plan.number] = message
        if self._transport is not None:
            self._transport.write(message)

    def forget(self, plans: set[int], bundles: set[str]) -> None:
        """Keep only these for a worker that comes anew."""
        self._plans = {number: message for number, message in self._plans.items() if number in plans}
        self._loads = {bundle: folder for bundle, folder in self._loads.items() if bundle in bundles}

    def send(self, plan: int, body: bytes, waiter: Waiter, messages: int) -> bool:
        """Hand a call over; `waiter` hears of it `messages` times. False when the worker is not there."""
        transport = self._transport
        if transport is None or not self.ready.is_set():
            return False
        self._job = job = (self._job + 1) & 0xFFFFFFFF
        self._flying[job] = (waiter, messages, self._loop.time())
        transport.write(wire.encode_infer(job, plan, body))
        return True

    def sweep(self) -> None:
        """Give up calls that took too long. Called now and then."""
        limit = self._loop.time() - CALL_SECONDS
        for job, (waiter, _, since) in list(self._flying.items()):
            if since > limit:
                break  # in order of their coming
            del self._flying[job]
            waiter.failed(self, self._gone(f"did not answer within {CALL_SECONDS:g} s"))

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.close()

    # The line itself.

    async def _connect(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError):
                await self._loop.create_unix_connection(lambda: self, str(self._socket))
                return
            await asyncio.sleep(RECONNECT_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._splitter = wire.Splitter()
        # A worker works its messages in order: what it must know goes first, and calls may follow at once.
        for bundle, folder in self._loads.items():
            self._send_load(bundle, folder)
        for message in self._plans.values():
            self._transport.write(message)
        self.ready.set()

    def data_received(self, data: bytes) -> None:
        flying = self._flying
        try:
            for kind, job, payload in self._splitter.feed(data):
                if kind == wire.LOADED:
                    future = self._loading.pop(job, None)
                    loaded = _loaded.decode(payload)
                    if future is not None and not future.done():
                        future.set_result(loaded.error)
                    continue
                entry = flying.get(job)
                if entry is None:
                    continue
                waiter, messages, since = entry
                if messages == 1:
                    del flying[job]
                else:
                    flying[job] = (waiter, messages - 1, since)
                if kind == wire.ANSWER:
                    waiter.answered(wire.decode_answer(payload))
                else:
                    waiter.later(payload)
        except (Damaged, msgspec.DecodeError) as problem:
            _log.error("worker %s: %s", self.worker, problem)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ready.clear()
        self._transport = None
        flying, self._flying = self._flying, {}
        for waiter, _, _ in flying.values():
            waiter.failed(self, self._gone("ended while it worked on this call"))
        loading, self._loading = self._loading, {}
        for future in loading.values():
            if not future.done():
                future.set_exception(self._gone("ended while it loaded the model"))
        if not self._closed:
            _log.warning("worker %s is gone; %d calls failed", self.worker, len(flying))
            self._connecting = self._loop.create_task(self._connect())

    def _send_load(self, bundle: str, folder: str) -> asyncio.Future[str | None]:
        assert self._transport is not None
        self._job = job = (self._job + 1) & 0xFFFFFFFF
        future: asyncio.Future[str | None] = self._loop.create_future()
        future.add_done_callback(_seen)
        self._loading[job] = future
        self._transport.write(wire.encode_struct(wire.LOAD, job, wire.Load(bundle, folder)))
        return future

    def _gone(self, what: str) -> Unavailable:
        return Unavailable(
            f"the process that holds the model {what}",
            subject=f"worker {self.worker}",
            next_step="Send the request again; the worker is being replaced.",
        )


def _seen(future: asyncio.Future[Any]) -> None:
    # A load that nobody waits for (after a reconnect) may fail; reading the exception keeps the loop quiet about it.
    if not future.cancelled():
        future.exception()
