"""A study's trials: runs like any other, given up early, failing, taken up after a kill, started from what is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instar.adapters.search_optuna import OptunaSearch
from instar.core import journal, processes
from instar.core.errors import BadInput, NotFound, StepFailed
from instar.evaluate.split import cut
from instar.train import runs, search_space, studies, trial, tuning_loop
from instar.train.search import DONE, FAILED, PRUNED, RUNNING, Objective
from instar.train.studies import Study
from tests.train.conftest import Bench

SPACE: search_space.Space = {"learning_rate": search_space.Range(0.05, 0.5, log=True), "smallest_leaf": (5, 200)}
REPORTING = {
    "    import numpy\n": "    import numpy, instar\n    for epoch in range(3):\n        instar.report(learning_rate, epoch)\n"
}


def ground(bench: Bench, step: str = "trees") -> trial.Ground:
    return trial.prepare(bench.store, bench.project, bench.pipeline, bench.pipeline.step(step), cut, {})


def begin(bench: Bench, trials: int, step: str = "trees", space: search_space.Space = SPACE, **terms: Any) -> Study:
    about = {"space": search_space.document(space), "fixed": {}, "objectives": [{"metric": "cost", "minimise": True}]}
    about |= {"sampler": "random", "pruner": "none", "shares": [1.0], "seed": 1, **terms}
    study, _ = studies.begin(
        bench.store, "trains", step=step, problem="delay", terms=about, trials=trials, version=bench.version, recipe="r"
    )
    return study


def search_of(bench: Bench, study: Study) -> OptunaSearch:
    space = search_space.from_document(study.terms["space"])
    return OptunaSearch(
        studies.file_of(bench.store, study), space, tuning_loop.objectives_of(study), sampler=study.terms["sampler"],
        pruner=study.terms["pruner"], seed=study.terms["seed"],
    )  # fmt: skip


def test_each_trial_is_a_run_and_the_best_is_the_cheapest(bench: Bench) -> None:
    study = begin(bench, 4)
    told: list[tuple[int, str]] = []
    search = search_of(bench, study)
    tuning_loop.tune(
        bench.store, ground(bench), study, search, tell=lambda number, state, *_: told.append((number, state))
    )
    assert told == [(number, DONE) for number in range(4)]
    tried = search.tried()
    made = [runs.get_run(bench.store, str(one.run)) for one in tried]
    assert [run.parameters["learning_rate"] for run in made] == [one.parameters["learning_rate"] for one in tried]
    assert {(run.tags["study"], run.cause, run.state) for run in made} == {(study.id, study.id, "finished")}
    assert [one.values[0] for one in tried] == [run.metrics["cost"] for run in made]
    (best,) = search.best()
    assert made[best].metrics["cost"] == min(run.metrics["cost"] for run in made)
    costs = tuning_loop.costs_of(bench.store, made[best])
    assert float(costs.mean()) == pytest.approx(made[best].metrics["cost"])


def test_a_study_goes_on_where_it_stopped_with_other_points(bench: Bench) -> None:
    tuning_loop.tune(bench.store, ground(bench), begin(bench, 2), search_of(bench, begin(bench, 2)))
    study = begin(bench, 4)
    search = search_of(bench, study)
    assert len(search.tried()) == 2
    tuning_loop.tune(bench.store, ground(bench), study, search)
    assert len({one.parameters["learning_rate"] for one in search.tried()}) == 4
    tuning_loop.tune(bench.store, ground(bench), study, search_of(bench, study))
    assert len(search.tried()) == 4
    other = begin(bench, 4, seed=2)
    assert other.id != study.id


def test_a_trial_of_a_dead_process_is_made_again(bench: Bench) -> None:
    study = begin(bench, 2)
    lost = search_of(bench, study).ask("elsewhere 1 1")
    mine = search_of(bench, study).ask(f"{processes.host()} {os.getpid()} before")  # the number was given to another
    assert lost is not None
    assert mine is not None
    search = search_of(bench, study)
    assert tuning_loop.take_up(search) == 1  # another machine's process may live
    assert [one.state for one in search.tried()] == [RUNNING, FAILED]
    again = search.ask(tuning_loop.this_process())
    assert again is not None
    assert again.parameters == mine.parameters


def test_fits_on_a_share_of_the_rows_let_a_poor_trial_go(make: Callable[..., Bench]) -> None:
    bench = make()
    asked: list[int] = []

    def poor(metrics: Any, number: int) -> bool:
        asked.append(number)
        return metrics["fit_rows"] > 20

    course = trial.Course(shares=(0.05, 0.3, 1.0), on_share=poor)
    assert trial.fit(bench.store, ground(bench), {}, cause="test", course=course) is None
    (run,) = runs.list_runs(bench.store, "trains")
    assert (run.state, run.tags["pruned"], asked) == ("finished", "true", [0, 1])
    rows = [point.value for point in runs.metric_history(bench.store, run.id, "fit_rows")]
    assert len(rows) == 2
    assert rows[0] < rows[1]


def test_what_a_function_reports_is_logged_and_may_end_its_trial(make: Callable[..., Bench]) -> None:
    bench = make(pipeline=REPORTING)
    course = trial.Course(on_report=lambda value, step: step == 1)
    assert trial.fit(bench.store, ground(bench), {"learning_rate": 0.25}, cause="test", course=course) is None
    (run,) = runs.list_runs(bench.store, "trains")
    assert [point.step for point in runs.metric_history(bench.store, run.id, "reported")] == [0, 1]
    whole = trial.fit(bench.store, ground(bench), {"learning_rate": 0.25}, cause="test")
    assert whole is not None
    assert runs.get_run(bench.store, whole.run.id).metrics["reported"] == 0.25


def test_the_search_gives_up_what_is_worse_than_the_middle(make: Callable[..., Bench]) -> None:
    bench = make(pipeline=REPORTING)
    # The function reports its learning rate: what counts as good is known beforehand.
    study = begin(bench, 12, pruner="median", space={"learning_rate": SPACE["learning_rate"]})
    search = search_of(bench, study)
    tuning_loop.tune(bench.store, ground(bench), study, search)
    states = [one.state for one in search.tried()]
    assert states.count(PRUNED) >= 1
    assert states[:4] == [DONE] * 4
    kept = [one.parameters["learning_rate"] for one in search.tried()[4:] if one.state == DONE]
    lost = [one.parameters["learning_rate"] for one in search.tried()[4:] if one.state == PRUNED]
    assert np.mean(kept or [0.0]) < np.mean(lost)


def test_a_failing_trial_is_no_end_and_failing_always_is(make: Callable[..., Bench]) -> None:
    breaks = {"    text = [": "    if smallest_leaf == 5:\n        raise ValueError('too small')\n    text = ["}
    bench = make(pipeline=breaks)
    study = begin(bench, 4, sampler="grid", space={"smallest_leaf": (5, 50, 100, 200)})
    search = search_of(bench, study)
    tuning_loop.tune(bench.store, ground(bench), study, search)
    assert sorted(one.state for one in search.tried()) == [DONE, DONE, DONE, FAILED]
    failed = next(one for one in search.tried() if one.state == FAILED)
    assert "too small" in str(runs.get_run(bench.store, str(failed.run)).error)
    never = begin(bench, 9, step="breaking", space={"column": tuple("abcdefg")})
    with pytest.raises(StepFailed, match="the rails are wet"):
        tuning_loop.tune(bench.store, ground(bench, "breaking"), never, search_of(bench, never))
    assert len([one for one in search_of(bench, never).tried() if one.run]) == tuning_loop.ALL_FAILED
    few = begin(bench, 9, step="breaking", space={"column": ("late", "line")})
    with pytest.raises(StepFailed, match="the rails are wet"):  # every point was tried, and none works
        tuning_loop.tune(bench.store, ground(bench, "breaking"), few, search_of(bench, few))


def test_an_objective_that_no_trial_has_is_named(bench: Bench) -> None:
    study = begin(bench, 2, objectives=[{"metric": "profit", "minimise": False}])
    with pytest.raises(BadInput, match="objective profit"):
        tuning_loop.tune(bench.store, ground(bench), study, search_of(bench, study))


def test_several_objectives_end_in_what_no_other_beats_in_all(bench: Bench) -> None:
    objectives = [{"metric": "cost", "minimise": True}, {"metric": "late_share", "minimise": False}]
    study = begin(bench, 4, objectives=objectives, sampler="nsga2")
    search = search_of(bench, study)

    def measure(truth: Any, scores: Any, threshold: float) -> dict[str, float]:
        return {"late_share": float((scores >= threshold).mean()), "cost": -1.0}

    tuning_loop.tune(bench.store, ground(bench), study, search, measure=measure)
    tried = [one.values for one in search.tried()]
    assert all(cost >= 0 for cost, _ in tried)  # what is handed in replaces no metric of ours
    best = [tried[number] for number in search.best()]
    assert best
    for cost, share in best:
        assert not any(c <= cost and s >= share and (c, s) != (cost, share) for c, s in tried)


def test_earlier_runs_are_where_a_search_begins(bench: Bench) -> None:
    for rate in (0.06, 0.4, 0.9):  # the last one lies outside of the space
        trial.fit(bench.store, ground(bench), {"learning_rate": rate, "smallest_leaf": 5}, cause="test")
    trial.fit(bench.store, ground(bench), {"learning_rate": 0.06, "smallest_leaf": 5}, cause="test")
    study = begin(bench, 2)
    search = search_of(bench, study)
    assert tuning_loop.suggest_earlier(bench.store, ground(bench), study, search) == 2
    tuning_loop.tune(bench.store, ground(bench), study, search)
    assert {one.parameters["learning_rate"] for one in search.tried()} == {0.06, 0.4}


def test_a_study_is_on_the_record(bench: Bench) -> None:
    study = begin(bench, 2)
    assert studies.get(bench.store, study.id[:-4]).id == study.id
    assert [one.id for one in studies.studies(bench.store, "trains", "trees")] == [study.id]
    assert studies.studies(bench.store, "trains", "linear") == []
    ended = studies.end(bench.store, study, studies.FINISHED, {"best": [1]})
    assert studies.get(bench.store, study.id).ended == ended.ended
    with bench.store.database.read() as tx:
        (entry,) = journal.entries(tx, "trains", kind="study ended")
    assert (entry.subject, entry.body["best"]) == (study.id, [1])
    with pytest.raises(NotFound, match="instar studies ls"):
        studies.get(bench.store, "stdy_none")


@pytest.mark.parametrize(("sampler", "space"), [("grid", SPACE)])
def test_a_grid_needs_values(tmp_path: Path, sampler: str, space: search_space.Space) -> None:
    with pytest.raises(BadInput, match="learning_rate"):
        OptunaSearch(tmp_path / "s.log", space, [Objective("cost")], sampler=sampler)


def test_pruning_needs_one_objective(tmp_path: Path) -> None:
    both: Sequence[Objective] = [Objective("cost"), Objective("auc", minimise=False)]
    with pytest.raises(BadInput, match="one objective"):
        OptunaSearch(tmp_path / "s.log", SPACE, both, pruner="median")


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi-random", "nsga2"])
def test_every_sampler_stays_in_the_space(tmp_path: Path, sampler: str) -> None:
    space: search_space.Space = {
        **SPACE,
        "depth": search_space.Range(2, 11, step=3),
        "share": search_space.Range(0.1, 0.9),
    }
    search = OptunaSearch(tmp_path / "s.log", space, [Objective("cost")], sampler=sampler, seed=3)
    points = []
    for value in range(14):
        proposal = search.ask("here 1 1")
        assert proposal is not None
        assert search_space.holds(space, proposal.parameters)
        assert (proposal.parameters["depth"] - 2) % 3 == 0
        search.tell(proposal.number, DONE, [float(value % 5)])
        points.append(repr(proposal.parameters))
    assert len(set(points)) > 10
    assert sum(search.importances().values()) == pytest.approx(1.0)


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi-random", "nsga2"])
def test_no_point_is_tried_twice_and_a_space_with_an_end_ends(tmp_path: Path, sampler: str) -> None:
    space: search_space.Space = {"leaf": (5, 10), "depth": search_space.Range(2, 11, step=3)}
    search = OptunaSearch(tmp_path / "s.log", space, [Objective("cost")], sampler=sampler, seed=3)
    seen = []
    while (proposal := search.ask("here 1 1")) is not None:
        seen.append((proposal.parameters["leaf"], proposal.parameters["depth"]))
        search.began(proposal.number, f"run_{proposal.number}")
        search.tell(proposal.number, FAILED if len(seen) == 2 else DONE, [1.0])
    assert sorted(seen) == [(leaf, depth) for leaf in (5, 10) for depth in (2, 5, 8, 11)]


def test_a_grid_ends_when_every_point_was_tried(tmp_path: Path) -> None:
    space: search_space.Space = {"leaf": (5, 10), "depth": search_space.Range(1, 3)}
    search = OptunaSearch(tmp_path / "s.log", space, [Objective("cost")], sampler="grid")
    seen = set()
    while (proposal := search.ask("here 1 1")) is not None:
        seen.add((proposal.parameters["leaf"], proposal.parameters["depth"]))
        search.tell(proposal.number, DONE, [1.0])
    assert seen == {(leaf, depth) for leaf in (5, 10) for depth in (1, 2, 3)}
    assert search.importances() == {}
