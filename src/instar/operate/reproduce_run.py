"""What repeating a run is about: what was recorded, one attempt at it, and the process in which it is made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from instar.core import ids
from instar.core.store import Store
from instar.train import threads
from instar.train.code import Code
from instar.train.conditions import Conditions
from instar.train.environment import Environment
from instar.train.environments import Interpreter
from instar.train.hardware import usable_cores
from instar.train.runs import Run
from instar.train.verdict import Cause, Results

_LAST_LINES = 4


@dataclass(frozen=True)
class Recorded:
    """A run as it is on the record.

    Attributes:
        code: None where a script that stands alone is kept with the run itself.
        first: Distributions that the step's own code reaches, where a walk of the pipeline noted them.
    """

    run: Run
    code: Code | None
    conditions: Conditions
    environment: Environment
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One repetition.

    Attributes:
        recorded: Results of the run, as far as the repetition has the like.
        results: Its own.
        predictions: Largest difference of predictions between the two models; None when there is none to ask.
        error: Why it failed, if it did.
        causes: What its way of being made again knows to be not as it was.
    """

    recorded: Results
    results: Results
    conditions: Conditions
    environment: Environment
    predictions: float | None = None
    code: str = ""
    error: str = ""
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """All that a repetition needs, restored.

    Attributes:
        attempt: Makes the run once more; may be called again.
        inputs: The record that each input is read from, by its name.
        causes: Inputs that are not as they were.
    """

    attempt: Callable[[], Attempt]
    inputs: Mapping[str, str]
    causes: tuple[Cause, ...] = ()


class Again(Protocol):
    """A way to make a run again: `reproduce_step` and `reproduce_command`."""

    def prepare(
        self, store: Store, recorded: Recorded, scratch: Path, interpreter: Interpreter, *, newest: bool
    ) -> Prepared:
        """Restore what the repetition needs into `scratch`, whose folder `code` has the code already."""


def call(
    command: list[str],
    folder: Path,
    recorded: Conditions,
    interpreter: Interpreter,
    *,
    paths: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run a program under the recorded conditions, as far as this machine can give them; returns why it failed, or "".

    Args:
        paths: Folders for Python's import path, before those of the interpreter.
        variables: Further environment variables.
    """
    done = subprocess.run(
        command, cwd=folder, env=environment_for(recorded, interpreter, paths, variables), capture_output=True,
        text=True, errors="replace", check=False, preexec_fn=limit(recorded),
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return "; ".join(lines[-_LAST_LINES:]) or f"it ended with status {done.returncode}"


def environment_for(
    recorded: Conditions, interpreter: Interpreter, paths: tuple[str, ...], variables: Mapping[str, str] | None
) -> dict[str, str]:
    """Variables of the new process: today's, with threads, chance, import path and public variables as recorded."""
    found = {name: value for name, value in os.environ.items() if name not in ("PYTHONHASHSEED", "VIRTUAL_ENV")}
    inherited = found.pop("PYTHONPATH", "")
    entries = [*paths, *interpreter.paths]
    if interpreter.digest is None and inherited:  # the running environment is running with it
        entries.append(inherited)
    if entries:
        found["PYTHONPATH"] = os.pathsep.join(entries)
    if recorded.seeds.hash_seed != "random":
        found["PYTHONHASHSEED"] = recorded.seeds.hash_seed
    wanted: dict[str, str | None] = {
        # A variable that was declared and not set, or empty, is known by its digest; what is kept of a secret does not set it.
        **{name: None for name, digest in recorded.variables.items() if digest == ids.digest(b"")},
        **recorded.values,
        **threads.variables_for(recorded.threads), "CUBLAS_WORKSPACE_CONFIG": recorded.seeds.cublas
    }  # fmt: skip
    for name, value in wanted.items():
        found.pop(name, None)
        if value is not None:
            found[name] = value
    return {**found, **(variables or {})}


def limit(recorded: Conditions) -> Callable[[], None]:
    """To be called in the new process first: it gets no more processors than the run had."""
    return partial(_take_processors, recorded.threads.usable)


def _take_processors(usable: int) -> None:
    """In the new process: no more processors than the run could use."""
    if hasattr(os, "sched_setaffinity") and 0 < usable < usable_cores():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:usable])
