"""How the root begins worker processes: forked from a warm one where that is sound, else started afresh.

The model of a worker whose version has an environment of its own lives in a process of that (`outside`), begun beside it.

The warm process begins with the first version that needs a process of its own, and imports while nobody waits.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property

from instar.serve.processes.children import Process
from instar.serve.processes.threads import bounded
from instar.serve.processes.zygote import Spawned, Zygote
from instar.serve.root.outside import Outside, Shim, mark_of

_log = logging.getLogger("instar.serve")


class Nursery:
    """Begins workers.

    Args:
        common: Tells the arguments of every worker, when there is to be one.
        fork: Whether workers may be forked; by default where the system can.
    """

    def __init__(self, common: Callable[[], Sequence[str]], *, fork: bool = sys.platform == "linux") -> None:
        self._tell_common = common
        self._fork = fork
        self._zygote: Zygote | None = None
        self._asked: dict[int, list[str]] = {}
        self._born: list[tuple[int, Process]] = []
        self._outside = Outside()

    @cached_property
    def _common(self) -> list[str]:
        return list(self._tell_common())

    def filenos(self) -> list[int]:
        """What to wait for."""
        return [*([] if self._zygote is None else [self._zygote.fileno()]), *self._outside.filenos()]

    def pids(self) -> list[int]:
        """The warm processes."""
        return [*([] if self._zygote is None else [self._zygote.process.pid]), *self._outside.pids()]

    @property
    def shims(self) -> dict[int, Shim]:
        """The processes of other environments that were forked, by the numbers of the workers they belong to."""
        return self._outside.shims

    def expect(self, arguments: Sequence[str]) -> None:
        """A worker with such arguments may be needed: have what it needs imported."""
        if not self._fork:
            return
        try:
            if self._zygote is None:
                command = [sys.executable, "-m", "instar.serve.worker.warm"]
                self._zygote = Zygote.start(command, environment=bounded())
            self._zygote.warm([*self._common, *arguments])
            self._outside.expect(arguments)
        except OSError as problem:  # it is busy with importing, or gone, which `born` hears
            _log.debug("the warm process was not told: %s", problem)

    def start(self, number: int, arguments: Sequence[str], *, forked: bool) -> Process | None:
        """Begin a worker; None where it is told later, by `born`."""
        full = [*self._common, *arguments]
        line = self._outside.begin(number, arguments) if forked and self._fork else None
        if line is None:
            return self._start(number, full, (), forked=forked)
        with line:
            return self._start(number, full, (line.fileno(),), forked=forked)

    def _start(self, number: int, full: list[str], fds: tuple[int, ...], *, forked: bool) -> Process | None:
        if forked and self._fork and self._zygote is not None:
            try:
                self._zygote.spawn(number, full, fds)
                self._asked[number] = full
                return None
            except OSError as problem:
                _log.warning("a worker is started afresh, not forked: %s", problem)
        shim = ["--shim", str(fds[0])] if fds else []
        return _afresh([*full, *shim], fds)

    def born(self) -> list[tuple[int, Process]]:
        """Workers that were begun since, by their number."""
        self._outside.hear()
        if self._zygote is not None:
            try:
                for said in self._zygote.hear():
                    if isinstance(said, Spawned):
                        self._told(said)
            except EOFError:
                _log.warning("the warm process ended; workers are started afresh until there is another")
                self.restart()
        born, self._born = self._born, []
        return born

    def restart(self) -> None:
        """Give up the warm process; who waited for a child of it is started afresh."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()
        asked, self._asked = self._asked, {}
        for number, full in asked.items():
            self._born.append((number, _afresh(full)))

    def close(self) -> None:
        """End the warm processes."""
        self._outside.close()
        self._asked.clear()
        self.restart()

    def _told(self, said: Spawned) -> None:
        full = self._asked.pop(said.request, None)
        if said.pid:
            self._born.append((said.request, Process(said.pid, mark=mark_of(full or []))))
        elif full is not None:
            _log.warning("a worker is started afresh, not forked: %s", said.error)
            self._born.append((said.request, _afresh(full)))


def _afresh(arguments: list[str], fds: tuple[int, ...] = ()) -> Process:
    return Process.start(
        [sys.executable, "-m", "instar.serve.worker.worker", *arguments], fds, bounded(), mark_of(arguments)
    )


def may_fork() -> bool:
    """Whether workers are forked here: `INSTAR_FORK=off` has each started afresh."""
    return sys.platform == "linux" and os.environ.get("INSTAR_FORK", "on").lower() not in ("off", "0", "no", "false")
