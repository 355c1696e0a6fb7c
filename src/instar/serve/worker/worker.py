"""A worker process: holds models and answers the calls that gateways hand it over a Unix socket, while a server is up.

    python -m instar.serve.worker.worker --socket S [--load module:function] [--mask-key FILE] [--bundle FOLDER]

One process holds all portable models; every other version has its own. A worker takes what is queued and never waits:
calls that came while it was busy are scored together. Answers go first, what only the record hears goes after. Told to
end, it takes no new lines and ends with the last one that gateways still hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from collections import OrderedDict, deque
from pathlib import Path
from socket import AF_UNIX
from socket import socket as Socket
from typing import cast

import msgspec

from instar.core.errors import StepFailed, Unavailable
from instar.core.settings import read_settings
from instar.serve.log import record
from instar.serve.log.masking import Mask, mask_nothing_through
from instar.serve.processes import fence, needs, threads
from instar.serve.processes.leftovers import MARK
from instar.serve.processes.zygote import call_process
from instar.serve.protocol import codings, v2_json, wire
from instar.serve.traffic.routes import bundle_of, bundles_folder
from instar.serve.worker.loading import EnvironmentLoader, import_runtimes
from instar.serve.worker.runtime import Loader, Runtime, refusal
from instar.serve.worker.turns import Turns
from instar.serve.worker.work import Job, describe

BATCH_CALLS = 256  # in one batch; bounds how long the first of them waits for the last
TURN_CALLS = 64  # the same while calls of other endpoints wait for their turn
BATCH_BYTES = 4 * 1024 * 1024
LATER_CALLS = 64  # in one batch for the record alone; bounds how long an answer can wait for it
LATER_SECONDS = 0.01
LATER_LIMIT = 2048  # calls whose shadows wait; beyond it shadows go before new answers, so that memory is bounded
BACKLOG = 64
ACCOUNT_SECONDS = 2.0  # between two words to the root on what versions used
LEAVE_SECONDS = 5.0  # beyond a call's longest time, for gateways to hang up, once it was told to end
# Lists of a batch are many, live for a moment and form no rings: Python need not look through them while they are in use.
GARBAGE = (5_000, 10, 10)

_FORGOTTEN = refusal(Unavailable("the worker does not know this route any more", next_step="Send the request again."))

_log = logging.getLogger("instar.serve")
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
        self._loads: deque[tuple[Connection, int, wire.Load]] = deque()
        self._calls: Turns[tuple[Connection, wire.Plan, int, wire.Ask]] = Turns(BATCH_CALLS, TURN_CALLS, BATCH_BYTES)
        self._later: deque[tuple[Connection, wire.Plan, list[Job]]] = deque()
        self._later_calls = 0
        self._scheduled = False
        self._later_timer: asyncio.TimerHandle | None = None
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        runtime.models.changed = self._held

    def connect(self) -> Connection:
        """A protocol for one gateway's connection."""
        return Connection(self)

    def _held(self, bundle: str, held: bool) -> None:
        for connection in self.connections:
            connection.write(wire.encode_held(bundle, held))

    def all_held(self) -> bytes:
        """What a gateway that came anew is told of what is loaded."""
        return b"".join(wire.encode_held(bundle, True) for bundle in self._runtime.models)

    def put(self, connection: Connection, kind: int, job: int, payload: bytes) -> None:
        """Queue a message."""
        if kind == wire.PLAN:
            connection.learn(_plan.decode(payload))
            return
        if kind == wire.RELEASE:
            self._runtime.models.release(payload.decode())
            return
        if kind == wire.LOAD:
            self._loads.append((connection, job, _load.decode(payload)))
        else:
            number, ask = wire.decode_infer(payload)
            plan = connection.plans.get(number)
            if plan is None:
                connection.write(wire.encode_answer(job, _FORGOTTEN))
                return
            self._calls.put(plan.endpoint, (connection, plan, job, ask), _weight(ask))
        if not self._scheduled:
            self._scheduled = True
            # Not at once: what else has arrived is read first, and joins the batch.
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        if self._later_calls >= LATER_LIMIT:
            self._answer_later()
        else:
            self._answer()
        if self._calls or self._loads:
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
        """Load one model that is to be had ready, and work one turn of calls."""
        if self._loads:
            connection, job, load = self._loads.popleft()
            loaded = wire.Loaded(load.bundle, self._runtime.load(load.bundle, load.folder, load.keep))
            connection.write(wire.encode_struct(wire.LOADED, job, loaded))
        batches: dict[tuple[int, int], tuple[Connection, wire.Plan, list[tuple[int, wire.Ask]]]] = {}
        for connection, plan, job, ask in self._calls.take():
            batches.setdefault((id(connection), plan.number), (connection, plan, []))[2].append((job, ask))
        for connection, plan, group in batches.values():
            if connection.lost:
                continue
            messages, jobs = self._answers(plan, group)
            connection.write(b"".join(messages))
            if jobs:
                self._later.append((connection, plan, jobs))
                self._later_calls += len(jobs)

    def _answers(self, plan: wire.Plan, group: list[tuple[int, wire.Ask]]) -> tuple[list[bytes], list[Job]]:
        """Answers of calls of one route. Should we fail on one of them, it alone hears so, and the rest go on."""
        try:
            return self._runtime.answer(plan, group)
        except Exception as problem:
            if len(group) > 1:
                apart = [self._answers(plan, [one]) for one in group]
                return [message for messages, _ in apart for message in messages], [
                    job for _, jobs in apart for job in jobs
                ]
            _log.exception("a call of endpoint %s could not be worked", plan.endpoint)
            ((job, ask),) = group
            said = refusal(StepFailed("the worker failed on this request", found=describe(problem)), ask.form)
            messages = [wire.encode_answer(job, said)] if plan.first else []
            return messages + ([wire.encode(wire.LATER, job, record.NO_ANSWERS)] if plan.later else []), []

    def _answer_later(self) -> None:
        connection, plan, jobs = self._later.popleft()
        # Batches of one route that piled up are scored as one.
        while self._later and len(jobs) < LATER_CALLS and self._later[0][0] is connection and self._later[0][1] is plan:
            jobs = jobs + self._later.popleft()[2]
        self._later_calls -= len(jobs)
        if connection.lost:
            return
        try:
            messages = self._runtime.later(plan, jobs)
        except Exception:  # nobody waits for it but the record, which hears that nothing comes
            _log.exception("versions for the record alone could not be asked")
            messages = [wire.encode(wire.LATER, job.job, record.NO_ANSWERS) for job in jobs]
        connection.write(b"".join(messages))


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
        if len(self.plans) > wire.PLANS_LIMIT:
            self.plans.popitem(last=False)

    def write(self, data: bytes) -> None:
        """Send bytes, unless the gateway is gone."""
        if data and not self.lost and self._transport is not None:
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._host.connections.add(self)
        self._host.empty.clear()
        self.write(self._host.all_held())

    def data_received(self, data: bytes) -> None:
        put = self._host.put
        for kind, job, payload in self._splitter.feed(data):
            if kind == wire.PING:
                self.write(wire.encode(wire.PONG, job, b""))  # at once: it asks whether this loop turns
            else:
                put(self, kind, job, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._host.connections.discard(self)
        if not self._host.connections:
            self._host.empty.set()


def _weight(ask: wire.Ask) -> int:
    """Bytes that a call brings into a batch: of a packed body those that it can become."""
    size = len(ask.body)
    return size if not ask.coding else min(size * codings.RATIO, v2_json.BODY_LIMIT_BYTES)


def listen(socket: Path) -> Socket:
    """Open a worker's socket: before its model is loaded, since afterwards its fence is closed."""
    socket.unlink(missing_ok=True)
    listening = Socket(AF_UNIX)
    listening.bind(str(socket))
    os.chmod(socket, 0o600)
    listening.listen(BACKLOG)
    return listening


async def serve(listening: Socket, runtime: Runtime, account: Account | None = None) -> None:
    """Answer until SIGTERM or SIGINT, and then until gateways have hung up."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host = Host(loop, runtime)
    server = await loop.create_unix_server(host.connect, sock=listening, backlog=BACKLOG)
    if account is not None:
        account.ready()
    accounting = loop.create_task(account.tell_now_and_then()) if account is not None else None
    await stop.wait()
    server.close()
    if host.connections:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(host.empty.wait(), read_settings().call_seconds + LEAVE_SECONDS)
    if accounting is not None and account is not None:
        accounting.cancel()
        account.tell()


class Account:
    """This worker's word to the root: that it takes calls, and what its versions used.

    Args:
        number: By which the root knows this process.
    """

    def __init__(self, worker: str, number: int, root: Path, runtime: Runtime) -> None:
        self._worker, self._number, self._runtime = worker, number, runtime
        self._said: needs.Usage | None = None
        self._line = Socket(AF_UNIX)
        self._line.connect(str(root))

    def ready(self) -> None:
        """Calls may come."""
        self._line.sendall(needs.encode(needs.Ready(self._worker, self._number)))

    def alone(self) -> None:
        """We hung up on the process that our model lived in."""
        with contextlib.suppress(OSError):
            self._line.sendall(needs.encode(needs.Alone(self._worker, self._number)))

    async def tell_now_and_then(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(ACCOUNT_SECONDS)
            self.tell()

    def tell(self) -> None:
        """What was used since the last word."""
        models = self._runtime.models
        word = needs.Usage(self._worker, self._runtime.meter.take(), tuple(models), models.failed())
        if word != self._said:
            self._said = word
            with contextlib.suppress(OSError):  # the root is gone, and we end with it
                self._line.sendall(needs.encode(word))


def load_function(name: str) -> Loader:
    """The loader named `module:function`."""
    module, _, function = name.partition(":")
    return cast(Loader, getattr(importlib.import_module(module), function))


def main(arguments: list[str] | None = None) -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="instar.serve.worker.worker")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--load", default="instar.serve.worker.loading:load")
    parser.add_argument("--mask-key", type=Path)
    parser.add_argument("--worker", default="worker", help="its name among routes")
    parser.add_argument("--number", type=int, default=0, help="by which the root knows this process")
    parser.add_argument("--root", type=Path, help="socket on which the root hears us")
    parser.add_argument("--bundle", type=Path, help="loaded before the first call")
    parser.add_argument("--environment", help="name of the environment of its own that the bundle runs in")
    parser.add_argument("--threads", type=int, help="processors that it uses at most")
    parser.add_argument("--shim", type=int, help="descriptor of the line to a process of that environment")
    parser.add_argument("--memory", type=int, help="bytes for all loaded models")
    parser.add_argument("--store", type=Path, help="the store's folder, of which only bundles may be read")
    parser.add_argument("--scratch", type=Path, help="a folder of its own, the only one that it may write to")
    options = parser.parse_args(arguments)
    gc.set_threshold(*GARBAGE)
    mask: Mask = mask_nothing_through
    if options.mask_key is not None:
        from instar.serve.log.masking import keyed_mask

        mask = keyed_mask(options.mask_key.read_bytes())
    keep_bytes = read_settings().keep_tensors_bytes
    if options.threads:
        threads.limit(options.threads)
    load = load_function(options.load)
    if options.environment:
        load = EnvironmentLoader(
            options.store, options.environment, options.shim, lambda: account.alone() if account is not None else None
        )
    runtime = Runtime(load, mask, keep_bytes=keep_bytes, budget_bytes=options.memory)
    os.environ[MARK] = str(options.socket)
    account = None if options.root is None else Account(options.worker, options.number, options.root, runtime)
    call_process(options.worker)
    listening = listen(options.socket)
    if options.store is not None and options.scratch is not None and fence.wanted():
        bundles = options.bundle or bundles_folder(
            options.store
        )  # it reads its bundle, or all where it holds all portable ones
        bundles.mkdir(parents=True, exist_ok=True)
        fence.around_model(options.store, options.scratch, bundles, options.environment or "")
    if options.bundle is not None:
        # What does not load is the answer to the first who asks.
        runtime.load(bundle_of(options.bundle), str(options.bundle))
    elif options.store is not None:
        import_runtimes(bundles_folder(options.store))
    import uvloop

    uvloop.run(serve(listening, runtime, account))
    runtime.models.close()
    # What native libraries do at exit is no business of a drained worker.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
