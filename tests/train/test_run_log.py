"""Logging to runs: all or nothing, the same again without effect, and what cannot be kept refused."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instar.app import open_database, open_store
from instar.core import journal
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.train import histories, runs
from instar.train.run_records import Metric, Run

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.getfixturevalue("postgres_database") if request.param == "postgresql" else None
    store = open_store(tmp_path / "store", url or f"sqlite:///{tmp_path / 'store' / 'instar.db'}")
    yield store
    store.database.close()


def started(store: Store) -> Run:
    return runs.start(store, "p", experiment="e", capture=False)


def test_values_come_back_as_they_were_given(any_store: Store) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    import numpy as np

    given = {
        "int": 3, "float": 0.1, "text": "3", "true": True, "none": None, "nan": math.nan, "inf": -math.inf, "list": [1, "a"],
        "dict": {"b": [None]}, "long": "é" * 5000, "big": 2**80, "odd": Odd(), "numpy": np.float32(0.5), "empty": "",
        "emoji/🚀 key": "x",
    }  # fmt: skip
    run = runs.start(any_store, "p", experiment="e", parameters=given, tags={"t": "y" * 5000}, capture=False)
    found = runs.get_run(any_store, run.id)
    assert math.isnan(found.parameters["nan"])
    assert {key: value for key, value in found.parameters.items() if key != "nan"} == {
        key: value for key, value in given.items() if key not in ("nan", "odd", "numpy")
    } | {"odd": "odd", "numpy": 0.5}
    assert type(found.parameters["true"]) is bool
    assert type(found.parameters["int"]) is int
    assert found.tags == {"t": "y" * 5000}


def test_a_parameter_never_changes_and_nothing_of_a_refused_batch_is_kept(any_store: Store) -> None:
    run = started(any_store)
    runs.log(any_store, run.id, parameters={"lr": 0.1, "long": "x" * 300})
    runs.log(any_store, run.id, parameters={"lr": "0.1", "long": "x" * 300})  # the same text is the same value
    with pytest.raises(Conflict) as caught:
        runs.log(
            any_store, run.id, metrics=[Metric("m", 1.0, 0, AT)], parameters={"new": 1, "lr": 0.2}, tags={"t": "1"}
        )
    assert (caught.value.found, caught.value.asked) == ("0.1", "0.2")
    assert "lr" in caught.value.subject
    found = runs.get_run(any_store, run.id)
    assert found.parameters == {"lr": 0.1, "long": "x" * 300}
    assert (found.metrics, found.tags) == ({}, {})
    with pytest.raises(Conflict):
        runs.log(any_store, run.id, parameters={"long": "x" * 299 + "y"})


def test_logging_again_changes_nothing_and_tags_are_replaced(any_store: Store) -> None:
    run = started(any_store)
    batch = [Metric("m", value, step, AT) for step, value in enumerate([1.0, math.nan, math.inf, -math.inf])]
    for _ in range(2):
        runs.log(any_store, run.id, metrics=[*batch, batch[0]], tags={"t": "1"})
    assert [repr(metric) for metric in histories.metric_history(any_store, run.id, "m")] == [repr(one) for one in batch]
    runs.log(any_store, run.id, tags={"t": "2", "u": "3"})
    runs.delete_tag(any_store, run.id, "u")
    assert runs.get_run(any_store, run.id).tags == {"t": "2"}
    with pytest.raises(NotFound, match="no such tag"):
        runs.delete_tag(any_store, run.id, "u")


def test_the_latest_value_is_by_step_then_moment_whatever_the_order_of_arrival(any_store: Store) -> None:
    run = started(any_store)
    later, earlier = AT + timedelta(hours=1), AT - timedelta(days=400)  # clocks that disagree
    for metric in (
        Metric("m", 5.0, 10, earlier), Metric("m", 6.0, 9, later), Metric("m", 4.0, 10, AT), Metric("m", 3.0, 10, AT),
        Metric("m", math.nan, 10, AT), Metric("m", 7.0, -1, later),
    ):  # fmt: skip
        runs.log(any_store, run.id, metrics=[metric])
    assert runs.get_run(any_store, run.id).metrics == {"m": 4.0}
    assert len(histories.metric_history(any_store, run.id, "m")) == 6


def test_metrics_may_follow_the_end_and_deleted_runs_take_nothing(any_store: Store) -> None:
    run = started(any_store)
    runs.finish(any_store, run.id)
    runs.log_metrics(any_store, run.id, {"late": 1.0})
    assert runs.get_run(any_store, run.id).metrics == {"late": 1.0}
    runs.delete(any_store, run.id)
    for act in (
        lambda: runs.log_metrics(any_store, run.id, {"m": 1.0}),
        lambda: runs.log(any_store, run.id),
        lambda: runs.set_tags(any_store, run.id, {"t": "1"}),
        lambda: runs.update(any_store, run.id, name="x"),
    ):
        with pytest.raises(Conflict, match="deleted"):
            act()
    with pytest.raises(NotFound):
        runs.log_metrics(any_store, "run_none", {"m": 1.0})
    with pytest.raises(NotFound):
        runs.log_metrics(any_store, "run\0", {"m": 1.0})


@pytest.mark.parametrize(
    "batch",
    [
        {"points": [("", 1.0, 0, 0)]},
        {"points": [("x" * 251, 1.0, 0, 0)]},
        {"points": [("a\0b", 1.0, 0, 0)]},
        {"points": [("\ud800", 1.0, 0, 0)]},
        {"points": [("m", "much", 0, 0)]},
        {"points": [("m", 10**400, 0, 0)]},
        {"points": [("m", 1.0, 2**63, 0)]},
        {"points": [("m", 1.0, 0, 2**62)]},
        {"points": [("m", 1.0, 0, -(2**62))]},
        {"parameters": {"": 1}},
        {"parameters": {"k": "a\0"}},
        {"parameters": {"k": "x" * 500_001}},
        {"tags": {"k" * 251: "x"}},
        {"tags": {"k": "10 MB" * 2_000_000}},
        {"tags": {"k": 5}},
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(store: Store, batch: dict[str, object]) -> None:
    run = started(store)
    with pytest.raises(BadInput):
        runs.log(store, run.id, **batch)  # type: ignore[arg-type]
    assert runs.get_run(store, run.id).metrics == {}


def test_keys_with_slashes_emoji_and_quotes_are_kept(any_store: Store) -> None:
    run = started(any_store)
    keys = ["val/loss", "🚀", 'it\'s "so" `odd`', "a b.c-d", "x" * 250, "%s ? :name"]
    runs.log(any_store, run.id, points=[(key, 1.0, 0, 0) for key in keys], parameters=dict.fromkeys(keys, "v"))
    found = runs.get_run(any_store, run.id)
    assert set(found.metrics) == set(found.parameters) == set(keys)


def test_two_clients_may_end_one_run_and_the_record_has_both(any_store: Store) -> None:
    run = started(any_store)
    assert runs.update(any_store, run.id, state="finished", ended=AT).ended == AT
    assert runs.update(any_store, run.id, state="failed").state == "failed"
    assert runs.update(any_store, run.id, state="running").ended is None
    with any_store.database.read() as tx:
        told = [(entry.kind, entry.body["state"]) for entry in journal.entries(tx, "p")]
    assert told == [("run ended", "finished"), ("run ended", "failed"), ("run reopened", "running")]
    with pytest.raises(BadInput, match="state"):
        runs.update(any_store, run.id, state="tired")


def test_starting_under_an_id_again_finds_the_run(store: Store) -> None:
    first = runs.start(store, "p", experiment="e", id="run_MINE1", parameters={"a": 1}, capture=False)
    again = runs.start(store, "p", experiment="e", id="run_MINE1", parameters={"a": 2}, capture=False)
    assert (again.key, again.parameters) == (first.key, {"a": 1})
    with pytest.raises(BadInput):
        runs.start(store, "p", experiment="e", id="run_../x", capture=False)


def test_threads_that_log_at_once_lose_nothing(any_store: Store) -> None:
    shared = started(any_store)

    def write(number: int) -> None:
        own = started(any_store)
        for step in range(15):
            runs.log(
                any_store, shared.id, points=[(f"m{number}", float(step), step, number), ("all", 0.0, step, number)]
            )
            runs.log_metrics(any_store, own.id, {"m": step}, step)
        runs.finish(any_store, own.id)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(histories.metric_history(any_store, shared.id, "all")) == 120
    assert runs.get_run(any_store, shared.id).metrics == {"all": 0.0} | {f"m{number}": 14.0 for number in range(8)}
    with any_store.database.read() as tx:
        assert journal.verify(tx, "p").entries == 8


KILLED = """
import sys
from pathlib import Path
from instar.app import open_store
from instar.train import run_log, runs

