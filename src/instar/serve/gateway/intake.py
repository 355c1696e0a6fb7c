"""What happens to a call before it flies: who asks, for what and until when; its id and its way; whether there is room for it.

Every protocol (HTTP straight from the connection, HTTP through ASGI, gRPC) brings its calls here and hears of them by a
callback, so there is one way for all, and nothing but a few microseconds between a request's last byte and its worker.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from instar.core import ids
from instar.core.errors import (
    DeadlineExceeded,
    InstarError,
    MalformedRequest,
    NotAcceptable,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)
from instar.serve.access.entrance import Entrance
from instar.serve.access.keyring import Pass
from instar.serve.gateway.arrivals import AGAIN_SECONDS
from instar.serve.gateway.flight import Desk, Fields, Pending, Respond, unrecorded
from instar.serve.gateway.meters import Meters
from instar.serve.gateway.room import Room
from instar.serve.gateway.switchboard import Switchboard
from instar.serve.gateway.ways import Endpoint
from instar.serve.protocol import codings, replies, v2_json, wire
from instar.serve.protocol.places import CONTENT_TYPES, INFER, Place, answer_of, form_of

# After which one hears that there is no room, so that who asks again at once cannot fill the loop.
REFUSED_SECONDS = 0.1
REFUSED_LIMIT = 4096  # who wait to hear so
LONGEST_SECONDS = 600.0  # that a caller may allow a call

JSON = (b"content-type", b"application/json")
_DURATION = re.compile(rb"(\d{1,6}(?:\.\d{1,6})?) ?(ms|s|)\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Intake:
    """Takes the calls of one gateway.

    Args:
        desk: Made with `finished`, which answers calls that are on the record.
        room: How many calls may fly.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: Switchboard,
        entrance: Entrance,
        boot: int,
        desk: Callable[[Callable[[Pending], None]], Desk],
        room: Room | None = None,
    ) -> None:
        self._loop = loop
        self._board = board
        self._entrance = entrance
        self._ids = ids.CallIds(boot)
        self._desk = desk(self._finished)
        self._room = room or Room()
        self._refused: list[tuple[Respond, InstarError]] = []
        self.meters = Meters()

    def take(
        self, place: Place, headers: Sequence[tuple[bytes, bytes]], body: bytes | None, length: int, respond: Respond,
        problem: InstarError | None = None,
    ) -> None:  # fmt: skip
        """Take a call; `respond` is called once, when it is on the record.

        Args:
            headers: Names in small letters.
            body: None where it is larger than may be; `length` is what is known of its size, in bytes.
            problem: Why it cannot be answered, whoever asks; a call on the record like others.
        """
        try:
            held = self._entrance.enter(headers, "POST", place.rule)
            endpoint, version = self._asked(place, held)
        except InstarError as refused:  # it never was a call of this endpoint, so its record does not have it
            respond(*_said(refused))
            return
        started = time.monotonic_ns()
        recorded = time.time_ns() // 1000
        size = len(body) if body is not None else 0
        call = self._ids.next(recorded // 1000)
        key: str | None = None
        at, seconds = recorded, None
        media = head = accept = packed = None
        coding = pack = codings.PLAIN
        for name, value in headers:
            if name == b"content-type":
                media = value
            elif name == b"inference-header-content-length":
                head = value
            elif name == b"accept":
                accept = value if accept is None else accept + b"," + value
            elif name == b"accept-encoding":
                pack = codings.accepted(value)
            elif name == b"content-encoding":
                packed = value if packed is None else packed + b"," + value
            elif name[:7] == b"instar-":
                try:
                    if name == b"instar-key":
                        key = value.decode("latin-1")
                    elif name == b"instar-event-time":
                        at = event_time(value)
                    elif name == b"instar-timeout":
                        seconds = duration(value)
                except MalformedRequest as wrong:
                    problem = wrong
        form, head_bytes = wire.JSON, 0
        if media != b"application/json" or head is not None or place.kind != INFER:
            try:
                form, head_bytes = form_of(place.kind, media, head)
            except InstarError as wrong:
                problem = problem or wrong
        answer = wire.SAME
        try:
            if packed is not None:
                coding = codings.coding_of(packed)
            if accept is not None and accept != b"*/*":
                answer = answer_of(place.kind, form, accept)
        except (UnsupportedMedia, NotAcceptable) as wrong:
            problem = problem or wrong
        if endpoint.call_seconds is not None:
            seconds = min(seconds or endpoint.call_seconds, endpoint.call_seconds)
        caller = held.caller.name
        way = endpoint.pinned[version] if version is not None else endpoint.way(key, call, caller, headers)
        if problem is None:
            full = self._room.refusal(endpoint.name, size, seconds) or self._unrecordable(endpoint.name)
            if full is not None:
                self._turn_away(endpoint.name, respond, full)
                return
        pending = Pending(self._desk, endpoint, way, call, caller, key, at, recorded, started, respond)
        pending.size, pending.ahead = size, self._room.enter(endpoint.name, size)
        if problem is not None:
            pending.refuse(problem)
        elif body is None:
            pending.refuse(_too_large(length))
        elif way is None:
            pending.refuse(_no_champion(endpoint.name))
        else:
            deadline = 0
            if seconds is not None:
                deadline = started + int(seconds * 1e9)
                pending.timer = self._loop.call_later(seconds, pending.refuse, _too_late(seconds))
            pending.start(wire.Ask(body, form, head_bytes, deadline, started, answer, coding, pack))

    def early(self, place: Place, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, Fields, bytes] | None:
        """What a call is answered whatever its body will be, if that is known: who may not ask, or asks what is not there."""
        try:
            self._asked(place, self._entrance.know(headers, "POST", place.rule))
        except InstarError as refused:
            return _said(refused)
        return None

    def crowded(self, place: Place, headers: Sequence[tuple[bytes, bytes]], respond: Respond) -> None:
        """Turn away a call for whose body there is no room while it comes."""
        try:
            endpoint, _ = self._asked(place, self._entrance.know(headers, "POST", place.rule))
        except InstarError as refused:
            respond(*_said(refused))
            return
        problem = Unavailable(
            "bodies that are still coming hold too much memory",
            asked="less at once", next_step="Wait as long as Retry-After says, or send fewer rows a request.",
        )  # fmt: skip
        problem.retry_after = AGAIN_SECONDS
        self._turn_away(endpoint.name, respond, problem)

    def _asked(self, place: Place, held: Pass) -> tuple[Endpoint, int | None]:
        """The endpoint, and the version if one is named, that somebody asks who may.

        Raises:
            NotFound, NotAllowed: There is none, or not for this caller.
        """
        endpoint = self._board.endpoints.get(place.endpoint or self._only())
        if endpoint is None:
            raise _unknown(place.endpoint or "")
        self._entrance.require(held, "POST", place.rule, endpoint.name, endpoint.policy.project)
        return endpoint, None if place.version is None else version_of(endpoint, place.version)

    def _only(self) -> str:
        """The name of the only endpoint."""
        names = list(self._board.endpoints)
        if len(names) != 1:
            raise NotFound(
                "the path names no endpoint, and there is not exactly one", found=", ".join(sorted(names)[:20]) or "none",
                next_step="POST to /endpoints/{endpoint}/invocations.",
            )  # fmt: skip
        return names[0]

    def _unrecordable(self, endpoint: str) -> InstarError | None:
        """Why a call is not even worked on: no answer could be given, as its record cannot be kept."""
        failing = self._desk.log_of(endpoint).failing() if self._desk.stop else None
        return None if failing is None else unrecorded(failing)

    def _turn_away(self, endpoint: str, respond: Respond, problem: InstarError) -> None:
        """Refuse a call for which there is no room. It costs a number in the record, not an entry, and is told with others."""
        self._desk.log_of(endpoint).gap.add(f"{type(problem).__name__}: {problem}", refused=1)
        self.meters.of(endpoint).refuse(replies.status_of(problem))
        self._refused.append((respond, problem))
        if len(self._refused) == 1:
            self._loop.call_later(REFUSED_SECONDS, self._tell_refused)
        elif len(self._refused) >= REFUSED_LIMIT:
            self._tell_refused()

    def _tell_refused(self) -> None:
        refused, self._refused = self._refused, []
        for respond, problem in refused:
            respond(*_said(problem))

    def _finished(self, pending: Pending) -> None:
        name, status = pending.endpoint.name, pending.status
        if pending.timer is not None:
            pending.timer.cancel()
        spent = time.monotonic_ns() - pending.started
        told = status in (200, 504) and not pending.cold
        self._room.leave(name, pending.size, pending.ahead, spent / 1e9 if told else None, late=status == 504)
        self.meters.of(name).add(status, spent)
        fields: Fields = [
            JSON if pending.form == wire.JSON else (b"content-type", CONTENT_TYPES[pending.form]),
            (b"instar-call", pending.call.encode()),
        ]
        if pending.coding:
            fields.append((b"content-encoding", codings.WORDS[pending.coding]))
        if pending.form == wire.BINARY:
            fields.append((b"inference-header-content-length", b"%d" % pending.head))
        if status in (429, 503):
            fields.append((b"retry-after", b"%d" % self._room.wait(name)))
        if pending.unrecorded:
            self.meters.unrecorded += 1
            fields.append((b"instar-record", b"missing"))
        pending.respond(status, fields, pending.body)


def _said(problem: InstarError) -> tuple[int, Fields, bytes]:
    """What somebody hears who is refused."""
    return replies.status_of(problem), [JSON, *replies.headers_of(problem)], replies.encode_error(problem)


def version_of(endpoint: Endpoint, text: str) -> int:
    """The version that a path names.

    Raises:
        NotFound: The endpoint's policy does not name it.
    """
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) in endpoint.pinned:
        return int(text)
    raise NotFound(
        "the endpoint's policy names no such version",
        subject=f"endpoint {endpoint.name}",
        found=repr(text[:40]),
        asked=", ".join(str(v) for v in endpoint.pinned) or "none yet",
    )


