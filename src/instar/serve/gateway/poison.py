"""Requests that end the process which works on them: how one is found out in a gateway, and refused from then on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from instar.core.errors import InstarError, StepFailed
from instar.serve.gateway.upstream import Waiter
from instar.serve.protocol import wire

LIMIT = 64  # that are remembered of one worker


class Poison:
    """Requests of one worker that ended a process twice."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._known: OrderedDict[tuple[int, int, int], str] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, plan: int, body: bytes, reason: str) -> StepFailed:
        """Refuse a request from now on; returns the refusal."""
        self._known[plan, len(body), hash(body)] = reason
        if len(self._known) > LIMIT:
            self._known.popitem(last=False)
        return self._refusal(reason)

    def refused(self, plan: int, body: bytes) -> StepFailed | None:
        """Why a request is refused, if it is one of these."""
        reason = self._known.get((plan, len(body), hash(body)))
        return None if reason is None else self._refusal(reason)

    def _refusal(self, reason: str) -> StepFailed:
        return StepFailed(
            "this request ended the process that holds the model twice, and is refused",
            subject=f"worker {self._worker}",
            found=reason,
            next_step="Look at the request, then at the model's owner.",
        )


class OnTrial:
    """Stands before the waiter of a call that is asked alone, since its process died, and hears that it is over.

    Args:
        over: Called when the call was answered, or failed.
    """

    def __init__(self, waiter: Waiter, over: Callable[[], object]) -> None:
        self._waiter, self._over = waiter, over

    def answered(self, reply: wire.Reply) -> None:
        self._over()
        self._waiter.answered(reply)

    def later(self, answers: bytes) -> None:
        self._over()
        self._waiter.later(answers)

    def failed(self, worker: object, problem: InstarError) -> None:
        self._over()
        self._waiter.failed(worker, problem)
