"""The port of a server and its place on disk, at the moment it starts: one server a store, one socket for all gateways."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from instar.core.errors import Conflict, Unavailable
from instar.serve.root.process import Running, running
from instar.serve.traffic import routes

BACKLOG = 4096


@contextmanager
def only_one(store_folder: Path) -> Iterator[None]:
    """Hold the store for one server.

    Raises:
        Conflict: A server runs on it already.
    """
    folder = routes.serve_folder(store_folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = running(store_folder)
            raise Conflict(
                "a server runs on this store already",
                subject=str(store_folder),
                found=other.url if other else None,
                next_step="Use that one, or stop it first.",
            ) from None
        yield


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Open the port; a gateway that dies is replaced without a refused connection, since it stays open here.

    Raises:
        Unavailable: It is taken, or not ours to open.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as problem:
            raise Unavailable(
                f"the port cannot be opened: {problem}",
                subject=f"{host}:{port}",
                next_step="Choose another: --port 0 takes any.",
            ) from None
        # Inherited by what it accepts, on Linux: small answers leave at once (Nagle's algorithm would hold them 40 ms).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.listen(BACKLOG)
        yield listening


@contextmanager
def reserve(host: str, port: int | None) -> Iterator[int | None]:
    """Keep a port for gateways which each open it themselves, and share it (SO_REUSEPORT); None keeps none.

    Raises:
        Unavailable: It is taken, or not ours to open.
    """
    if port is None:
        yield None
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((host, port))
        except (OSError, OverflowError) as problem:
            raise Unavailable(
                f"the port for gRPC cannot be opened: {problem}", subject=f"{host}:{port}",
                next_step="Choose another: --grpc-port 0 takes any.",
            ) from None  # fmt: skip
        yield int(held.getsockname()[1])


@contextmanager
def on_record(store_folder: Path, host: str, port: int, grpc_port: int | None = None) -> Iterator[Running]:
    """Tell others on this machine where the server is, while it is there."""
    state = Running(os.getpid(), host, port, grpc_port)
    file = routes.serve_folder(store_folder) / "server.json"
    routes.replace_file(file, msgspec.json.encode(state), durable=False)
    try:
        yield state
    finally:
        file.unlink(missing_ok=True)


def clear_sockets(store_folder: Path) -> None:
    """Take away sockets and scratch folders of a server that was killed: a dead worker's must not be taken for a living one's."""
    for left in routes.run_folder(store_folder).glob("*.sock"):
        left.unlink(missing_ok=True)
    for left in routes.run_folder(store_folder).glob("scratch-*"):
        shutil.rmtree(left, ignore_errors=True)
