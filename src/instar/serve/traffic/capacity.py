"""How many processes each version has, decided by the root every moment: pure rules over what was measured.

A version gets another process when calls wait in a queue and a core is free; it loses one that nobody used; and where
memory is short, the version that was used longest ago goes first. What is reserved stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

QUEUE_SECONDS = 0.05  # a call that waits longer for its turn calls for another process
QUIET_SECONDS = 15.0  # without need of its last process, a version gives it back
IDLE_SECONDS = 900.0


class Terms(msgspec.Struct, frozen=True):
    """What is agreed for the processes of an endpoint's versions (`[problem.X.serving]`).

    Attributes:
        reserve: Its champion is loaded from the start of the server, and stays.
        idle_seconds: Without a call, after which a version's own process ends; None: the server's default.
        most: Processes of one version at most; None: as many as there are cores.
        memory_bytes: Of one process at most: beyond it the process is replaced; None: the server's default.
        retry: A call whose process died is asked once more of another one.
        call_seconds: Of a call whose caller does not say how long it has, and at most of any; None: the server's limit.
    """

    reserve: bool = False
    idle_seconds: float | None = None
    most: int | None = None
    memory_bytes: int | None = None
    retry: bool = True
    call_seconds: float | None = None


DEFAULT = Terms()


def together(terms: Sequence[Terms]) -> Terms:
    """What holds for a process that several endpoints use: the most that one of them asks for."""
    if not terms:
        return DEFAULT
    idle = [one.idle_seconds for one in terms]
    most = [one.most for one in terms]
    memory = [one.memory_bytes for one in terms]
    limits = [one.call_seconds for one in terms]
    return Terms(
        any(one.reserve for one in terms),
        None if None in idle else max(value for value in idle if value is not None),
        None if None in most else max(value for value in most if value is not None),
        None if None in memory else max(value for value in memory if value is not None),
        all(one.retry for one in terms),
        None if None in limits else max(value for value in limits if value is not None),
    )


@dataclass(frozen=True)
class Standing:
    """One worker as it was measured.

    Attributes:
        copies: Processes that take calls or are coming.
        flying: Calls handed to them and not answered, over all gateways.
        oldest_seconds: How long the oldest of them has waited.
        used: Moment of its last call (monotonic).
        bytes: Memory of all its processes.
    """

    worker: str
    copies: int
    flying: int
    oldest_seconds: float
    used: float
    bytes: int = 0
    kept: bool = False


def wants_more(one: Standing, busy: int, cores: int, most: int) -> bool:
    """Should it have another process?

    Args:
        busy: Processes of all workers that have calls now.
        most: Processes of this worker.
    """
    waits = one.flying > one.copies and one.oldest_seconds > QUEUE_SECONDS
    return waits and 0 < one.copies < most and busy < cores


def to_give_up(standings: Sequence[Standing], budget_bytes: int) -> list[str]:
    """Workers that end so that the rest fits the budget: used longest ago first, none that has calls or is kept."""
    total = sum(one.bytes for one in standings)
    given: list[str] = []
    for one in sorted(standings, key=lambda one: one.used):
        if total <= budget_bytes:
            break
        if one.copies and not one.flying and not one.kept:
            given.append(one.worker)
            total -= one.bytes
    return given
