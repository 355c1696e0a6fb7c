"""Models proven from Python, when somebody stands by one: `instar.reproduce(run)` and `instar.reproductions(run)`.

    made = instar.reproduce("run_…")
    made.verdict, [cause.text for cause in made.causes]
    instar.reproductions("run_…")[0].by                    # who has shown it before, the newest first

Both work on the store of the project here (or `INSTAR_STORE`). A server's verdicts: `instar.connect().reproductions(run)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instar.train.proofs import Proof
    from instar.train.reproductions import Reproduction

TOLERANCE = 1e-6


def reproduce(
    run: str,
    *,
    tolerance: float = TOLERANCE,
    here: bool = False,
    newest: bool = False,
    project: str | Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Reproduction:
    """Make a run again from its own code, inputs and environment; the verdict is put on the record.

    Args:
        run: Its id, or the beginning of it.
        tolerance: Within which predictions (absolute) and metrics (relative) are equal.
        here: In the running environment instead of the run's own.
        newest: On the newest versions of its inputs instead of those that it read.
        project: The project's folder; default the one that the working folder lies in.
        tell: Told what is being done, one line each.

    Raises:
        NotFound: There is no such run.
        BadInput: It cannot be made again: the error lists what was not recorded.
        Blocked: Its code, an input or its environment is not to be had here.
    """
    from instar.app import open_app
    from instar.operate import reproduce as again

    with open_app(project, need_project=False, make=False) as app:
        return again.reproduce(app.store, app.root, run, tolerance=tolerance, here=here, newest=newest, tell=tell)


def reproductions(run: str, *, project: str | Path | None = None) -> list[Proof]:
    """Verdicts on a run that are on the record, the newest first: who made it again, when, and the first cause.

    Raises:
        NotFound: There is no such run.
    """
    from instar.app import open_app
    from instar.train import proofs, runs

    with open_app(project, need_project=False, make=False) as app:
        found = runs.get_run(app.store, run)
        return proofs.of_run(app.store, found.project, found.id)
