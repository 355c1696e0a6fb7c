"""`instar reproduce`: a run is made again in its own environment, from its own code and inputs, and the two are compared.

    made = reproduce(store, project.root, "run_…")
    made.verdict, [cause.text for cause in made.causes]

Nothing of the project as it is today is read: code comes from the store (and from the repository, where it knows the commit),
tables from the versions that the run read, the environment from its lock. So it works after the project has moved on, and
from a clean clone that has the store. A run that comes out different is made a second time: two repetitions that
differ from each other prove that it is left to chance.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from instar.core.store import Store
from instar.operate import reproduce_command, reproduce_notebook, reproduce_step
from instar.operate.reproduce_recorded import recorded_of
from instar.operate.reproduce_run import Again, Attempt, Recorded
from instar.train import checkout, code, conditions, environments, reproductions, runs, verdict
from instar.train.code import Code
from instar.train.environments import Interpreter
from instar.train.reproductions import Reproduction
from instar.train.runs import Run
from instar.train.verdict import DIFFERENT, TOLERANCE, Cause, Comparison, Facts

__all__ = ["TOLERANCE", "Reproduction", "reproduce"]


def reproduce(
    store: Store,
    root: Path | None,
    run: str,
    *,
    tolerance: float = TOLERANCE,
    here: bool = False,
    newest: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Reproduction:
    """Make a run again, and put verdict and causes on the record.

    Args:
        root: A folder in the project's repository, which may know the run's commit.
        tolerance: Within which metrics and predictions are equal.
        here: In the running environment instead of the run's own.
        newest: On the newest versions of its inputs instead of those that it read.
        tell: Told what is being done, one line each.

    Raises:
        NotFound: There is no such run.
        BadInput: It cannot be made again, and never could: too little was recorded.
        Blocked: Its code, an input or its environment is not to be had here.
    """
    found = runs.get_run(store, run)
    recorded = recorded_of(store, found)
    begun = time.monotonic()
    with _environment(store, found, here, tell) as interpreter, _scratch() as scratch:
        notes = [*interpreter.notes, *_restored(store, recorded, scratch / "code", root)]
        again = _WAYS.get(recorded.conditions.way, reproduce_step)
        prepared = again.prepare(store, recorded, scratch, interpreter, newest=newest)
        repetition = reproductions.begin(store, found, list(prepared.inputs.values()))
        try:
            tell(f"making {found.id} again as {repetition.id}")
            attempt = prepared.attempt()
            comparison, causes = _judge(recorded, attempt, tolerance)
            causes = [*prepared.causes, *causes]
            if comparison.verdict == DIFFERENT and not attempt.error:
                tell("it came out different; making it once more, to see whether that is chance")
                causes = _with_chance(recorded, causes, attempt, prepared.attempt())
            made = Reproduction(
                found.id, repetition.id, comparison, tuple(causes) if comparison.verdict == DIFFERENT else (),
                tuple(notes), interpreter.digest, round(time.monotonic() - begun, 3), store.actor.name, store.clock.wall(),
                here, newest,
            )  # fmt: skip
            _keep(store, found, made, recorded, attempt)
        except BaseException as error:
            runs.fail(store, repetition.id, error)
            raise
        runs.finish(store, repetition.id)
        return made


_WAYS: dict[str, Again] = {
    conditions.COMMAND: reproduce_command,
    conditions.NOTEBOOK: reproduce_notebook,
    conditions.NOTEBOOK_STEP: reproduce_notebook,
}


def _restored(store: Store, recorded: Recorded, folder: Path, root: Path | None) -> list[str]:
    """Write the code into a folder; returns what could not be restored."""
    if recorded.code is None:  # what ran is kept with the run itself
        folder.mkdir()
        return []
    notes = checkout.restore(store.blobs, recorded.code, folder, repository=root)
    return notes + checkout.restore_files(store.blobs, recorded.conditions.files, folder)


def _environment(
    store: Store, run: Run, here: bool, tell: Callable[[str], None]
) -> AbstractContextManager[Interpreter]:
    if here or run.environment is None:
        return contextlib.nullcontext(environments.running())
    return environments.use(store, run.environment, tell=tell)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="instar-again-", ignore_cleanup_errors=True) as folder:
        yield Path(os.path.realpath(folder))


def _judge(recorded: Recorded, attempt: Attempt, tolerance: float) -> tuple[Comparison, list[Cause]]:
    if attempt.error:
        failed = Cause("error", "repetition", None, attempt.error, f"it failed: {attempt.error}")
        return Comparison(DIFFERENT, tolerance, {}, {}), [*_differences(recorded, attempt), failed]
    comparison = verdict.compare(
        attempt.recorded, attempt.results, predictions=attempt.predictions, tolerance=tolerance
    )
    return comparison, _differences(recorded, attempt)


def _differences(recorded: Recorded, attempt: Attempt) -> list[Cause]:
    content = recorded.code.content if recorded.code is not None else ""
    was = Facts(recorded.conditions, recorded.environment, content, recorded.first)
    now = Facts(attempt.conditions, attempt.environment, attempt.code)
    return [*attempt.causes, *verdict.differences(was, now)]


def _with_chance(recorded: Recorded, causes: list[Cause], first: Attempt, second: Attempt) -> list[Cause]:
    between = verdict.compare(first.results, second.results, predictions=None, tolerance=0.0)
    apart = first.predictions is not None and first.predictions != second.predictions
    if between.verdict == DIFFERENT or apart:
        predictions = ("predictions", (first.predictions, second.predictions))
        name, pair = next(iter([*between.metrics.items(), *between.digests.items(), predictions]))
        # Proven, where the others only may be a cause.
        return [verdict.chance(recorded.conditions, f"{name} {pair[0]} and {pair[1]}"), *causes]
    return causes or [verdict.unknown()]


def _keep(store: Store, run: Run, made: Reproduction, recorded: Recorded, attempt: Attempt) -> None:
    ran = _code(recorded.code, attempt) if recorded.code is not None else None
    reproductions.describe(store, made.repetition, ran, attempt.conditions, attempt.environment)
    reproductions.conclude(store, run.project, made, attempt.results.metrics)


def _code(recorded: Code, attempt: Attempt) -> dict[str, object]:
    """The code of the repetition: the recorded one, or what could be restored of it."""
    if attempt.code in ("", recorded.content):
        return code.describe(recorded)
    return {**code.describe(recorded), "content": attempt.code}
