"""Many rows asked of an endpoint in calls of some hundred each, when somebody has a file or a frame of them.

Rows that are refused are told one by one, with the reason, and cost their neighbours nothing: what is left of their call is sent
again without them. A call that finds no room waits as long as the server says. Answers come in the order of the rows.

    for said in Batches([send], endpoint).ask(rows):
        said.number, said.prediction, said.outputs, said.error
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import msgspec

from instar.core.errors import BadInput, NotLoaded, Unavailable
from instar.serve.clients.nested import Spec, nest, shape_of, tensor
from instar.serve.clients.refusal import KINDS

ROWS = 500  # of a call, where nothing else is said
WAIT_SECONDS = 120.0  # for a server that has too much to do, or cannot answer now
AHEAD = 2  # calls for each connection that are read before the first of them is answered

_ROW = re.compile(r"\$\.inputs\[\d+\]\.data\[(\d+)\]")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: Its place among all, from 1.
        values: By input; of a tensor model nested lists.
        fault: Why it cannot even be sent.
    """

    number: int
    values: Mapping[str, Any]
    entity: str | None = None
    fault: str = ""


@dataclass(frozen=True)
class Said:
    """What was said of a row.

    Attributes:
        prediction: Its id on the record; empty where there is none.
        status: Of its call; 0 where it was not sent.
        outputs: Values by output.
        error: Why it was refused; empty if it was answered.
    """

    row: Row
    status: int
    prediction: str = ""
    version: int | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class Reply(msgspec.Struct, frozen=True):
    """An answer over HTTP; `again` are seconds after which to come again."""

    status: int
    call: str
    body: bytes
    again: float = 1.0


def again_seconds(retry_after: str | None) -> float:
    """What the header `Retry-After` says, in seconds; a second where it says none."""
    return float(retry_after) if retry_after and retry_after.isdigit() else 1.0


Send = Callable[[bytes, Mapping[str, str]], Reply]


class Endpoint(msgspec.Struct, frozen=True):
    """What an endpoint takes, as its metadata say.

    Attributes:
        inputs: By name.
        tensors: It is a tensor model's.
        rows: Several rows can be sent in one call.
    """

    inputs: dict[str, Spec]
    tensors: bool
    rows: bool

    @classmethod
    def of(cls, metadata: bytes) -> Endpoint:
        """From the body of `GET /v2/models/{endpoint}`."""
        found = msgspec.json.decode(metadata, type=_Metadata)
        tensors = any("optional" in one.parameters for one in found.inputs)
        return cls({one.name: one for one in found.inputs}, tensors, bool(found.parameters.get("rows", not tensors)))


