from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.train import conditions, environment, threads, verdict
from instar.train.conditions import Conditions
from instar.train.environment import Environment
from instar.train.threads import Threads
from instar.train.verdict import DIFFERENT, EQUAL, IDENTICAL, Facts, Results, compare

METRICS = {"cost": 0.25, "rows": 80.0, "fit_seconds": 1.0}
DIGESTS = {"portable form": "b3:a", "native form": "b3:b", "scores": "b3:c"}


def results(**changes: float) -> Results:
    return Results({**METRICS, **changes}, DIGESTS)


def test_times_are_no_result() -> None:
    again = Results({**METRICS, "fit_seconds": 9.0, "system/memory": 1e9}, DIGESTS)
    assert compare(results(), again, predictions=0.0).verdict == IDENTICAL


def test_a_pickle_may_vary_where_a_portable_form_says_the_same() -> None:
    again = Results(METRICS, {**DIGESTS, "native form": "b3:other"})
    assert compare(results(), again, predictions=0.0).verdict == IDENTICAL
    alone = {"native form": "b3:b"}
    found = compare(Results(METRICS, alone), Results(METRICS, {"native form": "b3:other"}), predictions=0.0)
    assert (found.verdict, found.digests) == (EQUAL, {"native form": ("b3:b", "b3:other")})


@pytest.mark.parametrize(
    ("moved", "predictions", "expected"),
    [
        ({}, 1e-9, EQUAL),
        ({}, 1e-3, DIFFERENT),
        ({"cost": 0.25 + 1e-9}, 0.0, EQUAL),
        ({"cost": 0.26}, 0.0, DIFFERENT),
        ({"rows": 80.00001}, 0.0, EQUAL),  # relative: a large number may move by more
        ({"cost": math.nan}, 0.0, DIFFERENT),
    ],
)
def test_equal_is_within_the_tolerance_of_metrics_and_of_predictions(
    moved: dict[str, float], predictions: float, expected: str
) -> None:
    again = Results({**METRICS, **moved}, {name: f"{digest}x" for name, digest in DIGESTS.items()})
    assert compare(results(), again, predictions=predictions).verdict == expected


def test_a_metric_that_only_one_of_them_has_is_a_difference() -> None:
    assert compare(results(), results(more=1.0), predictions=0.0).metrics == {"more": (None, 1.0)}
    assert compare(results(more=math.nan), results(more=math.nan), predictions=0.0).verdict == IDENTICAL


def test_without_anything_to_compare_nothing_is_proven() -> None:
    assert compare(Results({}, {}), Results({}, {}), predictions=None).verdict == DIFFERENT
    assert compare(Results({"loss": 1.0}, {}), Results({"loss": 1.0}, {}), predictions=None).verdict == EQUAL


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(st.dictionaries(st.sampled_from("abcd"), numbers), st.floats(0.0, 1.0))
def test_the_same_is_always_identical_and_a_wider_tolerance_never_says_less(
    metrics: dict[str, float], tolerance: float
) -> None:
    same = Results(metrics, DIGESTS)
    assert compare(same, same, predictions=0.0, tolerance=tolerance).verdict == IDENTICAL
    moved = Results({name: value * 1.001 for name, value in metrics.items()}, DIGESTS)
    order = [IDENTICAL, EQUAL, DIFFERENT]
    narrow = compare(same, moved, predictions=0.0, tolerance=tolerance).verdict
    wide = compare(same, moved, predictions=0.0, tolerance=tolerance * 2).verdict
    assert order.index(wide) <= order.index(narrow)


HERE = environment.capture()


def facts(about: Conditions, here: Environment = HERE, code: str = "b3:code", first: tuple[str, ...] = ()) -> Facts:
    return Facts(about, here, code, first)


def test_causes_come_in_the_order_in_which_they_act() -> None:
    was = conditions.capture(way="trial", seed=1, variables=["HOME"], files={"a.txt": "b3:1"}, rows="b3:rows")
    now = msgspec.structs.replace(
        was,
        rows="b3:others",
        files={},
        variables={"HOME": "b3:other"},
        instar="b3:other",
        hardware=msgspec.structs.replace(was.hardware, processor="another"),
        threads=msgspec.structs.replace(was.threads, usable=was.threads.usable + 1),
        seeds=msgspec.structs.replace(was.seeds, hash_seed="0"),
    )
    then = msgspec.structs.replace(HERE, distributions={"polars": "1", "numpy": "1", "gone": "3"}, python="3.11.0")
    after = msgspec.structs.replace(HERE, distributions={"polars": "2", "numpy": "2"}, python="3.12.0")
    found = list(verdict.differences(facts(was, then, first=("polars",)), facts(now, after, "b3:new")))
    assert [(one.kind, one.name) for one in found] == [
        ("rows", "rows fitted on"), ("code", "project"), ("file", "a.txt"), ("variable", "HOME"),
        ("distribution", "polars"), ("python", "python"), ("distribution", "gone"), ("distribution", "numpy"),
        ("instar", "instar"), ("hardware", "processor"), ("threads", "usable processors"), ("seed", "PYTHONHASHSEED"),
    ]  # fmt: skip
    assert found[4].text == "polars was 1 and is 2"
    assert found[6].text == "gone 3 is not there"
    assert list(verdict.differences(facts(was), facts(was))) == []


def test_the_same_count_of_threads_said_in_another_way_is_no_difference() -> None:
    was = Threads(4, {}, {"openblas (x)": "4 Zen"})
    assert threads.differences(was, Threads(4, {"OMP_NUM_THREADS": "4"}, {"mkl (y)": "4"})) == {}
    assert threads.differences(was, Threads(4, {"OMP_NUM_THREADS": "1"})) == {"OMP_NUM_THREADS": (None, "1")}
    assert threads.differences(was, Threads(4, {}, {"openblas (x)": "4 SkylakeX"})) == {
        "threads of openblas (x)": ("4 Zen", "4 SkylakeX")
    }


def test_a_new_process_is_given_the_recorded_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    given = threads.variables_for(Threads(2, {"MKL_NUM_THREADS": "1"}))
    assert (given["OMP_NUM_THREADS"], given["MKL_NUM_THREADS"], given["POLARS_MAX_THREADS"]) == ("2", "1", None)
    same = threads.variables_for(Threads(8, {"OMP_NUM_THREADS": "3"}))
    assert (same["OMP_NUM_THREADS"], same["OPENBLAS_NUM_THREADS"]) == ("3", None)
