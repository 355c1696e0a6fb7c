"""The board of a walk: which steps may begin while others run, decided anew each time that something ends. Pure.

A unit is a step, or one partition of a step that was split. No unit begins before all that it needs is done, each begins
once (again only after `rest` and `wake`), at most `jobs` run at once, and with one job they begin in the given order.

>>> board = Board({"a": [], "b": ["a"], "c": []}, jobs=2)
>>> board.take(), board.take(), board.take()
('a', 'c', None)
>>> board.done("a")
>>> board.take()
'b'
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

U = TypeVar("U")  # hashable


class Board(Generic[U]):
    """What may begin.

    Args:
        needs: For each unit those that must be done before, in the order in which one job would take them.
        jobs: Most units that run at once, 1 or more.
        keep_going: After a failure go on with all that does not depend on it; otherwise begin nothing more.
    """

    def __init__(self, needs: Mapping[U, Iterable[U]], jobs: int = 1, keep_going: bool = False) -> None:
        self._place: dict[U, tuple[int, ...]] = {unit: (number,) for number, unit in enumerate(needs)}
        self._missing: dict[U, set[U]] = {unit: set(needed) for unit, needed in needs.items()}
        self._after: dict[U, list[U]] = {unit: [] for unit in needs}
        for unit, needed in self._missing.items():
            for one in needed:
                self._after[one].append(unit)
        self._jobs, self._keep_going, self._stopped = jobs, keep_going, False
        self._ready: list[tuple[tuple[int, ...], U]] = []
        self.running: set[U] = set()
        self.resting: set[U] = set()
        self._ended: set[U] = set()
        for unit, missing in self._missing.items():
            if not missing:
                self._make_ready(unit)

    def take(self) -> U | None:
        """The next unit to begin; None when none may at present."""
        if self._stopped or len(self.running) >= self._jobs or not self._ready:
            return None
        _, unit = heapq.heappop(self._ready)
        self.running.add(unit)
        return unit

    def split(self, unit: U, parts: Sequence[U]) -> None:
        """Put a running unit back until its parts are done; it then begins again, to join them."""
        self.running.remove(unit)
        self._missing[unit] = set(parts)
        for number, part in enumerate(parts):
            self._place[part] = (*self._place[unit], number)
            self._missing[part], self._after[part] = set(), [unit]
            self._make_ready(part)

    def rest(self, unit: U) -> None:
        """Put a running unit aside, to be woken later: its place is free meanwhile."""
        self.running.remove(unit)
        self.resting.add(unit)

    def wake(self, unit: U) -> None:
        """Let a resting unit begin again."""
        self.resting.remove(unit)
        self._make_ready(unit)

    def done(self, unit: U) -> None:
        """A running unit ended well."""
        self.running.remove(unit)
        self._ended.add(unit)
        for one in self._after[unit]:
            self._missing[one].discard(unit)
            if not self._missing[one] and one not in self._ended:
                self._make_ready(one)

    def fail(self, unit: U) -> list[U]:
        """A running unit failed for good; returns those that can no longer be reached, in order."""
        self.running.remove(unit)
        self._ended.add(unit)
        if not self._keep_going:
            self._stopped = True
        lost: set[U] = set()
        ahead = list(self._after[unit])
        while ahead:
            one = ahead.pop()
            if one not in lost and one not in self._ended:
                lost.add(one)
                ahead += self._after[one]
        self._ended |= lost
        return sorted(lost, key=self._place.__getitem__)

    def finished(self) -> bool:
        """Nothing runs, and nothing will begin."""
        return not self.running and (self._stopped or not (self._ready or self.resting))

    def left(self) -> list[U]:
        """Units that have neither ended nor begun, in order."""
        waiting = (one for one in self._place if one not in self._ended and one not in self.running)
        return sorted(waiting, key=self._place.__getitem__)

    def _make_ready(self, unit: U) -> None:
        heapq.heappush(self._ready, (self._place[unit], unit))