def event_time(value: bytes) -> int:
    """Microseconds since 1970 of an RFC 3339 time.

    Raises:
        MalformedRequest: It is none, or without a time zone.
    """
    try:
        moment = datetime.fromisoformat(value.decode("ascii"))
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        delta = moment - _EPOCH
    except (ValueError, OverflowError) as problem:
        raise MalformedRequest(
            f"the header Instar-Event-Time is not a time: {problem}",
            found=repr(value[:40]),
            asked="RFC 3339, as in 2013-03-01T08:15:00Z",
        ) from None
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def duration(value: bytes) -> float:
    """Seconds that a caller allows.

    Raises:
        MalformedRequest: It is no duration, or a longer one than a call may take.
    """
    match = _DURATION.match(value)
    seconds = float(match[1]) / (1000 if match[2] == b"ms" else 1) if match else 0.0
    if not 0 < seconds <= LONGEST_SECONDS:
        raise MalformedRequest(
            "the header Instar-Timeout is not a duration",
            found=repr(value[:40]),
            asked=f"seconds or milliseconds, as in 0.5, 2s or 250ms, up to {LONGEST_SECONDS:g}s",
        )
    return seconds


def _too_large(length: int) -> TooLarge:
    return TooLarge(
        "the request's body is too large",
        found=f"{max(length, v2_json.BODY_LIMIT_BYTES + 1)} bytes",
        asked=f"{v2_json.BODY_LIMIT_BYTES} bytes",
        next_step="Send fewer rows a request.",
    )


def _no_champion(endpoint: str) -> Unavailable:
    return Unavailable(
        "it has no champion yet", subject=f"endpoint {endpoint}", next_step="Promote a version: `instar promote`."
    )


def _too_late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        "the caller's time was over before a model answered",
        asked=f"{seconds:g} s",
        next_step="Allow more time, or try again later.",
    )


def _unknown(name: str) -> NotFound:
    return NotFound(
        "there is no such endpoint", subject=f"endpoint {name[:100]}", next_step="GET /v2 lists the endpoints."
    )