class Batches:
    """Asks one endpoint.

    Args:
        sends: One for each connection: each sends a call and waits for its answer.
        headers: Of each call.
        table_version: Where the rows were taken from, for the record.
        most: Rows of a call.
    """

    def __init__(
        self, sends: Sequence[Send], endpoint: Endpoint, *, headers: Mapping[str, str] | None = None,
        table_version: str | None = None, most: int = ROWS,
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._table_version = table_version
        self._most = most if endpoint.rows else 1
        self._connections = len(sends)
        self._free: SimpleQueue[Send] = SimpleQueue()
        for send in sends:
            self._free.put(send)

    def ask(self, rows: Iterable[Row]) -> Iterator[Said]:
        """What is said of each row, in their order.

        Raises:
            Unauthenticated, NotAllowed, NotFound: The endpoint may not be asked, or is not there.
            Unavailable: The server is gone, or could not answer for too long.
            NotLoaded: The model cannot be loaded: to wait is of no use.
        """
        flying: deque[Future[list[Said]]] = deque()
        with ThreadPoolExecutor(self._connections) as pool:
            try:
                for group in self._groups(rows):
                    flying.append(pool.submit(self._answers, group))
                    if len(flying) >= AHEAD * self._connections:
                        yield from flying.popleft().result()
                while flying:
                    yield from flying.popleft().result()
            finally:
                for future in flying:
                    future.cancel()

    def _groups(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """Rows that can be sent together."""
        group: list[Row] = []
        kind: object = None
        for row in rows:
            found = self._kind(row)
            if group and (found != kind or len(group) >= self._most or found is None):
                yield group
                group = []
            kind = found
            group.append(row)
        if group:
            yield group

    def _kind(self, row: Row) -> object:
        """Equal for rows that fit together; None for one that goes alone."""
        if row.fault:
            return None
        named = row.entity is not None
        if not self._endpoint.tensors:
            return named
        shapes = {}
        for name, value in row.values.items():
            spec = self._endpoint.inputs.get(name)
            shape = _shape(value, name)
            if spec is None or shape is None or len(shape) == len(spec.shape):
                return None  # a whole tensor, or one that does not fit
            shapes[name] = tuple(shape)
        return (named, tuple(sorted(shapes.items())))

    def _answers(self, group: list[Row]) -> list[Said]:
        send = self._free.get()
        try:
            return sorted(self._worked(send, group), key=lambda said: said.row.number)
        finally:
            self._free.put(send)

    def _worked(self, send: Send, group: list[Row]) -> Iterator[Said]:
        left = [group]
        while left:
            rows = left.pop()
            if rows[0].fault:
                yield Said(rows[0], 0, error=rows[0].fault)
                continue
            try:
                body = self._body(rows)
            except BadInput as problem:
                if len(rows) == 1:
                    yield Said(rows[0], 0, error=str(problem))
                else:
                    left += _halves(rows)
                continue
            reply = self._sent(send, body)
            if reply.status == 200:
                yield from self._read(rows, reply)
                continue
            why, place, _ = _refusal(reply.body)
            if reply.status in KINDS:  # no row is at fault, and no other can be answered
                raise KINDS[reply.status](why)
            match = _ROW.match(place) if reply.status == 400 else None
            at = int(match[1]) if match else -1
            if len(rows) == 1:
                yield Said(rows[0], reply.status, f"{reply.call}/0" if reply.call else "", error=why)
            elif 0 <= at < len(rows):
                yield Said(rows[at], reply.status, error=why)
                left += [part for part in (rows[:at], rows[at + 1 :]) if part]
            else:
                left += _halves(rows)

    def _sent(self, send: Send, body: bytes) -> Reply:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            reply = send(body, self._headers)
            if reply.status not in (429, 503):
                return reply
            why, _, kind = _refusal(reply.body)
            if kind == NotLoaded.__name__:
                raise NotLoaded(why)
            if time.monotonic() > until:
                raise Unavailable(f"it could not answer for {WAIT_SECONDS:g} s", found=why)
            time.sleep(min(max(reply.again, 0.05), 10.0))

    def _body(self, rows: list[Row]) -> bytes:
        known = self._endpoint.inputs
        inputs: list[dict[str, Any]] = []
        for name in known if not self._endpoint.tensors else [one for one in known if one in rows[0].values]:
            values = [row.values.get(name) for row in rows]
            if self._endpoint.tensors:
                inputs.append(tensor(known[name], values[0] if len(rows) == 1 else values))
            elif any(name in row.values for row in rows):
                inputs.append({"name": name, "shape": [len(rows)], "datatype": known[name].datatype, "data": values})
        parameters: dict[str, Any] = {}
        if rows[0].entity is not None:
            parameters["entity"] = [row.entity for row in rows]
        if self._table_version is not None:
            parameters["table_version"] = self._table_version
        return msgspec.json.encode({"inputs": inputs, **({"parameters": parameters} if parameters else {})})

    def _read(self, rows: list[Row], reply: Reply) -> Iterator[Said]:
        found = msgspec.json.decode(reply.body, type=_Body)
        version = int(found.model_version)
        outputs = {one.name: nest(one.data, one.shape) for one in found.outputs}
        by_row = self._endpoint.rows and all(one.shape[:1] == [len(rows)] for one in found.outputs)
        if not by_row:  # one call with a whole tensor, or a model whose call is one prediction
            yield Said(rows[0], 200, f"{reply.call}/0", version, outputs)
            return
        for at, row in enumerate(rows):
            values = {name: given[at] for name, given in outputs.items()}
            yield Said(row, 200, f"{reply.call}/{at}", version, values)


class _Metadata(msgspec.Struct):
    inputs: list[Spec]
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any]


class _Body(msgspec.Struct):
    model_version: str
    outputs: list[_Output]


def _halves(rows: list[Row]) -> list[list[Row]]:
    middle = len(rows) // 2
    return [rows[:middle], rows[middle:]]


def _shape(value: Any, name: str) -> list[int] | None:
    try:
        return shape_of(value, name)
    except BadInput:
        return None


def _refusal(body: bytes) -> tuple[str, str, str]:
    """Why, without the place in our own request; that place; and the error's kind."""
    try:
        facts = msgspec.json.decode(body)
        why, place, kind = str(facts["error"]), str(facts.get("path", "")), str(facts.get("kind", ""))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return body[:300].decode(errors="replace") or "no reason was given", "", ""
    return (why.removeprefix(f"{place}: ") if _ROW.match(place) else why), place, kind
