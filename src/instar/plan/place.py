"""Where a step runs that has a process of its own: how that process finds the store, the project and its kinds again.

`app.py` says it; `workshop.py` starts such processes, and `zygote.py` is what they are forked from.
"""

from __future__ import annotations

import importlib
import pickle
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from instar.core.errors import PipelineError
from instar.core.store import Store
from instar.plan.attempts import Work
from instar.plan.kinds import StepKind
from instar.plan.pipeline import Pipeline
from instar.plan.project import Project


@dataclass(frozen=True)
class Bench:
    """What a step needs in order to run: as opened in its own process."""

    store: Store
    project: Project
    pipeline: Pipeline
    kinds: Mapping[str, StepKind]


Adapt = Callable[[Pipeline], Pipeline]


@dataclass(frozen=True)
class Place:
    """How another process opens the same bench.

    Attributes:
        opener: `"module:function"`; called as `function(arguments, texts, adapt)`, it returns a context of a `Bench`.
            `texts` are the project's files as they were imported here, `adapt` is to be applied to the pipeline before
            the kinds are made.
        arguments: What the opener needs: plain values.
        modules: What is imported once, before the first step.
    """

    opener: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()

    def open(self, texts: Mapping[str, str], adapt: Adapt) -> AbstractContextManager[Bench]:
        """The bench, in this process."""
        module, _, name = self.opener.partition(":")
        found: AbstractContextManager[Bench] = getattr(importlib.import_module(module), name)(
            self.arguments, texts, adapt
        )
        return found


@dataclass(frozen=True)
class Setup:
    """What is common to all steps of a walk.

    Attributes:
        texts: The project's files, as the keys were taken of.
        modules: Installed libraries that they import, which step processes begin with.
        cold: Start each step's process anew, instead of forking it.
    """

    place: Place
    texts: Mapping[str, str]
    modules: tuple[str, ...] = ()
    cold: bool = False


@dataclass(frozen=True)
class Report:
    """What a step's process says.

    Attributes:
        execution: Of which attempt.
        word: `"began"`, `"ran"` (may it keep the output?), `"done"`, `"raced"` (an input changed first), `"failed"` or
            `"gone"`.
        value: What was stored, the error, or the exit status.
    """

    execution: str
    word: str
    value: Any = None


KEEP, END = "keep", "end"  # what the parent says about a running attempt


class Channel:
    """Messages over a stream socket, whole ones only."""

    _SIZE = struct.Struct("<Q")

    def __init__(self, line: socket.socket) -> None:
        self.line = line

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            PipelineError: It holds something that cannot be handed to another process.
        """
        try:
            data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise PipelineError(
                "a value cannot be handed to a process of its own",
                subject=f"step {message.step.name}" if isinstance(message, Work) else "",
                found=f"{type(error).__name__}: {error}",
                next_step="Give the step parameters and options that can be pickled, or run it with -j 1 and no timeout.",
            ) from error
        self.line.sendall(self._SIZE.pack(len(data)) + data)

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: The other side is gone.
        """
        (size,) = self._SIZE.unpack(self._exactly(self._SIZE.size))
        return pickle.loads(self._exactly(size))

    def close(self) -> None:
        self.line.close()

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self.line.recv(min(size, 1 << 20))
            except ConnectionError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
