"""What the record has of a run that is to be made again; or, before anything is done, the list of what it has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from instar.core.errors import BadInput, Blocked
from instar.core.store import Store
from instar.operate import reproduce_client, reproduce_notebook, reproduce_step
from instar.operate.reproduce_run import Recorded
from instar.train import code, conditions, environment, runs
from instar.train.conditions import COMMAND, NOTEBOOK, UNKNOWN, Conditions
from instar.train.runs import Run


def recorded_of(store: Store, run: Run) -> Recorded:
    """The code, conditions and environment of a run.

    Raises:
        BadInput: Too little of it was recorded; says all that is missing.
        Blocked: It did not end well, so that there is nothing to compare with.
    """
    if run.state != runs.FINISHED:
        raise Blocked(
            "only a run that ended well can be compared with a repetition", subject=f"run {run.id}", found=run.state,
            asked=runs.FINISHED,
        )  # fmt: skip
    if run.tags.get("pruned") == "true":
        raise Blocked(
            "the search gave it up before its end", subject=f"run {run.id}", found="no result to compare with"
        )
    if reproduce_client.is_one(run):
        found = reproduce_client.told(store, run)
        raise BadInput(
            "a client of MLflow logged it, and too little to make it again", subject=f"run {run.id}",
            found=f"missing: {'; '.join(reproduce_client.missing(found, run))}. Known: {reproduce_client.known(found)}",
            next_step="Put `with instar.run(...)` around the training, or make it a step of the pipeline.",
        )  # fmt: skip
    about = conditions.load(store.blobs, run.conditions) if run.conditions else _older(run)
    missing = list(_missing(run, about))
    if missing or run.environment is None:
        raise BadInput(
            "too little of it was recorded to make it again", subject=f"run {run.id}",
            found=f"missing: {'; '.join(missing)}",
            next_step="Runs of a pipeline's steps, and of scripts, modules and notebooks that use instar.run within a project "
            "or a git repository, have all of it.",
        )  # fmt: skip
    described = environment.load(store.blobs, run.environment)
    first = reproduce_step.first_distributions(store, run.execution)
    own = code.described(run.code) if run.code is not None else None
    return Recorded(run, own, about, described, first)


def _missing(run: Run, about: Conditions) -> Iterator[str]:
    """What was not recorded and is needed, in words."""
    if about.way == UNKNOWN:
        called = " ".join(about.command) or "nothing of it is on the record"
        yield f"how it was started ({called}): it was neither a step, a script, a module nor a notebook"
    if run.code is None and not _stands_alone(run, about):
        yield "its code: it ran neither in a project nor in a git repository"
    if run.environment is None:
        yield "its environment"


def _stands_alone(run: Run, about: Conditions) -> bool:
    """Is what ran kept with the run itself?"""
    if about.way == NOTEBOOK:
        return reproduce_notebook.KEPT in run.artifacts or reproduce_notebook.CELLS in run.artifacts
    script = about.command[0] if about.way == COMMAND and about.command else ""
    return f"instar/{PurePath(script).name}" in run.artifacts if script else False


def _older(run: Run) -> Conditions:
    """Runs of before conditions were recorded: what can be told of them."""
    way = "refit" if "refit_of" in run.tags else "trial" if run.step and "notebook" not in run.tags else UNKNOWN
    return conditions.capture(way=way)
