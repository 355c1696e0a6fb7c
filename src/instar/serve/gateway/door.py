"""The door of a server: a gateway looks at the first words of each connection, and keeps it or hands it on, when it is made.

Clients that track runs never ask for predictions: their connections are handed to the control process whole (SCM_RIGHTS,
unix(7)), so that none of their calls, nor a byte of an artifact, goes through a gateway. Every other connection stays, and what
is not inference on it is relayed. When the control process cannot take a connection, it stays as well.

With a certificate the same port speaks TLS, told by a first byte, and such connections stay. Plain HTTP is then for this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn

from instar.core.settings import Settings
from instar.serve.access.certificates import LOOK_SECONDS, Certificate
from instar.serve.gateway.direct import DirectProtocol

PEEK_BYTES = 4096
MOST_ACCEPTED = 64  # at once, before others get their turn
TRACKING = b"/mlflow"  # in the path of every call of that protocol
KEEP_ALIVE_SECONDS = 75
SILENT_TIMES = 7.5  # as long as a request's head may take, for a connection that was opened and says nothing
SWEEP_SECONDS = 1.0
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-type: application/json\r\n"
    b'content-length: 46\r\n\r\n{"error":"the server has no more connections"}'
)
PAUSE_SECONDS = 1.0  # when the process has as many files open as it may

_log = logging.getLogger("instar.serve")

HANDSHAKE = b"\x16"  # the first byte of a connection by TLS (RFC 8446, section 5.1)
PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b'content-length: 46\r\n\r\n{"error":"this port speaks TLS: use https://"}'
)

Protocols = Callable[[], asyncio.Protocol]


class QuietServer(uvicorn.Server):
    """A server that sleeps while nobody calls: it is woken to end, instead of looking ten times a second whether it shall."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()
        self._main: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Wait for the end."""
        self._main = asyncio.get_running_loop()
        if not self.should_exit:
            await self._ending.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal tells us to end."""
        super().handle_exit(sig, frame)
        if self._main is not None:
            self._main.call_soon_threadsafe(self._ending.set)


class DoorServer(QuietServer):
    """A gateway's HTTP server, behind the door.

    Args:
        listening: Where connections come in; shared by all gateways.
        door: Socket on which the control process takes connections.
        settings: How many connections may be open, and how long a request may take to come.
        certificate: By which connections speak TLS; None: none does.
    """

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, door: Path, settings: Settings,
        certificate: Certificate | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config)
        self._certificate = certificate
        self._certificate_seen = 0.0
        self._settings = settings
        self._listening = listening
        self._handing = HandingOver(door)
        self._undecided: dict[socket.socket, float] = {}
        self._opening: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets=[])
        self._loop = asyncio.get_running_loop()
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and end what is open in good order."""
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for connection in list(self._undecided):
            self._decided(connection)
            connection.close()
        self._handing.close()
        await super().shutdown(sockets)  # who sends slowly is hung up on meanwhile, too
        self._sweeping.cancel()

    def _accept(self) -> None:
        for _ in range(MOST_ACCEPTED):
            try:
                connection, _address = self._listening.accept()
            except OSError as problem:
                if problem.errno in (
                    errno.EMFILE,
                    errno.ENFILE,
                ):  # let some end before the next: asking on would only spin
                    _log.warning("no more connections can be taken for now: %s", problem)
                    self._loop.remove_reader(self._listening)
                    self._loop.call_later(PAUSE_SECONDS, self._accept_again)
                return  # none is left, another gateway was quicker, or it is gone already
            connection.setblocking(False)
            taken = len(self._undecided) + len(self._opening) + len(self.server_state.connections)
            if taken >= self._settings.most_connections:
                with contextlib.suppress(OSError):
                    connection.send(FULL)
                connection.close()
                continue
            self._undecided[connection] = self._loop.time()
            self._loop.add_reader(connection, self._look, connection)

    def _accept_again(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept)

    def _look(self, connection: socket.socket) -> None:
        try:
            seen = connection.recv(PEEK_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            seen = b""
        self._decided(connection)
        if not seen:
            connection.close()
        elif self._certificate is not None and seen[:1] == HANDSHAKE:
            context = self._certificate.context
            _open(self._loop, self._protocol, connection, self._opening, context, self._settings.head_seconds)
        elif self._certificate is not None and not _is_here(connection):
            with contextlib.suppress(OSError):
                connection.send(PLAIN)
            connection.close()
        elif is_tracking(seen) and self._handing.give(connection):
            connection.close()  # the control process has a copy
        else:
            _open(self._loop, self._protocol, connection, self._opening)

    def _decided(self, connection: socket.socket) -> None:
        self._undecided.pop(connection, None)
        self._loop.remove_reader(connection)

    def _sweep(self) -> None:
        """Hang up on connections that say nothing, or too slowly."""
        now = self._loop.time()
        for connection, since in list(self._undecided.items()):
            if now - since > SILENT_TIMES * self._settings.head_seconds:
                self._decided(connection)
                connection.close()
        for protocol in list(self.server_state.connections):
            cast(DirectProtocol, protocol).sweep(now)
        if self._certificate is not None and now - self._certificate_seen > LOOK_SECONDS:
            self._certificate_seen = now
            self._certificate.look()
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _protocol(self) -> asyncio.Protocol:
        protocol = cast(DirectProtocol, make_protocol(self))
        protocol.head_seconds, protocol.body_seconds = self._settings.head_seconds, self._settings.body_seconds
        return protocol


def _is_here(connection: socket.socket) -> bool:
    """Is the other end on this machine?"""
    try:
        return bool(connection.getpeername()[0] == connection.getsockname()[0])
    except OSError:
        return False


def is_tracking(seen: bytes) -> bool:
    """Whether the first words of a connection are those of a client that tracks runs."""
    words = seen.split(b" ", 2)
    return len(words) == 3 and TRACKING in words[1]


class HandingOver:
    """A gateway's way to give connections to the control process."""

    def __init__(self, door: Path) -> None:
        self._door = str(door)
        self._line: socket.socket | None = None

    def give(self, connection: socket.socket) -> bool:
        """Give it away; False when nobody takes it, and it stays where it is."""
        for _ in range(2):  # the line may be that to a control process which has been replaced since
            try:
                if self._line is None:
                    self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self._line.setblocking(False)
                    self._line.connect(self._door)
                socket.send_fds(self._line, [b"c"], [connection.fileno()])
                return True
            except BlockingIOError:
                return False  # it is behind with taking them
            except OSError:
                self.close()
        return False

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
            self._line = None


