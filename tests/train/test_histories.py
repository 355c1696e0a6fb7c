"""Histories of metrics: kept whole, read in pages, and made short by the database as plain Python would."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.adapters import migrations
from instar.app import open_database
from instar.core.errors import BadInput, NotFound
from instar.core.store import Store
from instar.testing import memory_store
from instar.train import histories, run_records, runs, sampling
from instar.train.run_values import Point

Row = tuple[int, int, float, int]
Shown = list[tuple[int, int, float | None]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = memory_store(tmp_path_factory.mktemp("store"))
    if request.param == "postgresql":
        import psycopg

        server = request.getfixturevalue("postgres")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS histories")
            connection.execute("CREATE DATABASE histories")
        store.database.close()
        store = replace(store, database=open_database(f"{server}/histories"))
        migrations.prepare(store.database)
    yield store
    store.database.close()


values = st.sampled_from([0.0, 1.0, -2.5, math.inf, -math.inf, math.nan, 1e300])
points = st.lists(st.tuples(st.integers(-3, 12), st.integers(0, 3), values), max_size=40)
quiet = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def logged(store: Store, given: list[tuple[int, int, float]]) -> tuple[str, list[Row]]:
    """A new run with these points, and what its history must be."""
    run = runs.start(store, "p", experiment="e", capture=False).id
    as_points: list[Point] = [("m", value, step, at) for step, at, value in given]
    runs.log(store, run, points=as_points)
    rows = {(step, at, 0.0 if value != value else value, int(value != value)) for step, at, value in given}
    return run, sorted(rows)


def shown(rows: list[Row]) -> Shown:
    """Points as they are read."""
    return [(step, at, None if nan else value) for step, at, value, nan in rows]


@quiet
@given(given=points, size=st.integers(1, 7))
def test_a_history_is_every_different_point_once_in_order(
    any_store: Store, given: list[tuple[int, int, float]], size: int
) -> None:
    run, expected = logged(any_store, given)
    runs.log(any_store, run, points=[("m", value, step, at) for step, at, value in given])  # again: no effect
    assert histories.points(any_store, run, "m").items == shown(expected)
    with any_store.database.read() as tx:
        assert list(histories.every_point(tx, run_records.require(tx, run), "m")) == shown(expected)
    found: Shown = []
    page = histories.points(any_store, run, "m", limit=size)
    while True:
        found += page.items
        if page.token is None:
            break
        page = histories.points(any_store, run, "m", limit=size, token=page.token)
    assert found == shown(expected)
    newest = max(expected, key=lambda row: (row[0], row[1], -row[3], row[2]), default=None)
    latest = runs.get_run(any_store, run).metrics.get("m")
    if newest is None:
        assert latest is None
    else:
        assert repr(latest) == repr(math.nan if newest[3] else newest[2])


@quiet
@given(given=points, most=st.integers(1, 12))
def test_points_spread_over_a_history_are_those_that_ntile_begins_with_and_its_end(
    any_store: Store, given: list[tuple[int, int, float]], most: int
) -> None:
    run, rows = logged(any_store, given)
    found = sampling.intervals(any_store, [run], "m", max_results=most)[run]
    if len(rows) <= most:
        assert found == shown(rows)
        return
    size, longer = divmod(len(rows), most)
    starts = [bucket * size + min(bucket, longer) for bucket in range(most)]
    assert found == shown([rows[place] for place in [*starts[:-1], len(rows) - 1]])
    within = sampling.intervals(any_store, [run], "m", max_results=100, start_step=0, end_step=5)[run]
    assert within == shown([row for row in rows if 0 <= row[0] <= 5])


@quiet
@given(given=points, buckets=st.integers(1, 12))
def test_buckets_say_what_their_points_are(any_store: Store, given: list[tuple[int, int, float]], buckets: int) -> None:
    run, rows = logged(any_store, given)
    found = sampling.sampled(any_store, run, "m", buckets=buckets)
    assert len(found) == min(buckets, len(rows))
    assert sum(bucket.count for bucket in found) == len(rows)
    place = 0
    for bucket in found:
        part = rows[place : place + bucket.count]
        place += bucket.count
        numbers = [value for _, _, value, nan in part if not nan]
        assert (bucket.step_from, bucket.step_to) == (part[0][0], part[-1][0])
        assert bucket.nans == len(part) - len(numbers)
        ends = [math.nan if row[3] else row[2] for row in (part[0], part[-1])]
        assert repr([bucket.first, bucket.last]) == repr(ends)
        assert repr(bucket.minimum) == repr(float(min(numbers, default=math.nan)))
        assert repr(bucket.maximum) == repr(float(max(numbers, default=math.nan)))
        if numbers and all(map(math.isfinite, numbers)):
            assert bucket.mean == pytest.approx(sum(numbers) / len(numbers))
        elif math.inf in numbers and -math.inf in numbers:
            assert math.isnan(bucket.mean)
    sizes = {bucket.count for bucket in found}
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_histories_of_several_runs_are_cut_alike(store: Store) -> None:
    first, second = (runs.start(store, "p", experiment="e", capture=False).id for _ in range(2))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for step in range(3):
        runs.log_metrics(store, first, {"m": step}, step, at)
    found = histories.histories(store, [first, second], "m", limit=2)
    assert [[metric.step for metric in found[run]] for run in (first, second)] == [[0, 1], []]
    with pytest.raises(NotFound):
        histories.histories(store, [first, "run_none"], "m", limit=2)


def test_what_cannot_be_asked_is_refused(store: Store) -> None:
    run = runs.start(store, "p", experiment="e", capture=False).id
    with pytest.raises(BadInput, match="two ends"):
        sampling.intervals(store, [run], "m", max_results=5, start_step=1)
    for most in (0, 25_001):
        with pytest.raises(BadInput):
            sampling.sampled(store, run, "m", buckets=most)
    with pytest.raises(BadInput, match="token"):
        histories.points(store, run, "m", limit=1, token="nonsense")
    assert histories.points(store, run, "\0").items == []
    with store.database.read() as tx:
        assert list(histories.every_point(tx, run_records.require(tx, run), "\0")) == []


def test_the_smallest_numbers_have_a_mean_on_every_database(any_store: Store) -> None:
    run, _ = logged(any_store, [(step, step, 5e-324) for step in range(10)])
    (bucket,) = sampling.sampled(any_store, run, "m", buckets=1)
    assert (bucket.count, bucket.minimum, bucket.mean) == (10, 5e-324, 0.0)
