"""The root of a running server's process tree: gateways, the control process and workers, begun and ended in good order.

    python -m instar.serve.root.supervisor --folder .instar [--port 5000] [--project .]

It opens the port (`listening.py`), keeps those processes that must be there (`children.py`) and has workers come and go as
calls need them (`workers.py`). SIGTERM drains: gateways first, so that each call that was taken is answered and on the
record, then the rest.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from instar.core import settings
from instar.core.errors import Damaged, InstarError, Unavailable
from instar.core.silence import keep_silence
from instar.core.watching import FolderWatch
from instar.serve.access.certificates import Certificate
from instar.serve.access.keyring import LOOPBACK, require_administrator
from instar.serve.processes import measuring, needs
from instar.serve.processes.children import Child, bury_strangers, reason_of
from instar.serve.processes.zygote import adopt_orphans
from instar.serve.root import condition, listening
from instar.serve.root.accounts import Accounts
from instar.serve.root.nursery import Nursery, may_fork
from instar.serve.root.process import Running, ready
from instar.serve.root.root_socket import RootSocket
from instar.serve.root.workers import Limits, Workers
from instar.serve.traffic import routes

DRAIN_SECONDS = 5.0  # beyond a call's longest time
BLIND_LOOK_SECONDS = 0.05  # where the system tells of no changed files
START_LOOK_SECONDS = 0.02  # until the first answer
MISTAKE = 78  # exit status by which the control process says that a restart would not mend it (EX_CONFIG)
MOST_ENDS = 3  # of a process before the first answer: what ended it so often will end it again
ENDPOINT_SECONDS = 30.0  # for which the first answer waits until what is reserved has been loaded
ACCOUNT_SECONDS = 2.0  # between two looks at what processes use
MEMORY_SHARE = 0.5  # of the machine's, for all workers together, where no setting says otherwise

_log = logging.getLogger("instar.serve")


@dataclass
class Root:
    """The supervisor. Its `run` blocks in the main thread, which must stay: children die with the thread that made them.

    Args:
        folder: Of the store; `project` is the project's, for the control process.
        durable: A call's answer waits for the disk.
        grpc_port: Of gRPC: 0 takes any, None opens none.
        loader: `module:function` by which workers load bundles.
        watch_stdin: End when standard input closes.
        listening: Called with the address once calls and the API are answered.
    """

    folder: Path
    project: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    gateways: int = 1
    grpc_port: int | None = None
    durable: bool = True
    loader: str = "instar.serve.worker.loading:load"
    control: bool = True
    watch_stdin: bool = False
    listening: Callable[[str], object] | None = None
    _stop: bool = False
    _answered: bool = False
    _until: float = 0.0
    _children: dict[str, Child] = field(default_factory=dict)
    _routes_mark: tuple[int, int] = (0, 0)
    _accounted: float = 0.0
    _conditions: dict[str, condition.Condition] | None = None
    _unwritten: str = ""
    _reading: routes.Reading = field(default_factory=routes.Reading)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or the end of whoever holds our standard input.

        Raises:
            Conflict: A server runs on this store already.
            NotAllowed: The host is not loopback, and nobody has a token to administrate it.
            BadInput: The certificate that settings name cannot be used.
            Unavailable: The port is taken, or a process that must be there cannot start; it said why.
        """
        self.folder = self.folder.absolute()
        Certificate.of(
            settings.read_settings()
        )  # gateways read it, too: one that is wrong is said before there are any
        keep_silence()
        if self.host not in LOOPBACK:
            require_administrator(self.folder, self.host)
            os.environ["INSTAR_LOOPBACK"] = "token"  # for all processes below: who calls from here may be a proxy
        if self.grpc_port is not None and importlib.util.find_spec("grpc") is None:
            raise Unavailable(
                "gRPC is not installed", subject="--grpc-port", next_step="pip install 'instar[grpc]', or leave it out."
            )
        with (
            listening.only_one(self.folder),
            listening.listen(self.host, self.port) as port,
            listening.reserve(self.host, self.grpc_port) as self.grpc_port,
        ):
            self.port = port.getsockname()[1]
            with listening.on_record(self.folder, self.host, self.port, self.grpc_port) as state:
                self._serve(port.fileno(), state)

    def _serve(self, port: int, state: Running) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to be woken
        adopted = adopt_orphans()
        routes.make_run_folder(self.folder)
        listening.clear_sockets(self.folder)
        self._ear = RootSocket(routes.root_socket(self.folder))
        self._nursery = Nursery(self._worker_arguments, fork=adopted and may_fork())
        self._accounts = Accounts(self.folder)
        self._workers = Workers(self.folder, self._nursery, _limits(), self._ear.tell, self._accounts.ended)
        self._add_children(port)
        self._until = time.monotonic() + ENDPOINT_SECONDS
        watch = FolderWatch(routes.serve_folder(self.folder))
        try:
            with self._woken_by_signals() as woken:
                while not self._stop:
                    self._take_up_routes()
                    for child in list(self._children.values()):
                        child.tend()
                    self._workers.tend()
                    bury_strangers(self._known())
                    self._account()
                    self._refuse_a_mistake()
                    self._announce(state)
                    self._pause(woken, watch)
        finally:
            self._drain()
            watch.close()

    def _announce(self, state: Running) -> None:
        """Say where we are, once, when we answer; a model that cannot be loaded keeps the rest waiting for a while only."""
        if self._answered:
            return
        if ready(state, self.folder, control=self.control, endpoints=time.monotonic() < self._until):
            self._answered = True
            if self.listening is not None:
                self.listening(state.url)

    def _refuse_a_mistake(self) -> None:
        """End when a process that must be there cannot even start; once we have answered, calls go on without it."""
        if self._answered:
            return
        for name, child in self._children.items():
            if child.last_code is not None and (child.last_code == MISTAKE or child.ends >= MOST_ENDS):
                raise Unavailable(
                    f"the server cannot start: its process {name} ended, and said why above",
                    subject=str(self.folder),
                    found=reason_of(child.last_code),
                    next_step="Mend that, then start the server again.",
                )

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _pause(self, woken: int, watch: FolderWatch) -> None:
        """Wait until something is told, a child ended, somebody wants us to stop, or it is time for something."""
        sources: list[Any] = [woken, *self._ear.filenos(), *self._nursery.filenos()]
        sources += [watch] if watch.tells else []
        sources += [sys.stdin] if self.watch_stdin else []
        readable = set(select.select(sources, [], [], self._seconds_to_next(blind=not watch.tells))[0])
        if woken in readable:
            os.read(woken, 1024)
        if watch in readable:
            watch.clear()
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 1024):
            self._stop = True  # our parent is gone
        self._hear({one for one in readable if isinstance(one, int)})

    def _hear(self, readable: set[int]) -> None:
        """Take up what gateways and workers said."""
        workers, ear = self._workers, self._ear
        for line, message in ear.hear(readable):
            match message:
                case None if ear.has(line):
                    for up in workers.all_up():
                        ear.tell(up, line)
                case None:
                    workers.forget(line)
                case needs.Usage(worker, versions):
                    self._accounts.used(worker, versions)
                    workers.told(message)
                case needs.Lost(worker, copy):
                    workers.lost(worker, copy)
                case needs.Alone(worker, copy):
                    workers.alone(worker, copy)
                case needs.Ready(worker, copy):
                    workers.ready(worker, copy)
                case needs.Need(worker):
                    if not workers.knows(worker):
                        self._take_up_routes()  # a gateway may have read them before us
                    answer = workers.need(worker)
                    if answer is not None:
                        ear.tell(answer, line)
                case needs.Loads(loads):
                    workers.loaded(line, loads)
                case needs.Hung(worker, copy, seconds):
                    workers.hung(worker, copy, seconds)

    def _seconds_to_next(self, blind: bool) -> float:
        if not self._answered:
            return START_LOOK_SECONDS
        now = time.monotonic()
        dead = [child.next_start - now for child in self._children.values() if child.process is None]
        look = [BLIND_LOOK_SECONDS] if blind else []
        return max(0.0, min([self._workers.seconds_to_next(), *dead, *look]))

    @contextmanager
    def _woken_by_signals(self) -> Iterator[int]:
        """A descriptor that becomes readable when a signal comes: the end of a child is one."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(before)
            os.close(reading)
            os.close(writing)

    def _known(self) -> set[int]:
        """Children that are waited for by name."""
        children = {child.process.pid for child in self._children.values() if child.process is not None}
        return children | self._workers.pids() | set(self._nursery.pids())

    def _add_children(self, port: int) -> None:
        mode = "durable" if self.durable else "prompt"
        python = [sys.executable, "-m"]
        if self.control:  # first: it has the most to load
            place = ["--folder", str(self.folder), "--socket", str(routes.control_socket(self.folder))]
            project = ["--project", str(self.project)] if self.project is not None else []
            command = [*python, "instar.interfaces.control", *place, *project]
            self._children["control"] = Child("control", command, ended=self._accounts.ended)
        for number in range(self.gateways):
            name = f"gateway-{number}"
            command = [
                *python,
                "instar.serve.gateway.gateway",
                "--folder",
                str(self.folder),
                "--fd",
                str(port),
                "--record",
                mode,
            ]
            if self.grpc_port is not None:
                command += [
                    "--grpc",
                    f"[{self.host}]:{self.grpc_port}" if ":" in self.host else f"{self.host}:{self.grpc_port}",
                ]
            self._children[name] = Child(
                name, command, (port,), ended=lambda _, ended: self._accounts.ended("gateway", ended)
            )

    def _worker_arguments(self) -> list[str]:
        from instar.serve.log.masking import mask_key_file  # brings in what workers run

        return ["--load", self.loader, "--mask-key", str(mask_key_file(routes.serve_folder(self.folder)))]

    def _take_up_routes(self) -> None:
        """Know the workers that routes name now."""
        try:
            status = routes.routes_file(self.folder).stat()
        except FileNotFoundError:
            return
        mark = (status.st_mtime_ns, status.st_ino)
        if mark == self._routes_mark:
            return
        self._routes_mark = mark
        try:
            snapshot = routes.read_snapshot(self.folder, self._reading)
            self._accounts.take_up(snapshot)
            self._workers.take_up(snapshot)
        except Damaged as problem:
            _log.error("%s", problem)

    def _account(self) -> None:
        """Look at what all processes use, now and then, and write it down every few seconds."""
        now = time.monotonic()
        if now - self._accounted > ACCOUNT_SECONDS:
            self._accounted = now
            self._measure()
            self._write_down()

    def _write_down(self) -> None:
        """Where that cannot be done, the disk is full for instance, answers go on, and it is tried again."""
        try:
            conditions = self._workers.conditions()
            if conditions != self._conditions:
                condition.write(self.folder, conditions)
                self._conditions = conditions
            self._accounts.write_if_due()
        except OSError as problem:
            if self._unwritten != str(problem):
                _log.error("what the server uses, and how its versions are, cannot be written down: %s", problem)
            self._unwritten = str(problem)
        else:
            self._unwritten = ""

    def _measure(self) -> None:
        found = [(name, process.pid, size) for name, process, size in self._workers.processes()]
        for name, child in self._children.items():
            if child.process is not None:
                found.append(("gateway" if name.startswith("gateway-") else name, child.process.pid, 0))
        found.append(("root", os.getpid(), 0))
        found += [("warm process", pid, 0) for pid in self._nursery.pids()]
        self._accounts.measured(found)

    def _drain(self) -> None:
        gateways = [child for name, child in self._children.items() if name.startswith("gateway-")]
        others = [child for child in self._children.values() if child not in gateways]
        self._measure()
        self._end(gateways, time.monotonic() + settings.read_settings().call_seconds + DRAIN_SECONDS)
        deadline = time.monotonic() + 10.0
        self._workers.end(deadline)
        self._hear(set(self._ear.filenos()))  # the last words of workers on what they used
        self._nursery.close()
        self._end(others, deadline)
        try:
            self._accounts.write()
        except OSError as problem:
            _log.error("what was used since the last account is lost: %s", problem)
        self._ear.close()
        listening.clear_sockets(self.folder)

    def _end(self, children: list[Child], deadline: float) -> None:
        for child in children:
            child.signal(signal.SIGTERM)
        for child in children:
            child.wait(deadline)
            if child.process is not None and child.ended is not None:
                child.ended(child.name, child.process)


def _limits() -> Limits:
    chosen = settings.read_settings()
    memory = chosen.memory_bytes or int(measuring.machine_memory_bytes() * MEMORY_SHARE)
    return Limits(memory, chosen.worker_memory_bytes, chosen.idle_seconds, chosen.call_seconds)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the root process."""
    import argparse

    parser = argparse.ArgumentParser(prog="instar.serve.root.process")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--grpc-port", type=int)
    parser.add_argument("--record", choices=("durable", "prompt"), default="durable")
    parser.add_argument("--load", default="instar.serve.worker.loading:load")
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--watch-stdin", action="store_true", help="end when standard input closes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    root = Root(
        options.folder, options.project, options.host, options.port, options.gateways, options.grpc_port,
        options.record == "durable", options.load, not options.no_control, options.watch_stdin,
    )  # fmt: skip
    try:
        root.run()
    except InstarError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
