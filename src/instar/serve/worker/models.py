"""Models that a worker process holds: loaded when a call first needs them, let go when others need the room.

What does not load is not tried again at every call: its reason is kept for a while that grows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instar.core.errors import Unavailable
from instar.serve.processes import measuring
from instar.train.environment_places import NotBuilt

LIMIT = 8192  # loaded at once
AGAIN_SECONDS = (1.0, 5.0, 30.0, 120.0)  # after a failed load
LEAST_BYTES = 256 * 1024  # of a model whose load showed no growth: it fitted into room that others had left


@dataclass
class Loaded:
    """A model in memory.

    Attributes:
        bytes: By which the process grew while it was loaded, or, if that is more, what the model says of
            itself or the size of its files: memory that others gave back is taken again without growth.
        since: When it was loaded, or last accounted for (monotonic).
        kept: It never makes room.
    """

    model: Any
    bytes: int
    since: float
    kept: bool = False


@dataclass
class _Failed:
    problem: Exception
    times: int
    until: float


class Models:
    """Loaded models by bundle, the least recently used first.

    Args:
        load: Makes a model from a bundle's folder.
        budget_bytes: For all models together; None: no limit. One model alone may be larger.
        limit: Models at most.
        changed: Called with each bundle that was loaded (true) or let go.
    """

    def __init__(
        self,
        load: Callable[[Path], Any],
        budget_bytes: int | None = None,
        limit: int = LIMIT,
        changed: Callable[[str, bool], object] | None = None,
    ) -> None:
        self._load = load
        self._budget = budget_bytes
        self._limit = limit
        self.changed = changed
        self._models: OrderedDict[str, Loaded] = OrderedDict()
        self._failed: dict[str, _Failed] = {}
        self._bytes = 0
        self.loads: dict[str, int] = {}  # since they were last asked for
        self.byte_seconds: dict[str, float] = {}

    @property
    def bytes(self) -> int:
        """Of all that is loaded."""
        return self._bytes

    def __contains__(self, bundle: str) -> bool:
        return bundle in self._models

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def get(self, bundle: str, folder: str, *, keep: bool = False) -> Any:
        """The model of a bundle, loaded if it is not.

        Raises:
            Exception: Whatever its loading raises, and the same again for a while.
        """
        loaded = self._models.get(bundle)
        if loaded is not None:
            self._models.move_to_end(bundle)
            loaded.kept = loaded.kept or keep
            return loaded.model
        failed = self._failed.get(bundle)
        if failed is not None and time.monotonic() < failed.until:
            raise failed.problem
        before = measuring.resident_bytes_here()
        try:
            model = self._load(Path(folder))
        except Exception as problem:
            self._fail(bundle, problem)
            raise self._failed[bundle].problem from problem
        self._failed.pop(bundle, None)
        grown = measuring.resident_bytes_here() - before
        size = max(grown, getattr(model, "size_bytes", 0) or _files_bytes(Path(folder)), LEAST_BYTES)
        self._models[bundle] = Loaded(model, size, time.monotonic(), keep)
        self._bytes += size
        self.loads[bundle] = self.loads.get(bundle, 0) + 1
        if self.changed is not None:
            self.changed(bundle, True)
        self._make_room(bundle)
        return model

    def release(self, bundle: str) -> None:
        """A bundle was kept and is so no more: it makes room like others, at once where there is too little."""
        loaded = self._models.get(bundle)
        if loaded is not None and loaded.kept:
            loaded.kept = False
            self._make_room("")

    def failed(self) -> dict[str, str]:
        """Bundles that could not be loaded when it was last tried, and why."""
        return {bundle: str(failed.problem) for bundle, failed in self._failed.items()}

    def account(self) -> None:
        """Count the memory that models have held until now."""
        for bundle in self._models:
            self._account(bundle)

    def close(self) -> None:
        """Let go of all: what runs beside this process is ended."""
        for loaded in self._models.values():
            _close(loaded.model)

    def _account(self, bundle: str) -> None:
        loaded, now = self._models[bundle], time.monotonic()
        self.byte_seconds[bundle] = self.byte_seconds.get(bundle, 0.0) + loaded.bytes * (now - loaded.since)
        loaded.since = now

    def _make_room(self, newest: str) -> None:
        budget = self._budget
        while len(self._models) > self._limit or (budget is not None and self._bytes > budget):
            victim = next((b for b, loaded in self._models.items() if not loaded.kept and b != newest), None)
            if victim is None:
                return
            self._account(victim)
            gone = self._models.pop(victim)
            self._bytes -= gone.bytes
            _close(gone.model)
            if self.changed is not None:
                self.changed(victim, False)

    def _fail(self, bundle: str, problem: Exception) -> None:
        before = self._failed.get(bundle)
        times = before.times + 1 if before else 1
        # An environment that is being built may be ready at any moment.
        pause = AGAIN_SECONDS[0 if isinstance(problem, NotBuilt) else min(times, len(AGAIN_SECONDS)) - 1]
        self._failed[bundle] = _Failed(named(problem), times, time.monotonic() + pause)


def named(problem: Exception) -> Exception:
    """The problem, or where a package is missing somewhere below it, one that names the package."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            package = cause.name.partition(".")[0]
            return Unavailable(
                f"package {package} is not installed in the environment of this version",
                found=f"{type(cause).__name__}: {cause}",
                next_step=f"Add {package} to the environment that the version names, or route a version that does without.",
            )
        cause = cause.__cause__ or cause.__context__
    return problem


def _close(model: Any) -> None:
    """End what a model has beside its memory: a program."""
    close = getattr(model, "close", None)
    if close is not None:
        close()


def _files_bytes(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return 0
