"""scikit-learn's models are made again byte for byte: trees that were searched for, a linear model, and a refit on all rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar.core.store import Store
from instar.operate.reproduce import reproduce
from instar.train import bundle, bundles, refitting, runs
from tests.train.conftest import make_bench

pytest.importorskip("sklearn")
pytest.importorskip("treelite")


def test_a_search_a_linear_model_and_a_refit_are_identical(store: Store, tmp_path: Path) -> None:
    bench = make_bench(store, tmp_path)
    stored, manifest = bench.fit("trees")
    bench.fit("linear")
    refitted = refitting.refit(store, bench.project, bench.pipeline, stored.ref, bench.rows, bench.version)
    made = {run.id: run for run in runs.list_runs(store, "trains")}
    (bench.project.root / "pipeline.py").write_text("moved on\n")
    kinds = set()
    for run in made.values():
        found = reproduce(store, None, run.id)
        assert (found.verdict, found.causes) == ("identical", ()), run
        kinds.add("refit" if "refit_of" in run.tags else "chosen" if run.tags.get("chosen") else "trial")
    assert kinds == {"refit", "chosen", "trial"}
    with store.database.read() as tx:
        assert bundles.of_run(tx, bundle.load_manifest(store.blobs, refitted).run) == [refitted]
    assert manifest.lock is not None
    assert b"scikit-learn==" in store.blobs.get(manifest.lock)
