"""Evidence is about rows that nobody fitted on, and about the signature that the endpoint keeps."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from instar.core.errors import ContractError, UnsafeModel
from instar.core.store import Store
from instar.evaluate.evidence import gather, neutral, score_both, uncovered
from instar.evaluate.latency import measure_in_process
from instar.evaluate.scoring import load_scorer
from instar.plan.cost import mean_cost
from instar.release.scan import admit
from instar.train.bundle import Column, Parity
from tests.evaluate.bundles import INPUTS, PROBLEM, make_bundle, parts, table


def test_costs_are_those_of_the_decisions_at_each_threshold(store: Store) -> None:
    candidate = load_scorer(store.blobs, make_bundle(store, threshold=0.5), admit)
    champion = load_scorer(store.blobs, make_bundle(store, noise=0.4), admit)
    judged = score_both(parts().judge, "late", "at", candidate, champion)
    found = gather(PROBLEM, judged, candidate.manifest, champion.manifest, champion_name="delay@1")
    assert judged.opponent_scores is not None
    assert found.costs.mean_a == pytest.approx(mean_cost(PROBLEM.cost, judged.y_true, judged.scores >= 0.5))
    assert found.costs.mean_b == pytest.approx(mean_cost(PROBLEM.cost, judged.y_true, judged.opponent_scores >= 0.25))
    assert sum(part.costs.n for part in found.slices) == judged.rows.height == 1400
    assert [part.name for part in found.slices].count("carrier=OO") == 1


def test_the_same_recipe_is_a_refit_another_is_new_and_none_is_first(store: Store) -> None:
    trees, again, rule = (
        make_bundle(store, recipe=r, noise=n) for r, n in [("trees", 0.0), ("trees", 0.1), ("rule", 0.2)]
    )
    loaded = {bundle: load_scorer(store.blobs, bundle, admit) for bundle in (trees, again, rule)}

    def relation(candidate: str, champion: str | None) -> str:
        opponent = loaded[champion] if champion else None
        judged = score_both(parts().judge, "late", "at", loaded[candidate], opponent)
        return gather(PROBLEM, judged, loaded[candidate].manifest, opponent.manifest if opponent else None).relation

    assert (relation(again, trees), relation(trees, rule), relation(trees, None)) == ("refit", "recipe", "first")


def test_rows_that_either_was_fitted_on_are_left_out(store: Store) -> None:
    # The champion was fitted again on everything up to 20 February; the judge rows begin on the 16th.
    champion = load_scorer(store.blobs, make_bundle(store, fitted_until="2013-02-20T00:00:00+00:00"), admit)
    candidate = load_scorer(store.blobs, make_bundle(store, noise=0.1), admit)
    judged = score_both(parts().judge, "late", "at", candidate, champion)
    assert judged.rows["at"].min() > pl.Series(["2013-02-20T00:00:00+00:00"]).str.to_datetime("%Y-%m-%dT%H:%M:%S%z")[0]
    assert judged.left_out == {"seen in a fit": 401}
    assert judged.rows.height == 999


def test_rows_without_a_truth_are_left_out(store: Store) -> None:
    rows = parts().judge.with_columns(late=pl.when(pl.int_range(pl.len()) >= 30).then("late"))
    candidate = load_scorer(store.blobs, make_bundle(store), admit)
    judged = score_both(rows, "late", "at", candidate, None)
    assert (judged.left_out, len(judged.y_true)) == ({"no truth": 30}, 1370)


def test_a_missing_target_is_named(store: Store) -> None:
    candidate = load_scorer(store.blobs, make_bundle(store), admit)
    with pytest.raises(ContractError, match="'late'"):
        score_both(parts().judge.drop("late"), "late", "at", candidate, None)


def test_neutral_is_the_cheaper_of_yes_and_no() -> None:
    name, costs = neutral(PROBLEM, np.array([True] + [False] * 9))
    assert (name, costs.sum()) == ("always no", 3.0)
    name, costs = neutral(PROBLEM, np.array([True] * 5 + [False] * 5))
    assert (name, costs.sum()) == ("always yes", 5.0)


def test_facts_of_the_bundle_are_in_the_evidence(store: Store) -> None:
    bundle = make_bundle(store, parity=Parity(500, 1e-9, 1e-6, True))
    candidate = load_scorer(store.blobs, bundle, admit)
    judged = score_both(parts().judge, "late", "at", candidate, None)
    latency = measure_in_process(candidate, judged.rows, calls=100)
    found = gather(PROBLEM, judged, candidate.manifest, None, latency=latency)
    assert found.facts.parity is not None
    assert (found.facts.parity.rows, found.facts.parity.passed) == (500, True)
    assert (found.facts.contract_problems, found.facts.latency) == ((), latency)
    assert 0 < latency.p50_ms <= latency.p99_ms
    assert latency.how.startswith("native form")


@pytest.mark.parametrize(
    ("candidate", "problem"),
    [
        (INPUTS, None),
        (INPUTS[:1], None),  # it may do with less
        ((*INPUTS, Column("tail", "BYTES", nullable=True)), "do not send"),
        ((Column("risk", "INT64"), INPUTS[1]), "as INT64, the endpoint takes FP64"),
        ((INPUTS[0], Column("carrier", "BYTES", nullable=True)), None),
    ],
)
def test_a_signature_has_to_cover_the_endpoints(candidate: tuple[Column, ...], problem: str | None) -> None:
    found = uncovered(INPUTS, candidate)
    assert (found == ()) if problem is None else (problem in found[0])


def test_what_callers_may_leave_out_the_candidate_may_not_need() -> None:
    found = uncovered((Column("wind", "FP64", nullable=True),), (Column("wind", "FP64"),))
    assert found == ("it needs a value for wind, which callers of the endpoint may leave out",)
    assert uncovered((Column("wind", "INT64"),), (Column("wind", "FP64"),)) == ()


def test_a_native_form_is_inspected_before_it_is_loaded(store: Store) -> None:
    bad = make_bundle(store, native=store.blobs.put(b"cos\nsystem\n(S'true'\ntR."))
    with pytest.raises(UnsafeModel, match=r"os\.system"):
        load_scorer(store.blobs, bad, admit)


def test_scores_of_rows_and_of_calls_are_equal(store: Store) -> None:
    scorer = load_scorer(store.blobs, make_bundle(store, noise=0.2), admit)
    rows = table(days=1)
    single = [
        scorer.score({"risk": [risk], "carrier": [carrier]})[0]
        for risk, carrier in rows.select("risk", "carrier").rows()
    ]
    assert scorer.score_rows(rows).tolist() == single
