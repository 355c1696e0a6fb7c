"""Forking warm processes: one process has imported what a model needs, and others are forked from it when a call needs one.

    zygote = Zygote.start([python, "-m", "instar.serve.worker.warm"])      # the descriptor of its line is the last argument
    zygote.spawn(1, ["--socket", "..."], fds=[7])                    # asked, not waited for
    for said in zygote.hear(): ...                                   # Spawned(1, pid), later Exited(pid, status)

Only the standard library is imported here, since zygotes also run in the environments of models, which have nothing of
ours. A message is one packet of JSON on a Unix socket, so that descriptors travel with the request that names them:

    {"spawn": 1, "arguments": [...]}   ->   {"spawned": 1, "pid": 4711}   or   {"spawned": 1, "error": "..."}
    {"warm": [...]}                    ->   nothing; it imports what these arguments will need
                                            {"exited": 4711, "status": -9}   (as `os.waitstatus_to_exitcode` has it)

A zygote has no threads and has run no model: a fork copies neither threads nor the sessions of native libraries.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple

MESSAGE_LIMIT_BYTES = 64 * 1024
FDS_LIMIT = 8  # that travel with one request
ADOPTED_SECONDS = 5.0  # in which the root must have become a child's parent

_DIE_WITH_PARENT, _ADOPT_ORPHANS, _NAME = 1, 36, 15  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NAME of prctl(2)

# What a forked process does: its arguments and the descriptors that came with the request.
Begin = Callable[[list[str], list[int]], object]


class Spawned(NamedTuple):
    """A child began; or, with an error, it did not."""

    request: int
    pid: int
    error: str = ""


class Exited(NamedTuple):
    """A child ended; not told of children that another process adopted, which hears it from the system."""

    pid: int
    status: int


class Zygote:
    """The side that asks: a line to a zygote's process.

    Attributes:
        process: The zygote itself. Its end shows as an `EOFError` of `hear`.
    """

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        self.process = process
        self._line = line

    @classmethod
    def start(
        cls, command: Sequence[str], *, environment: Mapping[str, str] | None = None, output: IO[bytes] | None = None
    ) -> Zygote:
        """Start a zygote's process; it dies with the thread that started it.

        Args:
            command: To which the number of the line's descriptor is added.
            environment: Variables; by default our own.
            output: Where its standard output and error go; by default where ours go.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if environment is None else dict(environment),
                preexec_fn=die_with_parent,
                start_new_session=True,
            )
        return cls(process, ours)

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return self._line.fileno()

    def spawn(self, request: int, arguments: Sequence[str], fds: Sequence[int] = ()) -> None:
        """Ask for a child; `hear` tells its pid.

        Args:
            request: A number of the asker's own, by which the answer names it.
            fds: Descriptors that the child gets; they may be closed here afterwards.

        Raises:
            OSError: The zygote is gone, or so busy that its line is full.
        """
        message = json.dumps({"spawn": request, "arguments": list(arguments)}).encode()
        socket.send_fds(self._line, [message], list(fds), socket.MSG_DONTWAIT)

    def warm(self, arguments: Sequence[str]) -> None:
        """Have it import what these arguments will need, when it comes to it."""
        self._line.send(json.dumps({"warm": list(arguments)}).encode(), socket.MSG_DONTWAIT)

    def hear(self) -> list[Spawned | Exited]:
        """What it has said since; never waits.

        Raises:
            EOFError: It is gone.
        """
        said: list[Spawned | Exited] = []
        while True:
            try:
                data = self._line.recv(MESSAGE_LIMIT_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return said
            except OSError:
                data = b""
            if not data:
                if said:
                    return said  # the end is heard next time
                raise EOFError
            message = json.loads(data)
            if "exited" in message:
                said.append(Exited(message["exited"], message["status"]))
            else:
                said.append(Spawned(message["spawned"], message.get("pid", 0), message.get("error", "")))

    def close(self) -> None:
        """End it, and wait for its end."""
        self._line.close()
        self.process.terminate()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(
    line: socket.socket,
    begin: Begin,
    *,
    warm: Callable[[list[str]], object] | None = None,
    adopted: bool = False,
) -> None:
    """Be a zygote until the other side closes the line.

    Args:
        begin: Runs in each child; its return, or its exception, is the child's end.
        warm: Imports what a child with these arguments will need; called in the zygote, before the fork.
        adopted: Children become the root's own (see `adopt_orphans`): they live on when the zygote ends, and die with the root.
    """
    root = os.getppid()
    children: dict[int, int] = {}
    while True:
        for ready in select.select([line.fileno(), *children], [], [])[0]:
            if ready in children:
                _bury(line, children, ready)
                continue
            data, fds, _, _ = socket.recv_fds(line, MESSAGE_LIMIT_BYTES, FDS_LIMIT)
            if not data:
                return
            message = json.loads(data)
            arguments = message.get("arguments") or message.get("warm") or []
            if warm is not None:
                # What cannot be imported fails in the child that needs it, with its own words.
                with contextlib.suppress(Exception):
                    warm(arguments)
            if "spawn" in message:
                answer: dict[str, object] = {"spawned": message["spawn"]}
                try:
                    pid = _fork(begin, arguments, fds, line, children, root if adopted else 0)
                    answer["pid"] = pid
                    if not adopted:
                        children[os.pidfd_open(pid)] = pid
                except OSError as problem:
                    answer["error"] = str(problem)
                line.send(json.dumps(answer).encode())
            for fd in fds:
                os.close(fd)


def _bury(line: socket.socket, children: dict[int, int], handle: int) -> None:
    pid = children.pop(handle)
    os.close(handle)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):  # nobody listens any more
        line.send(json.dumps({"exited": pid, "status": status}).encode())


