"""Bodies that are still coming, over all connections of one gateway: how much memory they hold together, from first part to last.

A body that comes in one piece is handed on as it comes and is none of ours. Where others fill what they may hold, small bodies
still find room, who comes slowly has less time, and who would need more is told to come again.
"""

from __future__ import annotations

LARGE_BYTES = 64 * 1024  # a body that holds more is large,
LARGE_SHARE = 0.75  # and large ones leave the rest to the small
PART_BYTES = 64  # that a part costs beside its bytes: who sends letter by letter pays for letters
PACE_BYTES = 16 * 1024  # a second, which is the least that a body must come with after its first seconds
HURRIED_PACE_BYTES = 256 * 1024  # the same while more than half of the room is taken
AGAIN_SECONDS = 5  # after which who found no room should come again


class Arrivals:
    """The room.

    Args:
        most_bytes: That all bodies may hold.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._most_large = int(most_bytes * LARGE_SHARE)
        self.bytes = 0

    @property
    def pace(self) -> int:
        """Bytes a second that a body must come with."""
        return HURRIED_PACE_BYTES if self.bytes * 2 > self._most else PACE_BYTES

    def hold(self, held: int, more: int) -> bool:
        """Hold `more` bytes of a body that holds some already; False where there is no room."""
        if self.bytes + more > (self._most_large if held + more > LARGE_BYTES else self._most):
            return False
        self.bytes += more
        return True

    def release(self, held: int) -> None:
        """A body holds no more: it is handed on, or given up."""
        self.bytes -= held
