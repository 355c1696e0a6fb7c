"""One call in flight in a gateway: from the choice of its way to its place on the record.

A call waits for one worker, the one that answers. Others work on it beside that one for the record alone; what they say may
come before the answer or long after, and is written after the call's own entry in the same segment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from instar.core import telemetry
from instar.core.errors import InstarError, Unavailable
from instar.serve.gateway.ways import Endpoint, Way
from instar.serve.log import record
from instar.serve.log.commit import EndpointLog, Segment
from instar.serve.protocol import replies, wire

_left_out = telemetry.counter(
    "instar_shadows_left_out_total", "Calls that a shadow did not hear, since it had too much to do", ("endpoint",)
)

Fields = list[tuple[bytes, bytes]]  # of an answer's head
Respond = Callable[[int, Fields, bytes], object]


class Timer(Protocol):
    """What ends a call's waiting at its deadline."""

    def cancel(self) -> None:
        """It is answered: nothing is to be done any more."""


@dataclass(frozen=True)
class Desk:
    """What a call needs of its gateway.

    Attributes:
        log_of: The log of an endpoint in this gateway.
        finished: Called with each call that is on the record and can be answered.
        stop: A call whose record cannot be kept is refused; else it is answered all the same, and counted.
    """

    log_of: Callable[[str], EndpointLog]
    finished: Callable[[Pending], object]
    stop: bool = True


