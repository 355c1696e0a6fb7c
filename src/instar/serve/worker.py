"""A worker process: holds models and answers the calls that gateways hand it over a Unix socket, while a server is up.

    python -m instar.serve.worker --socket S [--load module:function] [--mask-key FILE]

One process holds all portable models; every other version has its own. A worker takes what is queued and never waits:
calls that came while it was busy are scored together. Answers go first, what only the record hears goes after.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
from collections import OrderedDict, deque
from pathlib import Path
from typing import cast

import msgspec

from instar.core.errors import Unavailable
from instar.serve import wire
from instar.serve.runtime import Loader, Runtime, refusal
from instar.serve.work import Job, Mask, mask_nothing_through

BATCH_CALLS = 256  # in one batch; bounds how long the first of them waits for the last
BATCH_BYTES = 4 * 1024 * 1024
LATER_CALLS = 64  # in one batch for the record alone; bounds how long an answer can wait for it
LATER_SECONDS = 0.01
LATER_LIMIT = 2048  # calls whose shadows wait; beyond it shadows go before new answers, so that memory is bounded
PLANS_LIMIT = 4096

_FORGOTTEN = refusal(Unavailable("the worker does not know this route any more", next_step="Send the request again."))

_plan = msgspec.msgpack.Decoder(wire.Plan)
_load = msgspec.msgpack.Decoder(wire.Load)


class Host:
    """What is queued in this process, and the order in which it is done.

    Calls that somebody waits for are worked as soon as what has arrived is read. What only the record hears may wait a few
    milliseconds, so that it is scored in larger batches and beside no answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, runtime: Runtime) -> None:
        self._loop = loop
        self._runtime = runtime
        self._queue: deque[tuple[Connection, int, int, bytes]] = deque()
        self._later: deque[tuple[Connection, wire.Plan, list[Job]]] = deque()
        self._later_calls = 0
        self._scheduled = False
        self._later_timer: asyncio.TimerHandle | None = None

    def connect(self) -> Connection:
        """A protocol for one gateway's connection."""
        return Connection(self)

    def put(self, connection: Connection, kind: int, job: int, payload: bytes) -> None:
        """Queue a message."""
        self._queue.append((connection, kind, job, payload))
        if not self._scheduled:
            self._scheduled = True
            # Not at once: what else has arrived is read first, and joins the batch.
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        if self._queue and self._later_calls < LATER_LIMIT:
            self._answer()
        elif self._later_calls >= LATER_LIMIT:
            self._answer_later()
        if self._queue:
            self._loop.call_soon(self._work)
            return
        self._scheduled = False
        if self._later and self._later_timer is None:
            self._later_timer = self._loop.call_later(LATER_SECONDS, self._later_due)

    def _later_due(self) -> None:
        self._later_timer = None
        if self._later:
            self._answer_later()
        if self._later:
            # Answers that came meanwhile go first: what was read is worked before this is called again.
            self._later_timer = self._loop.call_later(0, self._later_due)

    def _answer(self) -> None:
        batches: dict[tuple[int, int], tuple[Connection, wire.Plan, list[tuple[int, bytes]]]] = {}
        calls = size = 0
        queue = self._queue
        while queue and calls < BATCH_CALLS and size < BATCH_BYTES:
            connection, kind, job, payload = queue[0]
            if kind != wire.INFER and batches:
                break  # a load or a plan keeps its place among the calls around it
            queue.popleft()
            if kind == wire.LOAD:
                request = _load.decode(payload)
                loaded = wire.Loaded(request.bundle, self._runtime.load(request.bundle, request.folder))
                connection.write(wire.encode_struct(wire.LOADED, job, loaded))
                return
            if kind == wire.PLAN:
                connection.learn(_plan.decode(payload))
                continue
            number, body = wire.decode_infer(payload)
            plan = connection.plans.get(number)
            if plan is None:
                connection.write(wire.encode_answer(job, _FORGOTTEN))
                continue
            batches.setdefault((id(connection), number), (connection, plan, []))[2].append((job, body))
            calls += 1
            size += len(body)
        for connection, plan, group in batches.values():
            if connection.lost:
                continue
            messages, jobs = self._runtime.answer(plan, group)
            connection.write(b"".join(messages))
            if jobs:
                self._later.append((connection, plan, jobs))
                self._later_calls += len(jobs)

    def _answer_later(self) -> None:
        connection, plan, jobs = self._later.popleft()
        # Batches of one route that piled up are scored as one.
        while self._later and len(jobs) < LATER_CALLS and self._later[0][0] is connection and self._later[0][1] is plan:
            jobs = jobs + self._later.popleft()[2]
        self._later_calls -= len(jobs)
        if not connection.lost:
            connection.write(b"".join(self._runtime.later(plan, jobs)))


class Connection(asyncio.Protocol):
    """One gateway."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._splitter = wire.Splitter()
        self._transport: asyncio.Transport | None = None
        self.plans: OrderedDict[int, wire.Plan] = OrderedDict()
        self.lost = False

    def learn(self, plan: wire.Plan) -> None:
        """Keep a plan under its number."""
        self.plans[plan.number] = plan
        if len(self.plans) > PLANS_LIMIT:
            self.plans.popitem(last=False)

    def write(self, data: bytes) -> None:
        """Send bytes, unless the gateway is gone."""
        if data and not self.lost and self._transport is not None:
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        put = self._host.put
        for kind, job, payload in self._splitter.feed(data):
            put(self, kind, job, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def serve(socket: Path, runtime: Runtime) -> None:
    """Answer on `socket` until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host = Host(loop, runtime)
    # Bound under another name and then renamed: who finds the socket can connect, and one left by a dead worker is replaced.
    scratch = socket.with_name(f".{os.getpid() % 100000}.sock")
    scratch.unlink(missing_ok=True)
    server = await loop.create_unix_server(host.connect, str(scratch), backlog=64)
    os.chmod(scratch, 0o600)
    scratch.replace(socket)
    await stop.wait()
    server.close()


def load_function(name: str) -> Loader:
    """The loader named `module:function`."""
    module, _, function = name.partition(":")
    return cast(Loader, getattr(importlib.import_module(module), function))


def main(arguments: list[str] | None = None) -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="instar.serve.worker")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--load", default="instar.serve.loading:load")
    parser.add_argument("--mask-key", type=Path)
    options = parser.parse_args(arguments)
    mask: Mask = mask_nothing_through
    if options.mask_key is not None:
        from instar.serve.masking import keyed_mask

        mask = keyed_mask(options.mask_key.read_bytes())
    runtime = Runtime(load_function(options.load), mask)
    import uvloop

    uvloop.run(serve(options.socket, runtime))
    # What native libraries do at exit is no business of a drained worker.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
