"""A control process that a test plays line by line, for what gateways and it say to each other."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from instar.serve.root.process import ServerTree
from instar.serve.traffic.routes import control_socket


class Played:
    """A control process that does what a test says.

    Args:
        part: Called with each accepted connection, in a thread of its own.
    """

    def __init__(self, server: ServerTree, part: Callable[[socket.socket], None]) -> None:
        folder = server.log.parents[1]
        self.path = control_socket(folder)
        self.part = part
        self.accepted = 0
        self.connections: list[socket.socket] = []

    def __enter__(self) -> Played:
        self.path.unlink(missing_ok=True)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            self.part(connection)
        except OSError:
            pass  # the test ended
        finally:
            connection.close()

    def __exit__(self, *_: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.path.unlink(missing_ok=True)


def read_head(connection: socket.socket) -> bytes:
    """Up to the empty line."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        if not part:
            raise OSError("hung up")
        data += part
    return data


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def ask(server: ServerTree, text: bytes) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    raw.sendall(text)
    return raw


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HOST = b"Host: 127.0.0.1\r\n"


def always(answer: bytes) -> Callable[[socket.socket], None]:
    def part(connection: socket.socket) -> None:
        while True:
            head = read_head(connection)
            if b"content-length: 5" in head:
                connection.recv(5)
            connection.sendall(answer)

    return part
