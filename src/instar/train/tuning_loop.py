"""Tuning: one process's part in a study, from the first proposal until the trials are used up or somebody stops it.

    tune(store, ground, study, search)          # in as many processes as there are cores

Each trial is a run. A trial that fails is told to the search, and the search goes on; a study of which every trial fails
is an error. A process that was killed leaves a trial behind, which `take_up` gives to the next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from instar.core import processes
from instar.core.errors import BadInput, InstarError
from instar.core.store import Store
from instar.train import runs, search_space, trial
from instar.train.search import DONE, FAILED, PRUNED, RUNNING, Objective, Proposal, Search, Tried
from instar.train.studies import Study
from instar.train.trial import Course, Ground, Measure, Trial

COSTS = (
    "tuning/decide_costs.f32"  # artifact of each trial: the cost of every `decide` row, little-endian single precision
)
ALL_FAILED = 5  # trials that fail one after the other, none having worked, before the study is given up
MOST_SUGGESTED = 5  # earlier runs whose parameters are tried first

# Told when a trial ends: its number, state, metrics and run.
Tell = Callable[[int, str, Mapping[str, float], str], object]


def tune(
    store: Store,
    ground: Ground,
    study: Study,
    search: Search,
    *,
    measure: Measure | None = None,
    tell: Tell | None = None,
    alone: Callable[[], bool] | None = None,
) -> None:
    """Make trials until the study's number is reached, by this process and others together.

    Args:
        alone: Asked before each trial: is nobody left for whom this process works? Then it makes no more.

    Raises:
        StepFailed: Every trial fails.
        BadInput: An objective names no metric of a trial.
    """
    failures, last = 0, None  # in a row; what the last one said
    while len(counted(search.tried())) < study.trials:
        if alone is not None and alone():
            return
        proposal = search.ask(this_process())
        if proposal is None:  # every point was tried
            if last is not None and not any(one.state == DONE for one in search.tried()):
                raise last
            return
        if _surplus(proposal, search, study):  # another process was as quick, and took the last one
            search.tell(proposal.number, FAILED)
            return
        try:
            state, metrics, run = _one(store, ground, study, search, proposal, measure)
            failures = 0
        except KeyboardInterrupt:
            _give_back(search, proposal.number, proposal.parameters)
            raise
        except BadInput:
            search.tell(proposal.number, FAILED)
            raise
        except InstarError as error:
            search.tell(proposal.number, FAILED)
            failures, last = failures + 1, error
            if failures >= ALL_FAILED and not any(one.state == DONE for one in search.tried()):
                raise
            state, metrics, run = FAILED, {}, ""
        if tell is not None:
            tell(proposal.number, state, metrics, run)


def take_up(search: Search) -> int:
    """Give the trials of processes of this machine that died to whoever asks next; returns how many."""
    left = [one for one in search.tried() if one.state == RUNNING and not _alive(one.process)]
    for one in left:
        _give_back(search, one.number, one.parameters)
    return len(left)


def suggest_earlier(store: Store, ground: Ground, study: Study, search: Search) -> int:
    """Warm start: have the best parameters of earlier runs of the step tried first; returns how many.

    They are fitted again: what they cost on other rows, or with other code, is no result of this study.
    """
    space = search_space.from_document(study.terms["space"])
    earlier = runs.list_runs(store, study.project, step=study.step, state=runs.FINISHED, limit=1000)
    fitting = [
        one for one in earlier
        if one.tags.get("study") != study.id and not math.isnan(one.metrics.get("cost", math.nan))
        and search_space.holds(space, one.parameters)
    ]  # fmt: skip
    chosen: dict[str, Mapping[str, Any]] = {}
    for one in sorted(fitting, key=lambda run: run.metrics["cost"]):
        point = {name: one.parameters[name] for name in space}
        chosen.setdefault(repr(point), point)
    for best in list(chosen.values())[:MOST_SUGGESTED]:
        search.suggest(best)
    return min(len(chosen), MOST_SUGGESTED)


def counted(tried: list[Tried]) -> list[Tried]:
    """The trials that count: those that have a run, or may still get one, and were not given to another."""
    last = {repr(one.parameters): one.number for one in tried}
    return [
        one for one in tried
        if one.state == RUNNING
        or (one.run is not None and (one.state != FAILED or last[repr(one.parameters)] == one.number))
    ]  # fmt: skip


def objectives_of(study: Study) -> list[Objective]:
    """What the study looks for."""
    return [Objective(**one) for one in study.terms["objectives"]]


def this_process() -> str:
    """This process, as trials name it."""
    return f"{processes.host()} {os.getpid()} {processes.born(os.getpid())}"


def costs_of(store: Store, run: runs.Run) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The cost of each `decide` row of a trial; shape (n,)."""
    return np.frombuffer(store.blobs.get(run.artifacts[COSTS]), dtype="<f4").astype(np.float64)


def _one(
    store: Store, ground: Ground, study: Study, search: Search, proposal: Proposal, measure: Measure | None
) -> tuple[str, Mapping[str, float], str]:
    objectives = objectives_of(study)
    first = objectives[0].metric
    shares = tuple(study.terms["shares"])
    begun: list[str] = []

    def began(run: str) -> None:
        begun.append(run)
        search.began(proposal.number, run)

    course = Course(
        shares,
        began,
        on_share=lambda metrics, number: search.report(proposal.number, number, _value(metrics, first)),
        on_report=(lambda value, step: search.report(proposal.number, step, value)) if len(shares) == 1 else None,
        measure=measure,
    )
    tags = {"study": study.id, "trial": str(proposal.number)}
    parameters = {**study.terms["fixed"], **proposal.parameters}
    made = trial.fit(store, ground, parameters, cause=study.id, tags=tags, course=course)
    if made is None:
        search.tell(proposal.number, PRUNED)
        return PRUNED, {}, begun[0]
    values = [_value(made.metrics, one.metric) for one in objectives]
    if any(math.isnan(value) for value in values):
        search.tell(proposal.number, FAILED)
        return FAILED, made.metrics, made.run.id
    _keep_costs(store, made)
    search.tell(proposal.number, DONE, values)
    return DONE, made.metrics, made.run.id


def _keep_costs(store: Store, made: Trial) -> None:
    runs.log_artifact(store, made.run.id, COSTS, made.costs.astype("<f4").tobytes())


def _give_back(search: Search, number: int, parameters: Mapping[str, Any]) -> None:
    search.tell(number, FAILED)
    if parameters:  # none: it ended before it had any
        search.suggest(parameters, again=True)


def _value(metrics: Mapping[str, float], name: str) -> float:
    if name not in metrics:
        raise BadInput("a trial has no such metric", subject=f"objective {name}", asked=", ".join(sorted(metrics)))
    return float(metrics[name])


def _surplus(proposal: Proposal, search: Search, study: Study) -> bool:
    before = [one for one in counted(search.tried()) if one.number < proposal.number]
    return len(before) >= study.trials


def _alive(process: str) -> bool:
    """Does a process still live? One of another machine is taken to."""
    if not process:  # it ended between taking the trial and saying so
        return False
    host, pid, born = process.rsplit(" ", 2)
    return host != processes.host() or processes.born(int(pid)) == born
