from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("treelite")

from instar.core import journal, lineage
from instar.core.errors import ContractError, Damaged, StepFailed
from instar.core.limits import Limits
from instar.data import profile
from instar.evaluate.split import cut
from instar.train import bundle, bundles, runs
from instar.train.native import load_native
from instar.train.portable import PortableModel

FEATURES = ["hour", "line", "driver", "distance"]


def columns(frame: pl.DataFrame) -> dict[str, list]:
    return {name: frame[name].to_list() for name in FEATURES}


def test_the_best_trial_becomes_a_bundle_that_scores_alike_in_both_forms(bench: Any) -> None:
    stored, manifest = bench.fit("trees")
    assert manifest.portable is not None
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert (manifest.model, manifest.step, manifest.kind, manifest.portable.form) == (
        "delay",
        "trees",
        "model",
        "treelite",
    )
    assert manifest.parameters == {"learning_rate": 0.3, "smallest_leaf": 5}
    portable = PortableModel.load(manifest, bench.store.blobs.path(manifest.portable.file))
    native = load_native(bench.store.blobs, manifest)
    rows = pl.concat([bench.rows, bench.rows.with_columns(line=pl.lit("U9"), driver=pl.lit(None, dtype=pl.String))])
    assert np.abs(portable.score(columns(rows)) - native.score(columns(rows))).max() < 1e-12
    # The function saw features and target alone, of the rows before the last 20 days that have a target.
    known = bench.rows.filter(pl.col("late").is_not_null())
    parts = cut(known, bench.project.contract.problem["delay"].split, "departs", None)
    assert manifest.fitted_rows == parts.fit.height
    assert [column.name for column in manifest.inputs] == FEATURES
    assert manifest.profile is not None
    assert profile.from_bytes(bench.store.blobs.get(manifest.profile)).rows == parts.fit.height
    assert manifest.key == ("train",)
    assert bench.kind.digest(bench.project, "trees") == stored.digest


def test_the_signature_has_types_privacy_ranges_and_categories(bench: Any) -> None:
    _, manifest = bench.fit("trees")
    hour, line, driver, distance = manifest.inputs
    assert (hour.datatype, hour.nullable, hour.privacy, hour.minimum, hour.maximum) == (
        "INT64",
        False,
        "internal",
        0,
        23,
    )
    # No row lacks a line, but the contract lets a call leave it out.
    assert (line.datatype, line.nullable, line.privacy, line.categories) == (
        "BYTES",
        True,
        "public",
        ("S1", "S2", "U5"),
    )
    assert (driver.datatype, driver.nullable, driver.privacy, driver.categories) == ("BYTES", True, "personal", None)
    assert (distance.datatype, distance.nullable) == ("FP64", True)


def test_each_trial_is_a_run_with_its_inputs_and_metrics_and_the_threshold_is_the_cheapest(bench: Any) -> None:
    stored, manifest = bench.fit("trees")
    good, bad = runs.list_runs(bench.store, "trains", experiment="delay")
    assert [run.parameters["smallest_leaf"] for run in (good, bad)] == [5, 200]
    assert {run.state for run in (good, bad)} == {"finished"}
    assert good.inputs == [bench.version]
    assert good.metrics["cost"] < bad.metrics["cost"]
    assert (good.tags["chosen"], bad.tags.get("chosen")) == ("true", None)
    assert manifest.run == good.id
    known = bench.rows.filter(pl.col("late").is_not_null())
    decide = cut(known, bench.project.contract.problem["delay"].split, "departs", None).decide
    scores = load_native(bench.store.blobs, manifest).score(columns(decide))
    truth = decide["late"].to_numpy()
    cost = [
        float(np.mean(3 * (truth & (scores < t)) + 1 * (~truth & (scores >= t))))
        for t in [manifest.threshold, 0.0, 0.25, 0.5, 1.1, *scores]
    ]
    assert cost[0] == pytest.approx(min(cost))
    assert cost[0] == pytest.approx(good.metrics["cost"])
    with bench.store.database.read() as tx:
        causes = {edge.source for edge in lineage.up(tx, stored.ref)}
        assert causes >= {good.id, bench.version}
        assert [entry.kind for entry in journal.entries(tx, "trains")].count("bundle packed") == 1


def test_a_parameter_that_the_caller_sets_is_not_searched(bench: Any) -> None:
    _, manifest = bench.fit("trees", smallest_leaf=7)
    assert manifest.parameters["smallest_leaf"] == 7
    assert len(runs.list_runs(bench.store, "trains")) == 1


def test_a_run_is_recorded_before_the_function_runs_and_failed_when_it_raises(bench: Any) -> None:
    with pytest.raises(StepFailed, match="the rails are wet") as caught:
        bench.fit("breaking")
    assert isinstance(caught.value.__cause__, ValueError)
    (run,) = runs.list_runs(bench.store, "trains")
    assert run.state == "failed"
    assert run.error is not None
    assert "the rails are wet" in run.error
    assert run.code is not None
    assert run.environment is not None
    assert run.parameters == {"column": "late"}
    called = bench.project.root / "called"
    assert called.read_text() == "hour,line,driver,distance,late"
    assert run.started.timestamp() <= called.stat().st_mtime
    assert bench.kind.digest(bench.project, "breaking") is None


