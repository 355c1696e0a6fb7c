"""What differs between runs."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from instar.core.store import Store
from instar.train import code, run_differences, runs
from instar.train.run_differences import differences, differing, ranked

VALUES = st.dictionaries(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 3), st.text(max_size=2)))


def project(folder: Path, rate: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "instar.toml").write_text("[project]\n")
    (folder / "pipeline.py").write_text("import math\n\n\ndef trees():\n    return " + rate + "\n")
    return folder


def test_code_parameters_and_metrics_differ_by_name_and_line(store: Store, tmp_path: Path) -> None:
    first = runs.start(
        store, "p", experiment="e", parameters={"rate": 0.1, "leaf": 5}, root=project(tmp_path / "p", "0.1")
    )
    runs.log_metrics(store, first.id, {"cost": 0.5, "same": 1.0, "odd": float("nan")})
    root = project(tmp_path / "p", "0.3")
    (root / "helper.py").write_text("LIMIT = 3\n")
    second = runs.start(store, "p", experiment="e", parameters={"rate": 0.3, "leaf": 5}, root=root)
    runs.log_metrics(store, second.id, {"cost": 0.4, "same": 1.0, "odd": float("nan")})
    found = differences(store, [runs.get_run(store, one.id) for one in (first, second)])
    assert found.parameters == {"rate": [0.1, 0.3]}
    assert found.metrics == {"cost": [0.5, 0.4]}
    assert found.environment == {}
    assert [one.file for one in found.code] == ["helper.py", "pipeline.py"]
    assert found.code[0].lines[-1] == "+LIMIT = 3"
    assert [line for line in found.code[1].lines if line[:1] in "+-"] == ["-    return 0.1", "+    return 0.3"]
    assert {one.run for one in found.code} == {second.id}


def test_a_long_difference_is_cut_and_says_so(store: Store, tmp_path: Path) -> None:
    root = project(tmp_path / "p", "1")
    first = runs.start(store, "p", experiment="e", root=root)
    (root / "long.py").write_text("".join(f"a{number} = 1\n" for number in range(run_differences.MOST_LINES + 50)))
    second = runs.start(store, "p", experiment="e", root=root)
    (one,) = differences(store, [first, second]).code
    assert len(one.lines) == run_differences.MOST_LINES
    assert one.cut == 51  # and the line that says where


def test_runs_without_code_or_environment_are_compared_by_what_they_have(store: Store) -> None:
    first = runs.start(store, "p", experiment="e", parameters={"rate": "0.1"}, capture=False)
    second = runs.start(store, "p", experiment="e", parameters={}, capture=False)
    found = differences(store, [first, second])
    assert found.parameters == {"rate": ["0.1", None]}
    assert (found.environment, found.conditions, found.code) == ({}, {}, ())
    assert differences(store, []).code == ()


def test_an_environment_differs_by_distribution(store: Store, tmp_path: Path) -> None:
    from dataclasses import replace

    import msgspec

    from instar.core import ids
    from instar.train import environment

    run = runs.start(store, "p", experiment="e", root=project(tmp_path / "p", "1"))
    assert run.environment is not None
    known = environment.load(store.blobs, run.environment)
    other = msgspec.structs.replace(known, distributions={**known.distributions, "polars": "0.0.1"})
    digest = store.blobs.put(ids.canonical_json(msgspec.to_builtins(other)))
    found = differences(store, [run, replace(run, environment=digest)])
    assert found.environment == {"polars": [known.distributions["polars"], "0.0.1"]}
    assert code.described(run.code).content


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_exactly_what_differs_is_named(columns: list[dict[str, object]]) -> None:
    found = differing(columns)
    for name in {name for column in columns for name in column}:
        row = [column.get(name) for column in columns]
        assert (name in found) == any(value != row[0] for value in row)
        assert found.get(name, row) == row


def test_runs_without_the_metric_come_last(store: Store) -> None:
    made = [runs.start(store, "p", experiment="e", capture=False).id for _ in range(4)]
    for run, value in zip(made, (0.5, float("nan"), 0.25), strict=False):
        runs.log_metrics(store, run, {"cost": value})
    found = [runs.get_run(store, run) for run in made]
    assert [made.index(run.id) for run in ranked(found, "cost")][:2] == [2, 0]
    assert [made.index(run.id) for run in ranked(found, "cost", minimise=False)][:2] == [0, 2]
