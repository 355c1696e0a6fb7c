"""From a cut table to an evaluation on the record: its verdict, its report, its lineage, and once only."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import polars as pl
import pytest

from instar.core import journal, lineage
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.evaluate.evaluation import Evaluation, evaluations, get_evaluation
from instar.evaluate.gates import Latency
from instar.evaluate.judging import Opponent, evaluate, evaluate_refit
from instar.evaluate.scoring import Scorer
from instar.release.scan import admit
from instar.train.bundle import Column, Parity
from tests.evaluate.bundles import INPUTS, PROBLEM, make_bundle, parts


def probe(scorer: Scorer, rows: object) -> Latency:
    return Latency(0.5, 2.0, 300, "in a test")


def judged(store: Store, bundle: str, champion: str | None = None, **changes: object) -> Evaluation:
    given: dict[str, object] = {
        "bundle": bundle,
        "table_version": "tver_9",
        "cut": parts(),
        "event_time": "at",
        "champion": Opponent(champion, "delay@1") if champion else None,
        "inspect": admit,
        "probe": probe,
        "contract": "b3:contract",
        **changes,
    }
    return evaluate(store, "flights", "delay", PROBLEM, **given)  # type: ignore[arg-type]


def test_a_better_recipe_passes(store: Store) -> None:
    found = judged(store, make_bundle(store), make_bundle(store, noise=0.6, recipe="rule"))
    assert (found.verdict.state, found.relation) == ("passed", "recipe")
    assert {check.name for check in found.verdict.checks} >= {
        "cost",
        "latency",
        "contract",
        "parity",
        "slice carrier=OO",
    }
    assert found.metrics["candidate"]["cost"]["value"] < found.metrics["champion"]["cost"]["value"]
    assert found.split["judge"]["rows"] == 1400


def test_a_candidate_turned_round_for_one_carrier_fails_on_that_slice(store: Store) -> None:
    found = judged(store, make_bundle(store, against="OO"), make_bundle(store, noise=0.9, recipe="rule"))
    assert found.verdict.state == "failed"
    assert "slice carrier=OO" in [check.name for check in found.verdict.failed]
    assert "slice carrier=UA" not in [check.name for check in found.verdict.failed]


def test_a_worse_refit_fails_and_an_equal_one_passes(store: Store) -> None:
    champion = make_bundle(store)
    assert judged(store, make_bundle(store, noise=0.8), champion).verdict.state == "failed"
    equal = judged(store, make_bundle(store, run="run_2"), champion)
    assert (equal.verdict.state, equal.relation) == ("passed", "refit")


def test_the_first_version_is_compared_with_the_neutral_decision(store: Store) -> None:
    found = judged(store, make_bundle(store))
    assert (found.verdict.state, found.relation, found.opponent) == ("passed", "first", None)
    assert "no champion" in found.verdict.checks[0].why


def test_rows_that_the_champion_saw_leave_too_few_to_judge(store: Store) -> None:
    champion = make_bundle(store, noise=0.6, recipe="rule", fitted_until="2013-03-01T00:00:00+00:00")
    found = judged(store, make_bundle(store), champion)
    assert found.verdict.state == "undecided"
    assert "too few" in found.verdict.reason


def test_a_champion_that_saw_all_rows_leaves_none(store: Store) -> None:
    champion = make_bundle(store, recipe="rule", fitted_until="2014-01-01T00:00:00+00:00")
    found = judged(store, make_bundle(store), champion)
    assert found.verdict.state == "undecided"
    assert found.metrics["candidate"]["auc"]["value"] is None


def test_an_input_that_callers_do_not_send_fails_the_contract(store: Store) -> None:
    found = judged(store, make_bundle(store), make_bundle(store, noise=0.6, recipe="rule"), endpoint_inputs=INPUTS[1:])
    assert [check.name for check in found.verdict.failed] == ["contract"]


def test_no_probe_no_verdict(store: Store) -> None:
    found = judged(store, make_bundle(store), probe=None)
    assert (found.verdict.state, found.verdict.reason) == ("undecided", "latency: no load probe ran")


def test_failed_parity_fails(store: Store) -> None:
    bundle = make_bundle(store, parity=Parity(100, 1.0, 1e-6, False, "the graph does not load"))
    found = judged(store, bundle)
    assert [(check.name, check.found) for check in found.verdict.failed] == [("parity", "the graph does not load")]


def test_it_is_on_the_record_once(store: Store) -> None:
    bundle, champion = make_bundle(store), make_bundle(store, noise=0.6, recipe="rule")
    first, second = judged(store, bundle, champion), judged(store, bundle, champion)
    assert first == second == get_evaluation(store, first.id)
    assert evaluations(store, "flights", bundle=bundle) == [first]
    with store.database.read() as tx:
        entries = journal.entries(tx, "flights", kind="evaluation")
        edges = {(edge.source, edge.relation) for edge in lineage.up(tx, first.id)}
        assert journal.verify(tx, "flights").consistent
    assert [(entry.subject, entry.body["verdict"], entry.body["contract"]) for entry in entries] == [
        (first.id, "passed", "b3:contract")
    ]
    assert entries[0].body["split"] == {name: part["digest"] for name, part in first.split.items()}
    assert edges == {(bundle, "was judged in"), (champion, "was the opponent in"), ("tver_9", "gave the judge rows of")}


def test_other_rows_or_another_champion_make_another_evaluation(store: Store) -> None:
    bundle, champion = make_bundle(store), make_bundle(store, noise=0.6, recipe="rule")
    found = {
        judged(store, bundle, champion).id,
        judged(store, bundle).id,
        judged(store, bundle, champion, cut=parts(seed=1)).id,
        judged(store, bundle, champion, contract="b3:other").id,
    }
    assert len(found) == 4
    assert [one.id for one in evaluations(store, "flights", problem="delay")] == sorted(found)


def test_an_unknown_evaluation_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="eval_nothing"):
        get_evaluation(store, "eval_nothing")


def test_the_report_is_one_page_and_one_document(store: Store) -> None:
    found = judged(store, make_bundle(store), make_bundle(store, noise=0.6, recipe="rule"))
    page = store.blobs.get(found.report_html).decode()
    document = msgspec.json.decode(store.blobs.get(found.report_json))
    assert page.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in page
    for outside in ("http://", "https://", "src=", "@import", "url("):
        assert outside not in page
    assert len(page) < 40_000
    for text in ("passed", "carrier=OO", "delay@1", found.id, found.bundle, "polyline"):
        assert text in page
    assert (document["evaluation"], document["verdict"], document["format"]) == (found.id, "passed", 1)
    assert document["metrics"] == found.metrics
    assert document["difference"]["high"] < 0
    assert [check["name"] for check in document["checks"]] == [check.name for check in found.verdict.checks]


def test_the_reports_format_is_kept(store: Store) -> None:
    # Programs read it by these names; a change of them is a new format number.
    found = judged(store, make_bundle(store), make_bundle(store, noise=0.6, recipe="rule"))
    document = msgspec.json.decode(store.blobs.get(found.report_json))
    assert sorted(document) == [
        "bundle", "calibration", "candidate", "cause", "checks", "contract", "difference", "evaluation", "event_at", "format",
        "judged_as", "latency", "left_out", "metrics", "opponent", "parity", "problem", "project", "reason", "relation", "rows",
        "slices", "split", "table_version", "unit", "verdict",
    ]  # fmt: skip
    assert sorted(document["checks"][0]) == ["asked", "blocking", "found", "name", "state", "why"]
    assert sorted(document["metrics"]["champion"]) == [
        "accuracy", "auc", "brier", "cost", "decided_positive", "f1", "log_loss", "positives", "precision", "recall",
    ]  # fmt: skip
    assert sorted(document["slices"][0]) == ["candidate", "difference", "opponent", "rows", "slice"]


def test_names_from_data_are_escaped_in_the_page(store: Store) -> None:
    cut = parts()
    marked = cut.judge.with_columns(carrier=pl.lit("<script>alert(1)</script>"))
    found = judged(
        store, make_bundle(store), make_bundle(store, noise=0.6, recipe="rule"), cut=replace(cut, judge=marked)
    )
    page = store.blobs.get(found.report_html).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_refit_stands_on_what_was_found_on_its_recipe(store: Store) -> None:
    champion = make_bundle(store, noise=0.6, recipe="rule")
    before = judged(store, make_bundle(store), champion)
    refit = make_bundle(store, run="run_2", fitted_until="2013-03-02T00:00:00+00:00", refit_of=before.bundle)
    found = evaluate_refit(
        store, before, PROBLEM, bundle=refit, table_version="tver_10", rows=parts().judge, inspect=admit, probe=probe
    )
    assert (found.verdict.state, found.bundle, found.opponent) == ("passed", refit, champion)
    cost = next(check for check in found.verdict.checks if check.name == "cost")
    assert before.id in cost.why
    assert "judged live" in cost.why
    assert [check.name for check in found.verdict.checks] == [check.name for check in before.verdict.checks]
    with store.database.read() as tx:
        assert (before.id, "gave the verdict on cost to") in {
            (e.source, e.relation) for e in lineage.up(tx, found.id, 1)
        }
    again = evaluate_refit(store, before, PROBLEM, bundle=refit, table_version="tver_10", inspect=admit)
    assert again == found
    assert before.id in store.blobs.get(found.report_html).decode()


def test_a_refit_with_other_inputs_or_failed_parity_fails_for_itself(store: Store) -> None:
    before = judged(store, make_bundle(store))
    wider = make_bundle(store, run="run_2", inputs=(*INPUTS, Column("tail", "BYTES")))
    broken = make_bundle(store, run="run_3", parity=Parity(100, 0.5, 1e-6, False))
    blamed = [
        [
            check.name
            for check in evaluate_refit(
                store, before, PROBLEM, bundle=b, table_version="tver_10", inspect=admit
            ).verdict.failed
        ]
        for b in (wider, broken)
    ]
    assert blamed == [["contract"], ["parity"]]


def test_a_refit_of_a_failed_recipe_has_failed(store: Store) -> None:
    before = judged(store, make_bundle(store, noise=0.9), make_bundle(store, recipe="rule"))
    assert before.verdict.state == "failed"
    refit = make_bundle(store, noise=0.1, run="run_2", refit_of=before.bundle)
    assert (
        evaluate_refit(store, before, PROBLEM, bundle=refit, table_version="tver_10", inspect=admit).verdict.state
        == "failed"
    )