def test_a_rule_of_the_projects_own_class_is_served_natively_from_its_own_code(bench: Any) -> None:
    _, manifest = bench.fit("late_by_hour")
    assert (manifest.portable, manifest.parity, manifest.kind) == (None, None, "baseline")
    assert "not a class of scikit-learn" in manifest.unportable
    folder = bench.store.folder / "bundles" / "one"
    seen: list[list[str]] = []
    load_native(bench.store.blobs, manifest, inspect=lambda data, modules: seen.append(list(modules)))
    assert seen == [["pipeline"]]
    # The project has moved on; another process without it still loads the rule as it was.
    (bench.project.root / "pipeline.py").write_text("class Rule:\n    def predict(self, frame): raise SystemError\n")
    bundle.unpack(bench.store.blobs, _current(bench), folder)
    program = (
        "import sys; from pathlib import Path; from instar.train import bundle, native\n"
        "folder = Path(sys.argv[1]); manifest = bundle.decode((folder / 'manifest.json').read_bytes())\n"
        "model = native.load_native_folder(folder, manifest)\n"
        "print(model.score({'hour': [3, 99], 'line': ['S1', None], 'driver': [None, None], 'distance': [1, None]}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, cwd=bench.store.folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "0.2]"


def _current(bench: Any) -> str:
    with bench.store.database.read() as tx:
        found = bundles.current(tx, "trains", "late_by_hour")
    assert found is not None
    return found[0]


def test_an_older_bundle_keeps_its_own_class_beside_the_present_one(bench: Any) -> None:
    _, manifest = bench.fit("late_by_hour")
    present = sys.modules["pipeline"]
    vars(present)["Rule"].predict = None  # the project's class is another one by now
    model = load_native(bench.store.blobs, manifest)
    assert model.score(columns(bench.rows.head(3))).shape == (3,)
    assert sys.modules["pipeline"] is present


def test_an_inspection_that_raises_stops_the_loading(bench: Any) -> None:
    _, manifest = bench.fit("late_by_hour")

    def refuse(data: bytes, modules: object) -> None:
        raise Damaged("unsafe")

    with pytest.raises(Damaged, match="unsafe"):
        load_native(bench.store.blobs, manifest, inspect=refuse)


def test_a_linear_model_is_served_as_onnx(bench: Any) -> None:
    pytest.importorskip("skl2onnx")
    _, manifest = bench.fit("linear")
    assert manifest.portable is not None
    assert manifest.portable.form == "onnx"
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert manifest.parity.max_difference < manifest.parity.tolerance


def test_parity_that_does_not_hold_is_recorded_as_failed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = PortableModel.score
    monkeypatch.setattr(PortableModel, "score", lambda self, columns: exact(self, columns) + 0.01)
    _, manifest = bench.fit("trees")
    assert manifest.parity is not None
    assert not manifest.parity.passed
    assert manifest.parity.max_difference == pytest.approx(0.01)


def test_fitting_the_same_again_gives_the_same_content_and_recall_brings_it_back(bench: Any) -> None:
    first, one = bench.fit("trees", learning_rate=0.2)
    second, two = bench.fit("trees", learning_rate=0.25)
    again, three = bench.fit("trees", learning_rate=0.2)
    assert first.digest == again.digest != second.digest
    assert one.recipe == three.recipe != two.recipe
    assert bench.kind.digest(bench.project, "trees") == again.digest
    recalled = bench.kind.recall(bench.project, bench.pipeline.step("trees"), second.ref)
    assert recalled == second
    assert bench.kind.digest(bench.project, "trees") == second.digest
    assert bench.kind.recall(bench.project, bench.pipeline.step("trees"), "b3:none") is None


def test_pandas_frames_are_fitted_and_scored_as_pandas(make: Callable[..., Any]) -> None:
    pytest.importorskip("pandas")
    bench = make(
        pipeline={
            "import pathlib": "import pathlib\nimport pandas",
            "def trees(features: pl.DataFrame": "def trees(features: pandas.DataFrame",
            'features.drop("late")': 'features.drop(columns="late")',
        }
    )
    _, manifest = bench.fit("trees")
    assert manifest.form == "pandas"
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert manifest.parity.rows > 200


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('target = "late"', 'target = "delayed"', "no such column"),
        ('target = "late"', 'target = "hour"', "yes or no"),
        ('target = "late"', 'target = "late"\nfeatures = ["hour", "speed"]', "no column speed"),
        ('target = "late"', 'target = "late"\nfeatures = ["departs"]', "cannot be part of a call"),
        ('target = "late"', 'target = "late"\nfeatures = ["late"]', "target cannot be a feature"),
        ('target = "late"', 'target = "late"\ninputs.speed = { min = 0 }', "no feature"),
        ('target = "late"', 'target = "late"\ninputs.line = { min = 0 }', "no range"),
        ('target = "late"', 'target = "late"\ninputs.hour = { values = ["early"] }', "values are texts"),
    ],
)
def test_a_contract_that_does_not_fit_the_table_is_refused_before_the_function_runs(
    make: Callable[..., Any], old: str, new: str, message: str
) -> None:
    bench = make(contract={old: new})
    with pytest.raises(ContractError, match=message):
        bench.fit("breaking")
    assert not (bench.project.root / "called").exists()
    assert "running" not in {run.state for run in runs.list_runs(bench.store, "trains")}


def test_the_threshold_is_the_neutral_one_where_the_contract_says_so_or_rows_are_too_few(
    make: Callable[..., Any],
) -> None:
    few = make(contract={"min_rows = 20": "min_rows = 1000"})
    assert few.fit("trees")[1].threshold == 0.25


def test_what_the_contract_declares_of_an_input_is_in_the_signature(make: Callable[..., Any]) -> None:
    declared = "inputs = { hour = { min = 0, max = 23 }, distance = { max = 1000.5, nullable = false } }"
    _, manifest = make(contract={'target = "late"': f'target = "late"\n{declared}'}).fit("trees")
    hour, line, _, distance = manifest.inputs
    assert (hour.limits, line.limits) == (Limits(0, 23), None)
    assert (distance.limits, distance.nullable) == (Limits(maximum=1000.5), False)