store = open_store(Path(sys.argv[1]), sys.argv[2])
inner = run_log.put_points
def put_points(*given):
    inner(*given)
    print("written", flush=True)
    sys.stdin.read()          # the transaction is open: all is written, nothing committed
if sys.argv[4] == "in the middle":
    run_log.put_points = put_points
run_log.log(store, sys.argv[3], points=[("m", 1.0, step, 0) for step in range(1000)], parameters={"a": 1}, tags={"t": "1"})
print("committed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("moment", ["in the middle", "after"])
def test_a_process_killed_while_it_logs_leaves_all_or_nothing(any_store: Store, moment: str, tmp_path: Path) -> None:
    run = started(any_store)
    database = any_store.database
    url = f"sqlite:///{tmp_path / 'store' / 'instar.db'}"
    if database.dialect == "postgresql":
        url = database._engine.url.render_as_string(hide_password=False)  # type: ignore[attr-defined]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), url, run.id, moment]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None
    assert process.stdout.readline().strip() in (b"written", b"committed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()
    again = open_database(url)
    found = runs.get_run(any_store, run.id)
    count = 0 if moment == "in the middle" else 1000
    assert len(histories.metric_history(any_store, run.id, "m")) == count
    assert (found.parameters, found.tags) == (({}, {}) if count == 0 else ({"a": 1}, {"t": "1"}))
    runs.log(
        any_store, run.id, points=[("m", 1.0, step, 0) for step in range(1000)], parameters={"a": 1}, tags={"t": "1"}
    )
    assert len(histories.metric_history(any_store, run.id, "m")) == 1000
    again.close()
