"""Lines of calls that take turns: in a worker that many endpoints share, the flood of one holds up none of the others.

Each endpoint has a line. A turn takes some calls of the first line, which then goes to the end if it has more: so a call waits
for one turn of each other endpoint at most, however many calls those have.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """The lines.

    Args:
        alone: Items of a turn at most, while there is one line.
        shared: The same while there are more.
        size: Bytes of a turn, after which it ends.
    """

    def __init__(self, alone: int, shared: int, size: int) -> None:
        self._alone = alone
        self._shared = shared
        self._size = size
        self._lines: OrderedDict[str, deque[tuple[T, int]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, line: str, item: T, size: int) -> None:
        """One more at the end of a line."""
        items = self._lines.get(line)
        if items is None:
            items = self._lines[line] = deque()
        items.append((item, size))

    def take(self) -> list[T]:
        """One turn; empty when nobody waits."""
        if not self._lines:
            return []
        most = self._alone if len(self._lines) == 1 else self._shared
        name, items = next(iter(self._lines.items()))
        taken: list[T] = []
        size = 0
        while items and len(taken) < most and size < self._size:
            item, its_size = items.popleft()
            taken.append(item)
            size += its_size
        if items:
            self._lines.move_to_end(name)
        else:
            del self._lines[name]
        return taken
