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
    NotFound,
    TooLarge,
    TooManyCalls,
    Unavailable,
    UnsupportedMedia,
)
from instar.serve import protocol, replies, wire
from instar.serve.entrance import Entrance
from instar.serve.flight import Desk, Fields, Pending, Respond
from instar.serve.meters import Meters
from instar.serve.places import CONTENT_TYPES, INFER, Place, form_of
from instar.serve.switchboard import Endpoint, Switchboard

FLYING_LIMIT = 8192  # calls in flight; more are refused at once instead of waiting for ever
ENDPOINT_LIMIT = 4096  # of one endpoint, so that the flood of one leaves room for the others
FLYING_LIMIT_BYTES = 256 * 1024 * 1024  # of their bodies together
LONGEST_SECONDS = 600.0  # that a caller may allow a call

JSON = (b"content-type", b"application/json")
_DURATION = re.compile(rb"(\d{1,6}(?:\.\d{1,6})?) ?(ms|s|)\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Intake:
    """Takes the calls of one gateway.

    Args:
        desk: Made with `finished`, which answers calls that are on the record.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: Switchboard,
        entrance: Entrance,
        boot: int,
        desk: Callable[[Callable[[Pending], None]], Desk],
    ) -> None:
        self._loop = loop
        self._board = board
        self._entrance = entrance
        self._ids = ids.CallIds(boot)
        self._desk = desk(self._finished)
        self._flying = self._flying_bytes = 0
        self._of_endpoint: dict[str, int] = {}
        self.meters = Meters()

    def take(
        self, place: Place, headers: Sequence[tuple[bytes, bytes]], body: bytes | None, length: int, respond: Respond
    ) -> None:
        """Take a call; `respond` is called once, when it is on the record.

        Args:
            headers: Names in small letters.
            body: None where it is larger than may be; `length` is what is known of its size, in bytes.
        """
        try:
            held = self._entrance.enter(headers, "POST", place.rule)
            endpoint = self._board.endpoints.get(place.endpoint or self._only())
            if endpoint is None:
                raise _unknown(place.endpoint or "")
            self._entrance.require(held, "POST", place.rule, endpoint.name, endpoint.policy.project)
            version = None if place.version is None else version_of(endpoint, place.version)
        except InstarError as refused:  # it never was a call of this endpoint, so its record does not have it
            status, fields = replies.status_of(refused), [JSON, *replies.headers_of(refused)]
            respond(status, fields, replies.encode_error(refused))
            return
        started = time.perf_counter_ns()
        recorded = time.time_ns() // 1000
        call = self._ids.next(recorded // 1000)
        key: str | None = None
        at, deadline = recorded, 0
        problem: InstarError | None = None
        media = head = None
        for name, value in headers:
            if name == b"content-type":
                media = value
            elif name == b"inference-header-content-length":
                head = value
            elif name == b"content-encoding" and value.lower() != b"identity":
                problem = UnsupportedMedia(
                    "the body is compressed", subject="Content-Encoding", found=repr(value[:40]), asked="no compression"
                )
            elif name[:7] == b"instar-":
                try:
                    if name == b"instar-key":
                        key = value.decode("latin-1")
                    elif name == b"instar-event-time":
                        at = event_time(value)
                    elif name == b"instar-timeout":
                        deadline = time.monotonic_ns() + int(duration(value) * 1e9)
                except MalformedRequest as wrong:
                    problem = wrong
        form, head_bytes = wire.JSON, 0
        if media != b"application/json" or head is not None or place.kind != INFER:
            try:
                form, head_bytes = form_of(place.kind, media, head)
            except InstarError as wrong:
                problem = problem or wrong
        way = endpoint.pinned[version] if version is not None else endpoint.way(key if key is not None else call)
        pending = Pending(self._desk, endpoint, way, call, held.caller.name, key, at, recorded, started, respond)
        if problem is None:
            problem = self._no_room(endpoint, body, length)
        if problem is None and way is None:
            problem = Unavailable(
                "it has no champion yet",
                subject=f"endpoint {endpoint.name}",
                next_step="Promote a version: `instar promote`.",
            )
        self._flying += 1
        self._of_endpoint[endpoint.name] = self._of_endpoint.get(endpoint.name, 0) + 1
        if problem is not None or body is None:
            assert problem is not None
            pending.refuse(problem)
            return
        pending.size = len(body)
        self._flying_bytes += pending.size
        if deadline:
            pending.timer = self._loop.call_at(
                self._loop.time() + (deadline - time.monotonic_ns()) / 1e9, pending.refuse, _too_late()
            )
        pending.start(wire.Ask(body, form, head_bytes, deadline))

    def _only(self) -> str:
        """The name of the only endpoint."""
        names = list(self._board.endpoints)
        if len(names) != 1:
            raise NotFound(
                "the path names no endpoint, and there is not exactly one", found=", ".join(sorted(names)[:20]) or "none",
                next_step="POST to /endpoints/{endpoint}/invocations.",
            )  # fmt: skip
        return names[0]

    def _no_room(self, endpoint: Endpoint, body: bytes | None, length: int) -> InstarError | None:
        if body is None:
            return TooLarge(
                "the request's body is too large",
                found=f"{max(length, protocol.BODY_LIMIT_BYTES + 1)} bytes",
                asked=f"{protocol.BODY_LIMIT_BYTES} bytes",
                next_step="Send fewer rows a request.",
            )
        if self._flying >= FLYING_LIMIT or self._flying_bytes > FLYING_LIMIT_BYTES:
            return Unavailable(
                "too many calls are waiting",
                found=self._flying,
                asked=f"{FLYING_LIMIT} at most",
                next_step="Send it again later.",
            )
        if self._of_endpoint.get(endpoint.name, 0) >= ENDPOINT_LIMIT:
            return TooManyCalls(
                "too many of its calls are waiting",
                subject=f"endpoint {endpoint.name}",
                found=self._of_endpoint[endpoint.name],
                asked=f"{ENDPOINT_LIMIT} at most",
                next_step="Send it again later, or fewer at once.",
            )
        return None

    def _finished(self, pending: Pending) -> None:
        self._flying -= 1
        self._of_endpoint[pending.endpoint.name] -= 1
        self._flying_bytes -= pending.size
        if pending.timer is not None:
            pending.timer.cancel()
        status = pending.status
        self.meters.of(pending.endpoint.name).add(status, time.perf_counter_ns() - pending.started)
        fields: Fields = [
            JSON if pending.form == wire.JSON else (b"content-type", CONTENT_TYPES[pending.form]),
            (b"instar-call", pending.call.encode()),
        ]
        if pending.form == wire.BINARY:
            fields.append((b"inference-header-content-length", b"%d" % pending.head))
        if status in (429, 503):
            fields.append((b"retry-after", b"1"))
        pending.respond(status, fields, pending.body)


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


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the caller's time was over before a model answered", next_step="Allow more time, or try again later."
    )


def _unknown(name: str) -> NotFound:
    return NotFound(
        "there is no such endpoint", subject=f"endpoint {name[:100]}", next_step="GET /v2 lists the endpoints."
    )
