"""One process at a time: a lock on a file, held while several processes of a store would write the same thing."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing; whoever comes meanwhile waits.

    What holds it is gone with its process. Each call opens the file anew, so threads of one process wait for each other, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
