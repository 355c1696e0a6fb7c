"""The process tree of a running server: gateways, workers and the control process under one root, while it is up.

    python -m instar.serve.supervisor --folder .instar [--port 5000] [--project .]

The root opens the port and hands it to the gateways, so a gateway that dies is replaced without a refused connection. It
starts a worker for each version that needs its own and restarts whatever dies. SIGTERM drains: gateways first, so that
each call that was taken is answered and on the record, then the rest.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from instar.core.errors import Conflict, Damaged, InstarError, NotAllowed, Unavailable
from instar.core.watching import FolderWatch
from instar.serve import routes
from instar.serve.process import Running, ready, running

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
DRAIN_SECONDS = 35.0
RETIRE_SECONDS = 60.0  # a worker that no route names stays warm, for a quick way back
LOOK_SECONDS = 5.0  # between two looks at everything, when nothing told that it changed
BLIND_LOOK_SECONDS = 0.05  # where the system tells of no changed files
START_LOOK_SECONDS = 0.02  # until the first answer
MISTAKE = 78  # exit status by which the control process says that a restart would not mend it (EX_CONFIG)
BACKOFF_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)  # between restarts of a process that dies young
YOUNG_SECONDS = 5.0
MOST_ENDS = 3  # of a process before the first answer: what ended it so often will end it again
ENDPOINT_SECONDS = 30.0  # for which the first answer waits until the workers have loaded their models

_log = logging.getLogger("instar.serve")


@dataclass
class Child:
    """One process of the tree, which is replaced when it ends."""

    name: str
    command: list[str]
    fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    next_start: float = 0.0
    unused_since: float | None = None
    last_code: int | None = None
    ends: int = 0

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            pass_fds=self.fds,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )
        self.started = time.monotonic()

    def tend(self) -> None:
        """Start it when it does not run and its pause is over."""
        now = time.monotonic()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self.deaths = self.deaths + 1 if now - self.started < YOUNG_SECONDS else 1
            self.next_start = now + BACKOFF_SECONDS[min(self.deaths, len(BACKOFF_SECONDS)) - 1]
            self.process, self.last_code, self.ends = None, code, self.ends + 1
            _log.warning("%s ended with %s; starting it again", self.name, _reason(code))
        if now >= self.next_start:
            self.start()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, deadline: float) -> None:
        """Wait for its end, and end it by force after the deadline."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.warning("%s did not end in time; killed", self.name)
            self.process.kill()
            self.process.wait()


