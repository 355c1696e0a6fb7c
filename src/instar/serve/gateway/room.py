"""Room for calls in one gateway: how many may fly, over all and by endpoint, and how long the next one would wait, at each call.

A queue is bounded in calls, in bytes and in time. The time is an estimate: each call that is answered says how long it took
and how many flew when it came, so what one call takes of the queue is known, and with it when the next would be answered.
A call that would be answered too late is refused at once: a model that works on it works for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from instar.core.errors import InstarError, TooManyCalls, Unavailable

FLYING_LIMIT = 8192  # calls in flight
FLYING_LIMIT_BYTES = 256 * 1024 * 1024  # of their bodies together
QUEUE_SECONDS = 10.0  # that a call may have to wait whose caller does not say how long it has
ALWAYS = 4  # calls of an endpoint that fly whatever the estimate says: a wrong one would never be mended
MARGIN = 0.7  # of a caller's time that the estimate may take: what is answered too late was worked on for nobody
MEMORY = 1 / 16  # weight of the newest call in what one call takes
LONGEST_SECONDS = 60  # that somebody is told to wait


@dataclass
class Queue:
    """The calls of one endpoint.

    Attributes:
        seconds: What one call takes of the queue, as calls were answered lately.
    """

    flying: int = 0
    seconds: float = 0.0


class Room:
    """Who may fly.

    Args:
        calls: In flight at most; one endpoint has half of them, so that its flood leaves room for the others.
        calls_bytes: Of their bodies together.
        queue_seconds: That a call may have to wait whose caller gave no time.
    """

    def __init__(
        self,
        calls: int = FLYING_LIMIT,
        calls_bytes: int = FLYING_LIMIT_BYTES,
        queue_seconds: float = QUEUE_SECONDS,
    ) -> None:
        self._calls = calls
        self._share = max(1, calls // 2)
        self._most_bytes = calls_bytes
        self._queue_seconds = queue_seconds
        self._queues: dict[str, Queue] = {}
        self.flying = 0
        self.bytes = 0

    def refusal(self, endpoint: str, size: int, seconds: float | None) -> InstarError | None:
        """Why a call may not fly now; its `retry_after` says when another may.

        Args:
            size: Bytes of its body.
            seconds: Within which its caller wants the answer, if it says so.
        """
        queue = self._queues.get(endpoint)
        flying = queue.flying if queue is not None else 0
        if self.flying >= self._calls:
            return self._busy("too many calls are waiting", self.flying, f"{self._calls} at most", endpoint)
        if self.bytes + size > self._most_bytes:
            return self._busy("calls that wait hold too much memory", self.bytes, f"{self._most_bytes} bytes", endpoint)
        if queue is None or flying < ALWAYS:
            return None
        if flying >= self._share:
            return self._crowded(endpoint, "too many of its calls are waiting", str(flying), f"{self._share} at most")
        wait = queue.seconds * (flying + 1)
        patience = self._queue_seconds if seconds is None else seconds * MARGIN
        if wait > patience:
            return self._crowded(
                endpoint, "it would not be answered in time", f"a wait of about {wait:.3g} s", f"{patience:g} s"
            )
        return None

    def enter(self, endpoint: str, size: int) -> int:
        """A call flies; returns how many of its endpoint do now."""
        queue = self._queues.get(endpoint)
        if queue is None:
            queue = self._queues[endpoint] = Queue()
        queue.flying += 1
        self.flying += 1
        self.bytes += size
        return queue.flying

    def leave(self, endpoint: str, size: int, ahead: int, seconds: float | None, *, late: bool = False) -> None:
        """A call is over.

        Args:
            ahead: What `enter` returned.
            seconds: That it took; None when it was not answered, and says nothing of others.
            late: It was given up after that time, so it would have taken longer: a model that gets slow is known by that.
        """
        queue = self._queues[endpoint]
        queue.flying -= 1
        self.flying -= 1
        self.bytes -= size
        if seconds is not None:
            each = seconds / ahead
            if late and each <= queue.seconds:
                return
            queue.seconds = each if not queue.seconds else queue.seconds + (each - queue.seconds) * MEMORY

    def wait(self, endpoint: str) -> int:
        """Whole seconds until half of an endpoint's queue is done, 1 at least."""
        queue = self._queues.get(endpoint)
        seconds = queue.seconds * queue.flying / 2 if queue is not None else 0.0
        return max(1, min(LONGEST_SECONDS, round(seconds)))

    def _busy(self, what: str, found: int, asked: str, endpoint: str) -> Unavailable:
        problem = Unavailable(what, found=found, asked=asked, next_step="Wait as long as Retry-After says.")
        problem.retry_after = self.wait(endpoint)
        return problem

    def _crowded(self, endpoint: str, what: str, found: str, asked: str) -> TooManyCalls:
        problem = TooManyCalls(
            what, subject=f"endpoint {endpoint}", found=found, asked=asked,
            next_step="Wait as long as Retry-After says, or send fewer at once.",
        )  # fmt: skip
        problem.retry_after = self.wait(endpoint)
        return problem