class TakingServer(QuietServer):
    """The control process's HTTP server: on its Unix socket for what is relayed, and for connections handed to it.

    Args:
        door: Socket on which gateways give connections.
        listening: Awaited beside the first calls, when connections are taken.
    """

    def __init__(
        self, config: uvicorn.Config, door: Path, listening: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        super().__init__(config)
        self._began = listening
        self._door = door
        self._opening: set[asyncio.Task[Any]] = set()
        self._lines: set[socket.socket] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._door.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.setblocking(False)
        self._listening.bind(str(self._door))
        self._listening.listen(64)
        self._loop.add_reader(self._listening, self._accept)
        if self._began is not None:
            self._opening.add(self._loop.create_task(self._began()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more, and end what is open in good order."""
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for line in list(self._lines):
            self._hang_up(line)
        await super().shutdown(sockets)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            line, _ = self._listening.accept()
            line.setblocking(False)
            self._lines.add(line)
            self._loop.add_reader(line, self._take, line)

    def _take(self, line: socket.socket) -> None:
        for _ in range(MOST_ACCEPTED):
            try:
                data, descriptors, _flags, _address = socket.recv_fds(line, 1, 4)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, descriptors = b"", []
            for descriptor in descriptors:
                _open(self._loop, self._protocol, socket.socket(fileno=descriptor), self._opening)
            if not data:
                self._hang_up(line)
                return

    def _hang_up(self, line: socket.socket) -> None:
        self._lines.discard(line)
        self._loop.remove_reader(line)
        line.close()

    def _protocol(self) -> asyncio.Protocol:
        protocol = make_protocol(self)
        protocol.timeout_keep_alive = KEEP_ALIVE_SECONDS
        return cast(asyncio.Protocol, protocol)


def make_protocol(server: uvicorn.Server) -> Any:
    """The protocol of one more connection of a server."""
    kind: Any = server.config.http_protocol_class
    return kind(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)


def _open(
    loop: asyncio.AbstractEventLoop, make: Protocols, connection: socket.socket, opening: set[asyncio.Task[Any]],
    tls: ssl.SSLContext | None = None, handshake_seconds: float | None = None,
) -> None:  # fmt: skip
    """Serve an accepted connection."""

    async def connect() -> None:
        try:
            await loop.connect_accepted_socket(
                make, connection, ssl=tls, ssl_handshake_timeout=handshake_seconds if tls is not None else None
            )
        except OSError:  # it is gone already
            connection.close()

    connection.setblocking(False)
    task = loop.create_task(connect())
    opening.add(task)
    task.add_done_callback(opening.discard)
