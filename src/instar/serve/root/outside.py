"""Warm processes of environments that are not ours, from which the root forks the shim of a worker while a server runs.

One a environment, begun with the first version that runs in it; a second version in the same environment imports nothing anew.
What cannot be forked (an environment that is not built, or a Python before 3.9) is started by the worker itself.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instar.core.errors import Unavailable
from instar.serve.processes.children import Process
from instar.serve.processes.threads import bounded
from instar.serve.processes.zygote import Spawned, Zygote
from instar.serve.worker import shim
from instar.train import environment_places as places

_log = logging.getLogger("instar.serve")


@dataclass(frozen=True)
class Shim:
    """A process of another environment, and the name of its worker, whose cost it is."""

    worker: str
    process: Process


class Outside:
    """Begins shims, by the arguments of the worker that each belongs to.

    Attributes:
        shims: Those that were forked, by the numbers of their workers' processes; who waits for one takes it out.
    """

    def __init__(self) -> None:
        self._zygotes: dict[str, Zygote] = {}
        self._useless: set[str] = set()
        self._asked: dict[int, Sequence[str]] = {}
        self.shims: dict[int, Shim] = {}

    def filenos(self) -> list[int]:
        """What to wait for."""
        return [zygote.fileno() for zygote in self._zygotes.values()]

    def pids(self) -> list[int]:
        """The warm processes."""
        return [zygote.process.pid for zygote in self._zygotes.values()]

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
                self._asked[number] = arguments
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
                    if not isinstance(said, Spawned):
                        continue
                    asked = self._asked.pop(said.request)
                    if said.pid:
                        process = Process(said.pid, mark=mark_of(asked))
                        self.shims[said.request] = Shim(asked[asked.index("--worker") + 1], process)
                    else:  # its worker finds the line closed, ends, and is begun again
                        _log.warning("environment %s: no process could be forked: %s", name[:11], said.error)
            except EOFError:
                _log.warning("environment %s: its warm process ended; its workers start their own", name[:11])
                del self._zygotes[name]
                self._useless.add(name)
                zygote.close()

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


def mark_of(arguments: Sequence[str]) -> str:
    """What a worker with such arguments, and all that it starts, carries among its variables: the path of its socket."""
    return arguments[arguments.index("--socket") + 1] if "--socket" in arguments else ""
