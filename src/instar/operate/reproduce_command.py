"""A run of a program, made again: `python SCRIPT …` or `python -m MODULE …` is called with the recorded code, and records a run.

The program finds the store and today's files outside of the project; its inputs are as it reads them itself. Notebooks in
which `instar.run` was called go the same way, in a kernel (`reproduce_notebook`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from instar.core.errors import BadInput, Blocked
from instar.core.store import Store
from instar.operate.reproduce_run import Attempt, Prepared, Recorded, call
from instar.train import code, conditions, environment, runs, verdict
from instar.train.environments import Interpreter
from instar.train.reproductions import KIND, REPRODUCES
from instar.train.runs import Run
from instar.train.tracking_tables import run_table, tag_table
from instar.train.verdict import Results

# Told to the script's process: `instar.run` then tags its run with the one that it repeats.
VARIABLE = "INSTAR_REPRODUCES"
_OWN = "instar/"  # artifacts that recording itself keeps: the script, the cells, what was measured of the machine


def prepare(store: Store, recorded: Recorded, scratch: Path, interpreter: Interpreter, *, newest: bool) -> Prepared:
    """Find the program among the code, or the script among the run's artifacts.

    Raises:
        BadInput: It was neither a script nor a module that ran.
        Blocked: The script was not kept.
    """
    root, about = scratch / "code", recorded.conditions
    program = _program(store, recorded, root)
    folder, paths = places(recorded, root)

    def start(variables: dict[str, str]) -> str:
        return call([interpreter.python, *program], folder, about, interpreter, paths=paths, variables=variables)

    return Prepared(recording(store, recorded, start), {})


def places(recorded: Recorded, root: Path) -> tuple[Path, tuple[str, ...]]:
    """The working folder among the restored code, which is made, and the folders for Python's import path."""
    about = recorded.conditions
    folder = root / about.folder if about.folder and not Path(about.folder).is_absolute() else root
    folder.mkdir(parents=True, exist_ok=True)
    return folder, tuple(str(root / path) for path in about.paths)


def recording(store: Store, recorded: Recorded, start: Callable[[dict[str, str]], str]) -> Callable[[], Attempt]:
    """Attempts of a program that records its own run.

    Args:
        start: Runs the program once with these further variables; returns why it failed, or "".
    """
    before = _repetitions(store, recorded.run)

    def attempt() -> Attempt:
        failure = start({"INSTAR_STORE": str(store.folder), "INSTAR_URL": "", VARIABLE: recorded.run.id})
        found = [one for one in _repetitions(store, recorded.run) if one not in before]
        before.extend(found)
        if failure or not found:
            nothing = Results({}, {})
            missing = "it recorded no run; is its spool delivered? instar runs sync"
            return Attempt(nothing, nothing, recorded.conditions, recorded.environment, error=failure or missing)
        return _attempt(store, recorded, _like(recorded.run, [runs.get_run(store, one) for one in found]))

    return attempt


def _program(store: Store, recorded: Recorded, root: Path) -> list[str]:
    command = recorded.conditions.command
    if command[:1] == ("-m",):
        return list(command)
    return [str(_script(store, recorded, root)), *command[1:]]


def _script(store: Store, recorded: Recorded, root: Path) -> Path:
    named = recorded.conditions.command[0] if recorded.conditions.command else ""
    if not named.endswith(".py"):
        raise BadInput(
            "it was not started as a script or a module", subject=f"run {recorded.run.id}", found=named or "no command line",
            asked="python SCRIPT.py … or python -m MODULE …",
            next_step="Put the work into a script, or into a step of the pipeline.",
        )  # fmt: skip
    if not Path(named).is_absolute() and (root / named).exists():
        return root / named
    kept = recorded.run.artifacts.get(f"{_OWN}{Path(named).name}")
    if kept is None or not store.blobs.has(kept):
        raise Blocked("its script was not kept", subject=f"run {recorded.run.id}", found=named)
    target = root / Path(named).name
    target.write_bytes(store.blobs.get(kept))
    return target


def _attempt(store: Store, recorded: Recorded, again: Run) -> Attempt:
    about = conditions.load(store.blobs, again.conditions) if again.conditions else recorded.conditions
    here = environment.load(store.blobs, again.environment) if again.environment else recorded.environment
    ran = code.described(again.code).content if again.code else ""
    error = f"run {again.id} {again.state}: {again.error}" if again.state != runs.FINISHED else ""
    causes = tuple(verdict.of_parameters(recorded.run.parameters, again.parameters))
    return Attempt(_results(recorded.run), _results(again), about, here, code=ran, error=error, causes=causes)


def _results(run: Run) -> Results:
    return Results(run.metrics, {path: blob for path, blob in run.artifacts.items() if not path.startswith(_OWN)})


def _like(run: Run, found: list[Run]) -> Run:
    """Of the runs that a script made, the one that stands for the recorded one: same parameters and name, else the first."""

    def distance(one: Run) -> tuple[bool, bool, bool]:
        return (one.experiment != run.experiment, dict(one.parameters) != dict(run.parameters), one.name != run.name)

    return min(found, key=distance)


def _repetitions(store: Store, run: Run) -> list[str]:
    """Runs that scripts made when they were told to repeat this one; not the records with the verdicts."""
    query = (
        sa.select(run_table.c.id)
        .join(tag_table, tag_table.c.run == run_table.c.key)
        .where(tag_table.c.name == REPRODUCES, tag_table.c.value == run.id)
        .order_by(run_table.c.key)
    )
    judged = sa.select(tag_table.c.run).where(tag_table.c.name == "kind", tag_table.c.value == KIND)
    with store.database.read() as tx:
        return list(tx.execute(query.where(run_table.c.key.not_in(judged))).scalars())
