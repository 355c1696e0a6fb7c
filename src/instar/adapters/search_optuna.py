"""The search port on Optuna: its samplers and pruners, on a journal file which processes share and which outlives them."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.adapters.interrupts import held_back
from instar.core.errors import BadInput, Unavailable
from instar.plan.ranges import Range
from instar.train.search import DONE, FAILED, PRUNED, RUNNING, Objective, Proposal, Tried
from instar.train.search_space import Space
from instar.train.tuning import trials

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEW_TRIALS = 8  # importances of fewer say nothing
MOST_ATTEMPTS = 10  # of a sampler to find a point that was not tried yet


class OptunaSearch:
    """A search method of Optuna.

    Args:
        file: Of the study's shared state; made when it is not there.
        sampler, pruner: One of `search.SAMPLERS` and `search.PRUNERS`.
        seed: Of the sampler; with one process the same seed proposes the same points.
        most_steps: The largest step that a trial reports, where it is known.

    Raises:
        Unavailable: Optuna is not installed.
        BadInput: Sampler and space, or pruner and objectives, do not go together.
    """

    def __init__(
        self, file: Path, space: Space, objectives: Sequence[Objective], *, sampler: str = "tpe", pruner: str = "none",
        seed: int = 0, most_steps: int | None = None,
    ) -> None:  # fmt: skip
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        if len(objectives) > 1 and pruner != "none":
            raise BadInput(
                "trials can be pruned by one objective only", found=f"{len(objectives)} objectives, {pruner}"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        self._distributions = _distributions(space)
        storage = JournalStorage(JournalFileBackend(str(file)))
        study = optuna.create_study(
            storage=storage, study_name=file.stem, load_if_exists=True,
            directions=["minimize" if one.minimise else "maximize" for one in objectives],
        )  # fmt: skip
        # Counted on with the trials: a resumed random search must not propose its first points again.
        seed += len(study.get_trials(deepcopy=False))
        study.sampler = _sampler(sampler, seed)
        study.pruner = _pruner(pruner, most_steps)
        self._study = study
        self._grid = sampler == "grid"
        if self._grid and not study.get_trials(deepcopy=False):
            for point in _grid(space):
                study.enqueue_trial(point)
        self._many = len(objectives) > 1
        self._space, self._size = space, _size(space)
        self._asked: dict[int, Any] = {}

    @held_back()
    def ask(self, process: str) -> Proposal | None:
        seen = self._seen()
        if (self._grid or (self._size is not None and len(seen) >= self._size)) and not self._waiting():
            return None
        trial = self._untried(seen)
        trial.set_user_attr("process", process)
        self._asked[trial.number] = trial
        return Proposal(trial.number, dict(trial.params))

    def _untried(self, seen: set[str]) -> Any:
        """A trial at a point that no other has: the same point with the same seed would give the same once more."""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            suggested = self._waiting()
            trial = self._next()
            if suggested or _point(trial.params) not in seen or (self._size is None and attempt == MOST_ATTEMPTS):
                return trial
            self.tell(trial.number, FAILED)  # without a run: it is no trial of the study
        self.suggest(_another(self._space, seen))
        return self._next()

    def _next(self) -> Any:
        with warnings.catch_warnings():
            # Experimental samplers, and points that were suggested from outside a range.
            warnings.simplefilter("ignore")
            return self._study.ask(self._distributions)

    def _seen(self) -> set[str]:
        return {_point(one.parameters) for one in self.tried() if one.run is not None or one.state != FAILED}

    @held_back()
    def began(self, number: int, run: str) -> None:
        self._asked[number].set_user_attr("run", run)

    @held_back()
    def report(self, number: int, step: int, value: float) -> bool:
        if self._many:
            return False
        trial = self._asked[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a step that was reported before keeps its first value
            trial.report(value, step)
        return bool(trial.should_prune())

    @held_back()
    def tell(self, number: int, state: str, values: Sequence[float] = ()) -> None:
        from optuna.trial import TrialState

        states = {DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
        self._study.tell(number, list(values) if state == DONE else None, states[state], skip_if_finished=True)

    @held_back()
    def suggest(self, parameters: Mapping[str, Any], *, again: bool = False) -> None:
        point = {name: parameters[name] for name in self._distributions if name in parameters}
        self._study.enqueue_trial(point, skip_if_exists=not again)

    def tried(self) -> list[Tried]:
        from optuna.trial import TrialState

        names = {
            TrialState.COMPLETE: DONE,
            TrialState.PRUNED: PRUNED,
            TrialState.FAIL: FAILED,
            TrialState.RUNNING: RUNNING,
        }
        return [
            Tried(
                one.number, dict(one.params), names[one.state],
                tuple(one.values) if one.state == TrialState.COMPLETE and one.values else (),
                one.user_attrs.get("run"), one.user_attrs.get("process", ""), dict(one.intermediate_values),
            )
            for one in self._study.get_trials(deepcopy=False)
            if one.state in names
        ]  # fmt: skip

    def best(self) -> list[int]:
        if not any(one.state == DONE for one in self.tried()):
            return []
        return sorted(one.number for one in self._study.best_trials) if self._many else [self._study.best_trial.number]

    def importances(self) -> dict[str, float]:
        optuna = _optuna()
        done = [one for one in self.tried() if one.state == DONE]
        if len(done) < FEW_TRIALS or len({one.values[0] for one in done}) < 2:
            return {}
        target = (lambda trial: trial.values[0]) if self._many else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), target=target
            )
        return {name: float(share) for name, share in found.items()}

    def _waiting(self) -> bool:
        from optuna.trial import TrialState

        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise Unavailable(
            "the search needs Optuna, which is not installed", subject="instar tune", found=str(error),
            next_step="Install the extra: pip install 'instar[tune]'",
        ) from error  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, where in space.items():
        if not isinstance(where, Range):
            found[name] = CategoricalDistribution(where)
        elif where.whole:
            step = int(where.step or 1)
            high = int(where.low) + (int(where.high) - int(where.low)) // step * step
            found[name] = IntDistribution(int(where.low), high, log=where.log, step=step)
        else:
            found[name] = FloatDistribution(where.low, where.high, log=where.log, step=where.step)
    return found


def _size(space: Space) -> int | None:
    """How many points a space has; None when it has no end."""
    if any(isinstance(where, Range) and not where.whole for where in space.values()):
        return None
    return math.prod(len(_points(where)) for where in space.values())


def _point(parameters: Mapping[str, Any]) -> str:
    return repr(sorted(parameters.items()))


def _another(space: Space, seen: set[str]) -> dict[str, Any]:
    """Any point of a space with an end that is none of those."""
    chance = random.Random(len(seen))
    values = {name: _points(where) for name, where in space.items()}
    while True:
        point = {name: chance.choice(some) for name, some in values.items()}
        if _point(point) not in seen:
            return point


def _sampler(name: str, seed: int) -> Any:
    samplers = _optuna().samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some samplers are called experimental
        return {
            "tpe": lambda: samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
            "random": lambda: samplers.RandomSampler(seed=seed),
            "grid": lambda: samplers.RandomSampler(seed=seed),  # every point is in the queue from the start
            "quasi-random": lambda: samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
            "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
        }[name]()


def _grid(space: Space) -> list[dict[str, Any]]:
    """Every point of a space, the last parameter changing fastest."""
    endless = [name for name, where in space.items() if isinstance(where, Range) and not (where.whole or where.step)]
    if endless:
        raise BadInput(
            "a grid needs values to choose from", subject=f"parameter {', '.join(endless)}", found="a range",
            asked="a list of values, whole numbers, or a range with a step",
        )  # fmt: skip
    return trials({name: _points(where) for name, where in space.items()})


def _points(where: Range | tuple[Any, ...]) -> list[Any]:
    if not isinstance(where, Range):
        return list(where)
    step = where.step or 1
    count = int((where.high - where.low) / step + 1e-9) + 1
    return [where.low + place * step for place in range(count)]


def _pruner(name: str, most_steps: int | None) -> Any:
    pruners = _optuna().pruners
    return {
        "none": pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(n_startup_trials=4),
        "halving": pruners.SuccessiveHalvingPruner,
        "hyperband": lambda: pruners.HyperbandPruner(max_resource=most_steps or "auto"),
    }[name]()
