"""The gateway: owns the port, decides each call's route, has a worker answer it, puts it on the record, then answers.

    python -m instar.serve.gateway.gateway --folder .instar --fd 3 [--record durable|prompt]

Raw ASGI, since every microsecond here is paid by every call. It reads the request line and headers only and hands the body
on as it came; it never opens the database and never runs a model. Whatever is not inference goes to the control process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from pathlib import Path

from instar.core import ids, settings, telemetry
from instar.core.errors import InstarError, MalformedRequest, TooLarge
from instar.serve.access.certificates import Certificate
from instar.serve.access.entrance import Entrance
from instar.serve.gateway.about import About, is_scoring
from instar.serve.gateway.arrivals import Arrivals
from instar.serve.gateway.control_line import unix
from instar.serve.gateway.door import DoorServer
from instar.serve.gateway.flight import Desk, Fields, Respond
from instar.serve.gateway.grpc_port import GrpcPort
from instar.serve.gateway.intake import Intake
from instar.serve.gateway.relay import Receive, Relay, Scope, Send, answer, answer_error
from instar.serve.gateway.room import Room
from instar.serve.gateway.switchboard import Switchboard
from instar.serve.log import segments
from instar.serve.log.commit import Committer, EndpointLog
from instar.serve.protocol import replies
from instar.serve.protocol.places import Place, place_of
from instar.serve.traffic.routes import Ack, control_socket, door_socket, forget_ack, write_ack

LATER_WAIT_SECONDS = 5.0
QUESTION_LIMIT_BYTES = 64 * 1024  # of a body that asks what the server is

_log = logging.getLogger("instar.serve")


class Gateway:
    """The ASGI application of one gateway process.

    Args:
        durable: A call's answer waits until its record is on the disk; else until the operating system has it.
        grpc_address: Host and port of the second port; None for none.

    Attributes:
        arrivals: Room for bodies that are still coming.
    """

    def __init__(self, store_folder: Path, *, durable: bool = True, grpc_address: str | None = None) -> None:
        self._folder = store_folder
        self._calls = store_folder / "calls"
        self._durable = durable
        self.boot = ids.new_boot()
        self._entrance = Entrance(store_folder, settings.read_settings(), segments.boot_letters(self.boot))
        self.arrivals = Arrivals(settings.read_settings().arriving_bytes)
        self._relay = Relay(unix(control_socket(store_folder)), settings.read_settings().connections)
        self._logs: dict[str, EndpointLog] = {}
        self.loop: asyncio.AbstractEventLoop
        self._committer: Committer
        self._intake: Intake
        self._about: About
        self._board: Switchboard
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: segments.BootLock
        self._grpc = GrpcPort(self, grpc_address, settings.read_settings()) if grpc_address is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith("/v2") or (path.endswith("/invocations") and place_of(scope["raw_path"]) is not None):
                await self._inference(path, scope, receive, send)
            elif is_scoring(path):
                await self._scoring(path, scope, send)
            elif path == "/metrics":
                await self._metrics(scope, send)
            else:
                await self._relay(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _scoring(self, path: str, scope: Scope, send: Send) -> None:
        try:
            status, body = self._about.scoring(scope["method"], path, scope["headers"])
        except InstarError as problem:
            await answer_error(send, problem)
            return
        await answer(send, status, body)

    async def _metrics(self, scope: Scope, send: Send) -> None:
        try:
            held = self._entrance.enter(scope["headers"], scope["method"], "/metrics")
            projects = {route.policy.project for route in self._board.snapshot.endpoints.values()}
            self._entrance.require_reader(held, scope["method"], "/metrics", projects)
        except InstarError as problem:
            await answer_error(send, problem)
            return
        body = telemetry.exposition()
        fields = [
            (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def log_of(self, endpoint: str) -> EndpointLog:
        """The log of an endpoint's calls in this gateway."""
        log = self._logs.get(endpoint)
        if log is None:
            log = self._logs[endpoint] = EndpointLog(self._committer, self._calls, endpoint, self.boot, _wall_us)
        return log

    async def start(self) -> None:
        """Begin to answer: called on the event loop before the first request."""
        self.loop = asyncio.get_running_loop()
        self._lock = segments.BootLock(self._calls, self.boot)
        self._committer = Committer(self.loop, durable=self._durable)
        chosen = settings.read_settings()
        self._board = Switchboard(self.loop, self._folder, self._acknowledge, chosen)
        self._intake = Intake(
            self.loop,
            self._board,
            self._entrance,
            self.boot,
            lambda finished: Desk(self.log_of, finished, chosen.record_failure == "stop"),
            Room(chosen.most_calls, queue_seconds=chosen.queue_seconds),
        )
        self._about = About(self._board, self._entrance)
        telemetry.register(self._intake.meters)
        self._tasks = [
            self.loop.create_task(self._board.watch()),
            self.loop.create_task(self._entrance.watch()),
            self.loop.create_task(self._tick()),
        ]
        if self._grpc is not None:
            await self._grpc.start()

    async def stop(self) -> None:
        """End in good order: called when the last request is answered."""
        if self._grpc is not None:
            await self._grpc.stop()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        deadline = self.loop.time() + LATER_WAIT_SECONDS
        while any(log.waiting for log in self._logs.values()) and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for log in self._logs.values():
            log.close()
        await self.loop.run_in_executor(None, self._committer.close)
        self._board.close()
        await self._relay.close()
        forget_ack(self._folder, segments.boot_letters(self.boot))
        self._lock.release()

    async def _inference(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if place_of(scope.get("raw_path") or path.encode()) is not None:  # a POST would have been taken before
                await answer(send, 405, replies.encode_error(MalformedRequest("send a POST")), [(b"allow", b"POST")])
                return
            body = await _read(receive) if scope["method"] == "POST" else b""
            status, content, fields = self._about(scope["method"], path, scope["headers"], body)
            await answer(send, status, content, fields)
        except InstarError as problem:
            await answer_error(send, problem)

    def early(self, place: Place, headers: list[tuple[bytes, bytes]]) -> tuple[int, Fields, bytes] | None:
        """What a call is answered whatever its body will be, if that is known."""
        return self._intake.early(place, headers)

    def crowded(self, place: Place, headers: list[tuple[bytes, bytes]], respond: Respond) -> None:
        """Turn away a call for whose body there is no room while it comes."""
        self._intake.crowded(place, headers, respond)

    def take(
        self, place: Place, headers: list[tuple[bytes, bytes]], body: bytes | None, length: int, respond: Respond,
        problem: InstarError | None = None,
    ) -> None:  # fmt: skip
        """Take a call straight from a connection; `respond` is called once it is on the record."""
        self._intake.take(place, headers, body, length, respond, problem)

    def _acknowledge(self, number: int, failed: dict[str, str], error: str | None) -> None:
        write_ack(self._folder, segments.boot_letters(self.boot), Ack(self.boot, number, _wall_us(), failed, error))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._board.sweep()
            for log in self._logs.values():
                log.tick()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _wall_us() -> int:
    return time.time_ns() // 1000


async def _read(receive: Receive) -> bytes:
    """The body of a question about the server.

    Raises:
        TooLarge: It is larger than any of them.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > QUESTION_LIMIT_BYTES:
            raise TooLarge("the request's body is too large", asked=f"{QUESTION_LIMIT_BYTES} bytes")
    return bytes(body)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the process."""
    import argparse
    import socket

    import uvicorn
    import uvloop

    from instar.serve.gateway.direct import DirectProtocol

    parser = argparse.ArgumentParser(prog="instar.serve.gateway.gateway")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--grpc", help="host and port of the second port")
    parser.add_argument("--record", choices=("durable", "prompt"), default="durable")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    gateway = Gateway(options.folder, durable=options.record == "durable", grpc_address=options.grpc)
    chosen = settings.read_settings()
    config = uvicorn.Config(
        gateway, http=DirectProtocol, loop="uvloop", lifespan="on", ws="none", access_log=False, log_level="warning",
        proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75, backlog=4096,
        timeout_graceful_shutdown=math.ceil(chosen.call_seconds) + 2,
    )  # fmt: skip
    listening = socket.socket(fileno=options.fd)
    door = DoorServer(config, listening, door_socket(options.folder), chosen, Certificate.of(chosen))
    uvloop.run(door.serve())


if __name__ == "__main__":
    main()
