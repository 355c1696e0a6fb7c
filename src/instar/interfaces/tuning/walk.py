"""A study from a program: put together, taken up where it was left, worked on by one process or several, and closed.

study, ground = open_study(app, Wish(step="delay_trees"))
work(app, study, ground)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from instar.app import App
from instar.core.errors import BadInput, StepFailed
from instar.evaluate import metrics
from instar.evaluate.split import cut
from instar.plan import runner
from instar.plan.keys import given_parameters
from instar.plan.pipeline import Step
from instar.plan.steps import did_you_mean
from instar.train import runs, search_space, studies, trial, tuning_loop
from instar.train.packing import recipe_digest
from instar.train.search import RUNNING, Tried
from instar.train.studies import Study
from instar.train.trial import Ground

# Metrics of which more is better, where the caller does not say.
MORE_IS_BETTER = frozenset({"auc", "accuracy", "precision", "recall", "f1"})
POLL_SECONDS = 0.2
PARENT = "INSTAR_TUNE_PARENT"  # in the environment of a study's processes: the one that started them
MOST_REPLACED = 5  # processes of a study that die and are replaced


@dataclass(frozen=True)
class Wish:
    """What a person asks of a study.

    Attributes:
        step: The model step, or a problem that has only one.
        spaces: As people write them, see `search_space.space_of`.
        objectives: `"cost"`, `"auc:max"`, `"fit_seconds:min"`.
        fixed: Values of parameters that are not searched, by `"step.parameter"`.
        shares: Shares of the rows to fit on before all of them, so that a poor trial can be given up.
    """

    step: str
    trials: int = 30
    spaces: Sequence[str] = ()
    objectives: Sequence[str] = ("cost",)
    sampler: str = "tpe"
    pruner: str = "none"
    shares: Sequence[float] = ()
    seed: int = 0
    fixed: Mapping[str, object] = field(default_factory=dict)
    warm: bool = True


def open_study(app: App, wish: Wish, on_event: Callable[[runner.Event], None] | None = None) -> tuple[Study, Ground]:
    """Bring the step's inputs up to date, and begin the study, or take it up where it was left.

    Raises:
        BadInput: The step, the space, an objective or the shares are wrong.
        InstarError: What the pipeline or the search refuse.
    """
    step = find_step(app, wish.step)
    terms = _terms(app, wish, step)
    inputs = [item.name for item in step.inputs]
    manner = runner.Manner(place=app.place())
    runner.execute(app.store, app.project, app.pipeline, app.kinds(), targets=inputs, on_event=on_event, manner=manner)
    ground = ground_of(app, step)
    recipe = recipe_digest(app.project, app.pipeline, step, {})
    study, known = studies.begin(
        app.store, app.project.name, step=step.name, problem=step.problem or step.name, terms=terms, trials=wish.trials,
        version=ground.version, recipe=recipe,
    )  # fmt: skip
    search = app.search(study)
    tuning_loop.take_up(search)
    runs.abandon(app.store, app.project.name, step.name)
    if not known:
        space = search_space.from_document(terms["space"])
        if search_space.holds(space, step.parameters):
            search.suggest({name: step.parameters[name] for name in space})
        if wish.warm:
            tuning_loop.suggest_earlier(app.store, ground, study, search)
    return study, ground


def ground_of(app: App, step: Step) -> Ground:
    """What the trials of a step are fitted on, as its inputs are now."""
    kinds = app.kinds()
    inputs = {item.name: kinds[app.pipeline.step(item.name).kind].load(app.project, item, step) for item in step.inputs}
    return trial.prepare(app.store, app.project, app.pipeline, step, cut, inputs)


def work(app: App, study: Study, ground: Ground, tell: tuning_loop.Tell | None = None, *, apart: bool = False) -> None:
    """Make trials in this process until there are enough; `apart` when others do so beside it."""
    search = app.search(study, apart=apart)
    tuning_loop.tune(app.store, ground, study, search, measure=_measure, tell=tell, alone=_orphaned)


def _orphaned() -> bool:
    """Was this process started by one that is gone? It may have been killed, and then cannot say so."""
    return os.environ.get(PARENT, "") not in ("", str(os.getppid()))


def work_together(app: App, study: Study, processes: int, tell: Callable[[Tried], object]) -> None:
    """Make trials in several processes, each with its share of the cores; one that dies is replaced.

    Raises:
        StepFailed: They failed; names what the last one said.
    """
    search = app.search(study)
    told = {one.number for one in search.tried() if one.state != RUNNING}
    with tempfile.TemporaryFile() as log:
        workers = [_start(app, study, processes, log) for _ in range(processes)]
        replaced = 0
        try:
            while True:
                ended = [worker for worker in workers if worker.poll() is not None]
                for one in search.tried():
                    if one.state != RUNNING and one.run is not None and one.number not in told:
                        told.add(one.number)
                        tell(one)
                if len(ended) == len(workers):
                    killed = [worker for worker in ended if (worker.returncode or 0) < 0]
                    if not killed or replaced >= MOST_REPLACED:
                        break
                    replaced += len(killed)
                    tuning_loop.take_up(search)
                    workers = [_start(app, study, processes, log) for _ in killed]
                time.sleep(POLL_SECONDS)
        finally:
            for worker in workers:  # an interrupt reached them as well: they close their trials and end
                worker.wait()
        if all(worker.returncode for worker in workers):
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            raise StepFailed(
                "no process of the study got to its end", subject=f"study {study.id}",
                found=said[-1] if said else f"status {workers[0].returncode}",
            )  # fmt: skip


def find_step(app: App, name: str) -> Step:
    """The model step of that name, or the only one of the problem of that name."""
    steps = [step for step in app.pipeline.steps.values() if step.kind == "model"]
    chosen = [step for step in steps if step.name == name] or [step for step in steps if step.problem == name]
    if len(chosen) != 1:
        names = [step.name for step in chosen or steps]
        raise BadInput(
            "more than one model step is for that problem" if chosen else "the pipeline has no such model step",
            subject=f"step {name}", asked=", ".join(names) or "a step declared with @model",
            next_step=did_you_mean(name, names),
        )  # fmt: skip
    return chosen[0]


def _terms(app: App, wish: Wish, step: Step) -> dict[str, Any]:
    fixed = given_parameters(app.pipeline, wish.fixed)
    foreign = [f"{name}.{key}" for name, values in fixed.items() if name != step.name for key in values]
    if foreign:
        raise BadInput(
            "only parameters of the tuned step can be set", subject=f"step {step.name}", found=", ".join(foreign)
        )
    space = search_space.space_of(step, wish.spaces)
    own = fixed.get(step.name, {})
    space = {name: where for name, where in space.items() if name not in own}
    return {
        "space": search_space.document(space),
        "fixed": own,
        "objectives": [_objective(text) for text in wish.objectives],
        "sampler": wish.sampler,
        "pruner": wish.pruner,
        "shares": _shares(wish.shares),
        "seed": wish.seed,
    }


def _objective(text: str) -> dict[str, Any]:
    metric, _, direction = text.partition(":")
    if direction not in ("", "min", "max") or not metric:
        raise BadInput("that is no objective", found=text, asked="METRIC, METRIC:min or METRIC:max")
    return {"metric": metric, "minimise": metric not in MORE_IS_BETTER if not direction else direction == "min"}


def _shares(shares: Sequence[float]) -> list[float]:
    found = [*shares, *([] if shares and shares[-1] == 1.0 else [1.0])]
    if sorted(set(found)) != found or found[0] <= 0.0 or found[-1] > 1.0:
        raise BadInput(
            "shares of the rows grow from above 0 to 1", found=", ".join(map(str, shares)), asked="such as 0.1,0.3"
        )
    return found


def _measure(truth: Any, scores: Any, threshold: float) -> dict[str, float]:
    decided = scores >= threshold
    found = {name: getattr(metrics, name)(truth, decided) for name in ("accuracy", "precision", "recall", "f1")}
    return {"auc": metrics.auc(truth, scores), **found}


def _start(app: App, study: Study, processes: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {
        "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads,
        **os.environ, "INSTAR_STORE": str(Path(app.store.folder)), PARENT: str(os.getpid()),
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "instar.interfaces.cli.main",
        "--project",
        str(app.root),
        "tune",
        "--join",
        study.id,
    ]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