class Pending:
    """One call in flight: what is known of it, and what is still to come for its record.

    Attributes:
        caller: Who calls.
        at: Event time; `recorded` is the wall time of its arrival; both microseconds since 1970.
        started: Monotonic, nanoseconds, when its last byte came; `sent` when it was handed to a worker.
        respond: Given the status, headers and body of the answer.
        status, body, form, head, coding: The answer, once it is there.
        size: Bytes that it holds in memory; `ahead` calls of its endpoint flew when it came, itself among them.
        timer: Refuses it at its deadline.
        cold: No process took calls when it came: how long it takes says nothing of the calls after it.
        unrecorded: Its answer is not on the record, and given all the same.
    """

    __slots__ = (
        "_dead",
        "_desk",
        "_early",
        "_laters",
        "_segment",
        "ahead",
        "at",
        "body",
        "call",
        "caller",
        "coding",
        "cold",
        "endpoint",
        "form",
        "head",
        "key",
        "recorded",
        "respond",
        "sent",
        "size",
        "started",
        "status",
        "timer",
        "unrecorded",
        "way",
    )  # fmt: skip

    def __init__(
        self,
        desk: Desk,
        endpoint: Endpoint,
        way: Way | None,
        call: str,
        caller: str,
        key: str | None,
        at: int,
        recorded: int,
        started: int,
        respond: Respond,
    ) -> None:
        self._desk = desk
        self.endpoint = endpoint
        self.way = way
        self.call = call
        self.caller = caller
        self.key = key
        self.at = at
        self.recorded = recorded
        self.started = self.sent = started
        self.respond = respond
        self.status = self.size = 0
        self.ahead = 1
        self.body = b""
        self.form, self.head, self.coding = wire.JSON, 0, 0
        self.timer: Timer | None = None
        self.cold = self.unrecorded = False
        self._laters = 0
        self._early: list[bytes] | None = None
        self._segment: Segment | None = None
        self._dead = False

    def start(self, ask: wire.Ask) -> None:
        """Hand the call to the workers of its way."""
        way = self.way
        assert way is not None
        self.sent = time.monotonic_ns()
        first = way.first
        self._laters = first.messages - 1
        self.cold = not first.line.up
        problem = first.line.send(first.plan, ask, self, first.messages)
        if problem is not None:
            self.refuse(problem)
            return
        for leg in way.others:
            if leg.full():
                _left_out.labels(self.endpoint.name).inc()
            elif leg.line.send(leg.plan, ask, self, 1) is None:
                self._laters += 1

    def answered(self, reply: wire.Reply) -> None:
        """The answer came: put it on the record."""
        if self.status:
            return  # it was refused meanwhile
        self.status, self.body = reply.status, reply.body
        self.form, self.head, self.coding = reply.form, reply.head, reply.coding
        if reply.status == 200:
            self._record(None, reply.work, reply.personal)
        else:
            self._dead = True
            self._record(reply.work.decode(), None, b"")

    def later(self, answers: bytes) -> None:
        """Answers for the record alone came."""
        self._laters -= 1
        if self._dead:
            return
        segment = self._segment
        if segment is None:
            # Before the call's own entry, which readers want first.
            if answers != record.NO_ANSWERS:
                self._early = [*(self._early or ()), answers]
            return
        self._write_later(segment, answers)
        if self._laters == 0:
            segment.waiting -= 1

    def failed(self, worker: object, problem: InstarError) -> None:
        """Nothing more will come from a worker."""
        way = self.way
        if self.status == 0 and way is not None and worker is way.first.line:
            self.refuse(problem)
            return
        # What is lost is only what the record would have heard beside the answer.
        self.later(record.NO_ANSWERS)

    def refuse(self, problem: InstarError) -> None:
        """Put a failed call on the record."""
        if self.status:
            return
        self.status = replies.status_of(problem)
        self.body = replies.encode_error(problem)
        self._dead = True
        self._record(f"{type(problem).__name__}: {problem}"[:500], None, b"")

    def told(self, broken: str | None) -> None:
        """The record is kept, or cannot be: then, unless the settings say otherwise, there is no answer either."""
        if broken is not None:
            gap = self._desk.log_of(self.endpoint.name).gap
            if self._desk.stop:
                gap.add(broken, refused=1)
                self.status, self.body = 503, replies.encode_error(unrecorded(broken))
                self.form, self.head, self.coding = wire.JSON, 0, 0
            else:
                gap.add(broken, answered=1)
                self.unrecorded = True
        self._desk.finished(self)

    def _record(self, error: str | None, work: bytes | None, personal: bytes) -> None:
        desk, endpoint, way = self._desk, self.endpoint, self.way
        log = desk.log_of(endpoint.name)
        failing = log.failing()
        if failing is not None:
            self._dead = True
            self.told(failing)
            return
        now = time.monotonic_ns()
        key = self.key
        salt = sealed = None
        if personal:
            # Where a column is personal, so are the keys by which callers name rows and people.
            part = record.decode_personal(personal)
            sealed = record.encode_entry(record.Personal(part.columns, part.entities, key))
        elif key is not None and endpoint.schema.personal:  # it failed, and its key tells of somebody all the same
            sealed = record.encode_entry(record.Personal({}, None, key))
        if sealed is not None:
            salt, key = os.urandom(record.SALT_BYTES), None
        metadata = record.encode_call(
            self.call, self.at, self.recorded, self.caller, endpoint.policy.number,
            way.reason if way else "", way.version if way else None, key, self.status,
            (now - self.started) // 1000, (now - self.sent) // 1000, error, work,
            0 if self._dead else self._laters + len(self._early or ()),
        )  # fmt: skip
        segment = log.current()
        if work is not None:
            log.schema(segment, endpoint.schema)
        log.append(segment, metadata, self.told, salt, sealed)
        if self._dead:
            return
        self._segment = segment
        if self._early is not None:
            for answers in self._early:
                self._write_later(segment, answers)
            self._early = None
        if self._laters > 0:
            segment.waiting += 1

    def _write_later(self, segment: Segment, answers: bytes) -> None:
        if answers != record.NO_ANSWERS:
            entry = record.encode_later(self.call, time.time_ns() // 1000, answers)
            self._desk.log_of(self.endpoint.name).later(segment, entry)


def unrecorded(broken: str) -> Unavailable:
    """Why a call is refused whose record cannot be kept."""
    return Unavailable(
        "the answer could not be put on the record",
        found=broken,
        next_step="Free space on the server's disk, or look at its log; then call again.",
    )