def _fork(
    begin: Begin, arguments: list[str], fds: list[int], line: socket.socket, children: Mapping[int, int], root: int
) -> int:
    """Fork a child, or with a root the child of a child, whose parent is gone at once; returns its pid."""
    gc.freeze()  # what is there is shared with children: looking through it there would copy it
    if not root:
        here = os.getpid()
        pid = os.fork()
        if pid == 0:
            _child(begin, arguments, fds, here)
        return pid
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            _child(begin, arguments, fds, root, adopted=True)
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.close(writing)
    told = os.read(reading, 32)
    os.close(reading)
    os.waitpid(between, 0)
    if not told:
        raise OSError("the process between ended before it could fork")
    return int(told)


def _child(begin: Begin, arguments: list[str], fds: list[int], parent: int, *, adopted: bool = False) -> None:
    """All that a forked child does; it never returns."""
    status = 1
    try:
        os.setsid()
        _let_go_of_descriptors(fds)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if adopted:  # else another parent than this one is no parent to come, but the sign that it is gone
            _wait_for_parent(parent)
        die_with_parent()
        if os.getppid() != parent:
            return  # it died before we asked to be told
        # Two children of one process must not draw the same numbers.
        random.seed()
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()
        begin(arguments, fds)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _let_go_of_descriptors(kept: Sequence[int]) -> None:
    """Close all that the zygote had open: an end that a child holds is never seen as an end by others."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def _wait_for_parent(parent: int) -> None:
    deadline = time.monotonic() + ADOPTED_SECONDS
    while os.getppid() != parent and time.monotonic() < deadline:
        time.sleep(0.0002)


def die_with_parent() -> None:
    """In a new child: have the kernel end us with the thread that made us (Linux; elsewhere lines that close must tell)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def adopt_orphans() -> bool:
    """Become the parent of all orphans below us; False where the system has no such thing."""
    return sys.platform == "linux" and not ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


def call_process(name: str) -> None:
    """The name by which `ps` and `top` show this process; 15 letters count."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_NAME, name.encode()[:15], 0, 0, 0)
