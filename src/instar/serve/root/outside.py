"""Warm processes of environments that are not ours, from which the root forks the shim of a worker while a server runs.

One a environment, begun with the first version that runs in it; a second version in the same environment imports nothing anew.
What cannot be forked (an environment that is not built, or a Python before 3.9) is started by the worker itself.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from instar.core.errors import Unavailable
from instar.serve.processes.numeric_threads import bounded
from instar.serve.processes.zygote import Spawned, Zygote
from instar.serve.worker import shim
from instar.train import environment_places as places

SHIMS_LIMIT = 4096  # whose process is remembered

_log = logging.getLogger("instar.serve")


class Outside:
    """Begins shims, by the arguments of the worker that each belongs to."""

    def __init__(self) -> None:
        self._zygotes: dict[str, Zygote] = {}
        self._useless: set[str] = set()
        self._pids: dict[int, int] = {}

    def filenos(self) -> list[int]:
        """What to wait for."""
        return [zygote.fileno() for zygote in self._zygotes.values()]

    def pids(self) -> list[int]:
        """The warm processes."""
        return [zygote.process.pid for zygote in self._zygotes.values()]

    def shim_of(self, number: int) -> int | None:
        """The shim that belongs to a worker's process, as far as it was forked from here."""
        return self._pids.get(number)

    def expect(self, arguments: Sequence[str]) -> None:
        """A worker with such arguments may be needed: have what it needs imported."""
        zygote = self._zygote(arguments)
        if zygote is not None:
            try:
                zygote.warm(arguments)
            except OSError as problem:  # it is busy with importing, or gone, which `hear` hears
                _log.debug("a warm process was not told: %s", problem)

    def begin(self, number: int, arguments: Sequence[str]) -> socket.socket | None:
        """Begin the shim of a worker; returns the worker's end of the socket between them, or None if it must start its own."""
        zygote = self._zygote(arguments)
        if zygote is None:
            return None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                zygote.spawn(number, arguments, [theirs.fileno()])
            except OSError as problem:
                _log.warning("a process of another environment is started afresh, not forked: %s", problem)
                ours.close()
                return None
        return ours

    def hear(self) -> None:
        """Take up what the warm processes said."""
        for name, zygote in list(self._zygotes.items()):
            try:
                for said in zygote.hear():
                    if isinstance(said, Spawned) and said.pid:
                        self._pids[said.request] = said.pid
                    elif isinstance(said, Spawned):  # its worker finds the line closed, ends, and is begun again
                        _log.warning("environment %s: no process could be forked: %s", name[:11], said.error)
            except EOFError:
                _log.warning("environment %s: its warm process ended; its workers start their own", name[:11])
                del self._zygotes[name]
                self._useless.add(name)
                zygote.close()
        while len(self._pids) > SHIMS_LIMIT:
            del self._pids[next(iter(self._pids))]

    def close(self) -> None:
        """End the warm processes."""
        for zygote in self._zygotes.values():
            zygote.close()
        self._zygotes.clear()

    def _zygote(self, arguments: Sequence[str]) -> Zygote | None:
        """The warm process of the environment that these arguments name, begun if it is not there."""
        if "--environment" not in arguments:
            return None
        name, store = (arguments[arguments.index(option) + 1] for option in ("--environment", "--store"))
        if name in self._zygotes or name in self._useless:
            return self._zygotes.get(name)
        try:
            python = places.interpreter(Path(store), name)
            self._zygotes[name] = Zygote.start(
                [python, "-I", str(Path(shim.__file__)), "--zygote"], environment=bounded()
            )
        except Unavailable:  # its worker says so to whoever asks
            return None
        except OSError as problem:
            _log.warning("environment %s: its warm process does not start: %s", name[:11], problem)
            self._useless.add(name)
        return self._zygotes.get(name)
