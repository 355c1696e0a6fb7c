from __future__ import annotations

from typing import Any

import polars as pl
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("treelite")

from instar.core import lineage
from instar.core.errors import Conflict
from instar.plan.pipeline import discover
from instar.train import bundle, runs
from instar.train.refitting import refit


def test_a_refit_has_the_recipe_and_threshold_of_the_judged_one_and_all_rows(bench: Any) -> None:
    judged, first = bench.fit("trees")
    digest = refit(bench.store, bench.project, bench.pipeline, judged.ref, bench.rows, bench.version, cause="actn_1")
    second = bundle.load_manifest(bench.store.blobs, digest)
    assert (second.recipe, second.parameters, second.threshold) == (first.recipe, first.parameters, first.threshold)
    assert second.fitted_rows == bench.rows["late"].is_not_null().sum() > first.fitted_rows
    assert second.fitted_until is not None
    assert first.fitted_until is not None
    assert second.fitted_until > first.fitted_until
    assert second.refit_of == judged.ref
    assert second.parity is not None
    assert second.parity.passed
    run = runs.get_run(bench.store, second.run)
    assert (run.cause, run.tags["refit_of"], run.state) == ("actn_1", judged.ref, "finished")
    with bench.store.database.read() as tx:
        assert {edge.source for edge in lineage.up(tx, digest)} >= {judged.ref, second.run, bench.version}
    # The judged fit stays the output of its step: a refit is no reason to run the step again.
    assert bench.kind.digest(bench.project, "trees") == judged.digest


def test_the_same_rows_again_are_not_fitted_again_and_other_rows_are(bench: Any) -> None:
    judged, _ = bench.fit("trees")
    first = refit(bench.store, bench.project, bench.pipeline, judged.ref, bench.rows, bench.version)
    made = len(runs.list_runs(bench.store, "trains"))
    assert refit(bench.store, bench.project, bench.pipeline, judged.ref, bench.rows, bench.version) == first
    assert len(runs.list_runs(bench.store, "trains")) == made
    fewer = bench.rows.head(300)
    assert refit(bench.store, bench.project, bench.pipeline, judged.ref, fewer, bench.version) != first
    assert len(runs.list_runs(bench.store, "trains")) == made + 1


def test_a_recipe_that_changed_since_it_was_judged_is_not_refitted(bench: Any) -> None:
    judged, _ = bench.fit("trees")
    file = bench.project.root / "pipeline.py"
    file.write_text(file.read_text().replace("max_iter=15", "max_iter=16"))
    with pytest.raises(Conflict, match="changed since"):
        refit(bench.store, bench.project, discover(bench.project), judged.ref, bench.rows, bench.version)
    file.write_text(file.read_text().replace("max_iter=16", "max_iter=15") + "\n# a comment is no change\n")
    assert refit(bench.store, bench.project, discover(bench.project), judged.ref, bench.rows, bench.version)


def test_rules_are_refitted_too(bench: Any) -> None:
    judged, _ = bench.fit("late_by_hour")
    rows = bench.rows.with_columns(late=pl.lit(True))
    digest = refit(bench.store, bench.project, bench.pipeline, judged.ref, rows, bench.version)
    from instar.train.native import load_native

    model = load_native(bench.store.blobs, bundle.load_manifest(bench.store.blobs, digest))
    columns = {name: bench.rows[name].to_list() for name in ("hour", "line", "driver", "distance")}
    assert set(model.score(columns)) == {1.0}