@dataclass
class Root:
    """The supervisor. Its `run` blocks in the main thread, which must stay: children die with the thread that made them.

    Args:
        folder: Of the store; `project` is the project's, for the control process.
        durable: A call's answer waits for the disk.
        loader: `module:function` by which workers load bundles.
        watch_stdin: End when standard input closes.
        listening: Called with the address once calls and the API are answered.
    """

    folder: Path
    project: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    gateways: int = 1
    durable: bool = True
    loader: str = "instar.serve.loading:load"
    control: bool = True
    watch_stdin: bool = False
    listening: Callable[[str], object] | None = None
    _stop: bool = False
    _answered: bool = False
    _until: float = 0.0
    _children: dict[str, Child] = field(default_factory=dict)
    _routes_mark: tuple[int, int] = (0, 0)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or the end of whoever holds our standard input.

        Raises:
            Conflict: A server runs on this store already.
            NotAllowed: The host is not loopback; there is no identity yet which could guard it.
            Unavailable: The port is taken, or a process that must be there cannot start; it said why.
        """
        if self.host not in LOOPBACK:
            raise NotAllowed(
                "nothing listens beyond loopback without authentication",
                subject="server",
                found=self.host,
                asked="127.0.0.1",
                next_step="Put a proxy with authentication before it.",
            )
        self.folder = self.folder.absolute()
        with self._only_one(), self._listen() as listening:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._told_to_stop)
            signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to be woken
            routes.make_run_folder(self.folder)
            self._clear_sockets()
            self._add_children(listening)
            self._until = time.monotonic() + ENDPOINT_SECONDS
            watch = FolderWatch(routes.serve_folder(self.folder))
            try:
                with self._woken_by_signals() as woken:
                    while not self._stop:
                        self._workers()
                        for child in list(self._children.values()):
                            child.tend()
                        self._refuse_a_mistake()
                        self._announce()
                        self._pause(woken, watch)
            finally:
                self._drain()
                watch.close()

    def _announce(self) -> None:
        """Say where we are, once, when we answer; a model that cannot be loaded keeps the rest waiting for a while only."""
        if self._answered:
            return
        state = Running(os.getpid(), self.host, self.port)
        if ready(state, self.folder, control=self.control, endpoints=time.monotonic() < self._until):
            self._answered = True
            if self.listening is not None:
                self.listening(state.url)

    def _refuse_a_mistake(self) -> None:
        """End when a process that must be there cannot even start; once we have answered, calls go on without it."""
        if self._answered:
            return
        for name, child in self._children.items():
            needed = name == "control" or name.startswith("gateway-")
            if needed and child.last_code is not None and (child.last_code == MISTAKE or child.ends >= MOST_ENDS):
                raise Unavailable(
                    f"the server cannot start: its process {name} ended, and said why above",
                    subject=str(self.folder),
                    found=_reason(child.last_code),
                    next_step="Mend that, then start the server again.",
                )

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _pause(self, woken: int, watch: FolderWatch) -> None:
        """Wait until a child ended, routes changed, somebody wants us to stop, or it is time for something."""
        sources: list[Any] = [woken]
        sources += [watch] if watch.tells else []
        sources += [sys.stdin] if self.watch_stdin else []
        readable, _, _ = select.select(sources, [], [], self._seconds_to_next(watch))
        if woken in readable:
            os.read(woken, 1024)
        if watch in readable:
            watch.clear()
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 1024):
            self._stop = True  # our parent is gone

    def _seconds_to_next(self, watch: FolderWatch) -> float:
        if not self._answered:
            return START_LOOK_SECONDS
        now = time.monotonic()
        dead = [child.next_start - now for child in self._children.values() if child.process is None]
        return max(0.0, min([LOOK_SECONDS if watch.tells else BLIND_LOOK_SECONDS, *dead]))

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

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        folder = routes.serve_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "server.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = running(self.folder)
                raise Conflict(
                    "a server runs on this store already",
                    subject=str(self.folder),
                    found=other.url if other else None,
                    next_step="Use that one, or stop it first.",
                ) from None
            yield

    @contextmanager
    def _listen(self) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            try:
                listening.bind((self.host, self.port))
            except OSError as problem:
                raise Unavailable(
                    f"the port cannot be opened: {problem}",
                    subject=f"{self.host}:{self.port}",
                    next_step="Choose another: --port 0 takes any.",
                ) from None
            # Inherited by what it accepts, on Linux: small answers leave at once (Nagle's algorithm would hold them 40 ms).
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.listen(4096)
            self.port = listening.getsockname()[1]
            state = Running(os.getpid(), self.host, self.port)
            routes.replace_file(
                routes.serve_folder(self.folder) / "server.json", msgspec.json.encode(state), durable=False
            )
            yield listening
        finally:
            listening.close()

    def _clear_sockets(self) -> None:
        # Of a server that was killed: a gateway must not take a dead worker's socket for a living one.
        for left in routes.run_folder(self.folder).glob("*.sock"):
            left.unlink(missing_ok=True)

    def _add_children(self, listening: socket.socket) -> None:
        mode = "durable" if self.durable else "prompt"
        python = [sys.executable, "-m"]
        if self.control:  # first: it has the most to load
            place = ["--folder", str(self.folder), "--socket", str(routes.control_socket(self.folder))]
            project = ["--project", str(self.project)] if self.project is not None else []
            self._children["control"] = Child("control", [*python, "instar.interfaces.control", *place, *project])
        for number in range(self.gateways):
            fd = listening.fileno()
            command = [*python, "instar.serve.gateway", "--folder", str(self.folder), "--fd", str(fd), "--record", mode]
            self._children[f"gateway-{number}"] = Child(f"gateway-{number}", command, (fd,))

    def _worker(self, name: str) -> Child:
        from instar.serve.masking import mask_key_file  # brings in what workers run

        key = mask_key_file(routes.serve_folder(self.folder))
        place = ["--socket", str(routes.socket_path(self.folder, name)), "--load", self.loader, "--mask-key", str(key)]
        return Child(f"worker {name}", [sys.executable, "-m", "instar.serve.worker", *place])

    def _workers(self) -> None:
        """Have the workers that routes name: one for all portable versions, one for each that needs its own; let go of others."""
        try:
            status = routes.routes_file(self.folder).stat()
        except FileNotFoundError:
            return
        mark = (status.st_mtime_ns, status.st_ino)
        if mark != self._routes_mark:
            self._routes_mark = mark
            try:
                named = set(routes.read_snapshot(self.folder).workers())
            except Damaged as problem:
                _log.error("%s", problem)
                return
            for name in named - set(self._children):
                self._children[name] = self._worker(name)
            for name, child in self._children.items():
                if name.startswith("native-"):
                    child.unused_since = None if name in named else child.unused_since or time.monotonic()
        for name, child in list(self._children.items()):
            if child.unused_since is not None and time.monotonic() - child.unused_since > RETIRE_SECONDS:
                child.signal(signal.SIGTERM)
                child.wait(time.monotonic() + 5.0)
                routes.socket_path(self.folder, name).unlink(missing_ok=True)
                del self._children[name]

    def _drain(self) -> None:
        gateways = [child for name, child in self._children.items() if name.startswith("gateway-")]
        others = [child for child in self._children.values() if child not in gateways]
        for group, seconds in ((gateways, DRAIN_SECONDS), (others, 10.0)):
            deadline = time.monotonic() + seconds
            for child in group:
                child.signal(signal.SIGTERM)
            for child in group:
                child.wait(deadline)
        self._clear_sockets()
        (routes.serve_folder(self.folder) / "server.json").unlink(missing_ok=True)


def _reason(code: int) -> str:
    return f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _die_with_parent() -> None:
    """In a new child: have the kernel end us when the root is killed (Linux; elsewhere they see their sockets close)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(arguments: list[str] | None = None) -> None:
    """Entry of the root process."""
    import argparse

    parser = argparse.ArgumentParser(prog="instar.serve.process")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--record", choices=("durable", "prompt"), default="durable")
    parser.add_argument("--load", default="instar.serve.loading:load")
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--watch-stdin", action="store_true", help="end when standard input closes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    root = Root(
        options.folder, options.project, options.host, options.port, options.gateways, options.record == "durable",
        options.load, not options.no_control, options.watch_stdin,
    )  # fmt: skip
    try:
        root.run()
    except InstarError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
