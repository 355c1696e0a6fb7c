"""A thin client for calls of one row: what the demo talks to an endpoint with.

It keeps some connections open and one call on each, writes bodies from parts that were encoded once, and makes neither a
task nor a future for a call. A call is never repeated by itself: a repeated request is a new call on the record.

    with InferClient("http://127.0.0.1:5000", "delay") as client:
        answers = client.infer_all([Ask({"distance": 1400.0, "carrier": "UA"}, event_time=moment)])
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from instar.core import credentials
from instar.core.errors import BadInput, Unavailable
from instar.serve.clients.refusal import refused

CONNECTIONS = 32
CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A call of one row.

    Attributes:
        row: Value by column; NaN is sent as null, and a column that the endpoint does not have is not sent.
        event_time: Aware; the server's clock when None.
        key: Routing key; the call id when None.
        entity, table_version: What the row is about, and where it was taken from, for the record.
    """

    row: Mapping[str, Any]
    event_time: datetime | None = None
    key: str | None = None
    entity: str | None = None
    table_version: str | None = None
    request_id: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a call of one row.

    Attributes:
        status: HTTP status; 0 when the connection broke before an answer, and nobody can say whether it was recorded.
        call: Call id; its prediction is `<call>/0`. Empty when the gateway did not take the call.
        version, score, decision: None unless `status` is 200; a version that predicts a number has no decision.
        error: The refusal's text.
    """

    status: int
    call: str
    version: int | None = None
    score: float | None = None
    decision: int | None = None
    error: str | None = None

    @property
    def prediction(self) -> str:
        return f"{self.call}/0"


class _Output(msgspec.Struct):
    name: str
    data: list[Any]


class _Body(msgspec.Struct):
    model_version: str = ""
    outputs: list[_Output] = []
    error: str | None = None


class _Input(msgspec.Struct):
    name: str
    datatype: str


class _Metadata(msgspec.Struct):
    inputs: list[_Input]


class InferClient:
    """A client of one endpoint, for one thread.

    Args:
        url: Of the server, `http://host:port`.
        connections: Calls in flight at once.
        inputs: Datatype by column; asked of the server when None.
        token: By which the caller is known; default `INSTAR_TOKEN`, or the file that `INSTAR_TOKEN_FILE` names.

    Attributes:
        inputs: Datatype of each column that the endpoint takes.
    """

    def __init__(
        self, url: str, endpoint: str, connections: int = CONNECTIONS, inputs: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise BadInput("that is no address of a server", found=repr(url), asked="http://host:port")
        self._host, self._port = parts.hostname, parts.port or 80
        self._endpoint = endpoint
        self._loop = _new_loop()
        self._free: list[_Connection] = []
        self._wanted = max(1, connections)
        self._work: _Work | None = None
        secret = token or credentials.of_environment()
        self._proof = f"Authorization: Bearer {secret}\r\n" if secret else ""
        head = (
            f"POST /v2/models/{endpoint}/infer HTTP/1.1\r\nHost: {parts.netloc}\r\n{self._proof}"
            "Content-Type: application/json\r\n"
        )
        self._head = head.encode("ascii")
        self._columns: list[tuple[str, bytes]] = []
        self.inputs: dict[str, str] = {}
        try:
            self.inputs = dict(inputs) if inputs is not None else self._ask_inputs()
            for name, datatype in self.inputs.items():
                start = f'{{"name":{_json(name)},"shape":[1],"datatype":{_json(datatype)},"data":['
                self._columns.append((name, (start if not self._columns else "," + start).encode()))
        except BaseException:
            self.close()
            raise

    def infer(self, ask: Ask) -> Answer:
        """One call."""
        return self.infer_all([ask])[0]

    def infer_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """All calls, as many at once as there are connections; answers in the order of `asks`.

        Raises:
            Unavailable: The server cannot be reached.
        """
        if not asks:
            return []
        try:
            return self._loop.run_until_complete(self._run(asks))
        except BaseException:
            # Answers may still be on their way: no later call may take them for its own.
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        for connection in self._free:
            connection.close()
        self._free.clear()

    def close(self) -> None:
        """Close the connections."""
        self._hang_up()
        if not self._loop.is_closed():
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def __enter__(self) -> InferClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run(self, asks: Sequence[Ask]) -> list[Answer]:
        await asyncio.sleep(0)  # hear first of connections that the server closed meanwhile
        work = _Work(self, asks, self._loop.create_future())
        self._free = [connection for connection in self._free if not connection.lost]
        while len(self._free) < min(self._wanted, len(asks)):
            self._free.append(await self._connect())
        for connection in self._free[: len(asks)]:
            connection.work_on(work)
        await work.done
        if work.open:
            # All connections broke. What was not sent yet gets its say on new ones, or the error of connecting.
            rest = [(at, asks[at]) for at in range(work.next, len(asks))]
            for (at, _), answer in zip(rest, await self._run([ask for _, ask in rest]) if rest else [], strict=True):
                work.answers[at] = answer
        return cast("list[Answer]", work.answers)

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self._loop.create_connection(_Connection, self._host, self._port)
        except OSError as problem:  # TimeoutError is one
            raise Unavailable(
                "the server cannot be reached",
                subject=f"http://{self._host}:{self._port}",
                found=str(problem) or type(problem).__name__,
                next_step="Start it: `instar up`.",
            ) from problem
        return connection

    def _ask_inputs(self) -> dict[str, str]:
        async def ask() -> tuple[int, bytes]:
            connection = await self._connect()
            self._free.append(connection)
            return await connection.get(f"/v2/models/{self._endpoint}", f"{self._host}:{self._port}", self._proof)

        status, body = self._loop.run_until_complete(ask())
        if status != 200:
            raise refused(self._endpoint, status, body)
        return {column.name: column.datatype for column in msgspec.json.decode(body, type=_Metadata).inputs}

    def encode(self, ask: Ask) -> bytes:
        """The whole request as bytes."""
        row, parts = ask.row, [b'{"inputs":[']
        for name, start in self._columns:
            if name in row:
                parts.append(start)
                parts.append(_value(row[name]))
                parts.append(b"]}")
        if len(parts) > 1 and parts[1][:1] == b",":
            parts[1] = parts[1][1:]
        parts.append(b"]")
        if ask.request_id is not None:
            parts.append(b',"id":' + _value(ask.request_id))
        if ask.entity is not None or ask.table_version is not None:
            named = {"entity": ask.entity, "table_version": ask.table_version}
            parts.append(
                b',"parameters":' + _value({name: value for name, value in named.items() if value is not None})
            )
        parts.append(b"}")
        body = b"".join(parts)
        head = [self._head, b"Content-Length: %d\r\n" % len(body)]
        if ask.event_time is not None:
            if ask.event_time.tzinfo is None:
                raise BadInput("an event time needs a time zone", found=ask.event_time.isoformat())
            head.append(f"Instar-Event-Time: {ask.event_time.isoformat()}\r\n".encode())
        if ask.key is not None:
            if not ask.key.isprintable() or not ask.key.isascii():
                raise BadInput("a routing key is sent as a header", found=repr(ask.key), asked="printable ASCII")
            head.append(f"Instar-Key: {ask.key}\r\n".encode())
        head.append(b"\r\n")
        return b"".join(head) + body


@dataclass
class _Work:
    """Calls to make, shared by the connections."""

    client: InferClient
    asks: Sequence[Ask]
    done: asyncio.Future[None]
    next: int = 0
    open: int = 0
    flying: int = 0
    answers: list[Answer | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = [None] * len(self.asks)
        self.open = len(self.asks)

    def answer(self, at: int, answer: Answer) -> None:
        self.answers[at] = answer
        self.open -= 1

    def settle(self) -> None:
        """End when all is answered, or when nothing flies and no connection took up the rest."""
        if not self.done.done() and (self.open == 0 or self.flying == 0):
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection with at most one call on it."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._work: _Work | None = None
        self._at = -1
        self._buffer = b""
        self._plain: asyncio.Future[tuple[int, bytes]] | None = None

    def work_on(self, work: _Work) -> None:
        """Take calls until none is left."""
        self._work = work
        self._next()

    async def get(self, path: str, host: str, proof: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        assert self._transport is not None
        self._plain = asyncio.get_running_loop().create_future()
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{proof}\r\n".encode())
        return await self._plain

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = buffer
            return
        head = buffer[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        stop = head.find(b"\r\n", at + 17)
        length = int(head[at + 17 : stop if stop > 0 else end]) if at >= 0 else 0
        if len(buffer) < end + 4 + length:
            self._buffer = buffer
            return
        self._buffer = b""
        status = int(buffer[9:12])
        body = buffer[end + 4 : end + 4 + length]
        if self._plain is not None:
            plain, self._plain = self._plain, None
            plain.set_result((status, body))
            return
        work = self._work
        if work is None:
            return
        start = head.find(b"\r\ninstar-call: ")
        call = buffer[start + 15 : start + 46].decode("ascii") if start >= 0 else ""
        work.answer(self._at, _answer(status, call, body))
        work.flying -= 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._plain is not None:
            self._plain.set_exception(Unavailable("the server closed the connection"))
        work = self._work
        if work is not None and self._at >= 0:
            work.flying -= 1
            work.answer(self._at, Answer(0, "", error="the connection broke before the answer"))
            self._work, self._at = None, -1
            work.settle()

    def _next(self) -> None:
        work = self._work
        assert work is not None
        assert self._transport is not None
        if work.next >= len(work.asks) or self.lost:
            self._work, self._at = None, -1
            work.settle()
            return
        self._at = work.next
        work.next += 1
        work.flying += 1
        try:
            self._transport.write(work.client.encode(work.asks[self._at]))
        except Exception as problem:  # a row that cannot be sent is the caller's error, not one of the loop
            if not work.done.done():
                work.done.set_exception(problem)


_decode_body = msgspec.json.Decoder(_Body).decode
_value = msgspec.json.Encoder().encode


def _json(text: str) -> str:
    return _value(text).decode()


def _answer(status: int, call: str, body: bytes) -> Answer:
    try:
        decoded = _decode_body(body)
    except msgspec.DecodeError:
        return Answer(status, call, error=body[:500].decode(errors="replace"))
    if status != 200:
        return Answer(status, call, error=decoded.error)
    outputs = {output.name: output.data for output in decoded.outputs}
    decisions = outputs.get("decision")
    if "score" not in outputs:
        return Answer(status, call, int(decoded.model_version), error="it answers with tensors, not with a score")
    return Answer(status, call, int(decoded.model_version), outputs["score"][0], decisions[0] if decisions else None)


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())
