"""The intake: each frame of a spool changes the record once; what cannot be kept is refused alone and counted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.app import open_store
from instar.core import ids, journal, lineage, notes
from instar.core.errors import Conflict, NotFound
from instar.core.identity import Actor
from instar.core.store import Store
from instar.data import tables
from instar.testing import memory_store
from instar.train import artifacts, datasets, intake, purging, runs
from instar.train.delivery import Batch
from instar.train.runs import get_run
from instar.train.spool import MAIN
from instar.train.spool_records import (
    Artifact,
    End,
    Input,
    Lost,
    Model,
    Parameters,
    Points,
    Record,
    Remark,
    Start,
    Tags,
    encode,
)

NOW = 1_767_268_800_000_000


def start(**about: object) -> Start:
    return Start("birds", "field/songs", NOW, **about)  # type: ignore[arg-type]


def batch(run: str, records: Sequence[Record], first: int = 0, writer: str = MAIN) -> Batch:
    return Batch("birds", run, writer, first, [encode(record) for record in records])


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made = memory_store(tmp_path)
    else:
        made = replace(open_store(tmp_path, request.getfixturevalue("postgres_database")), actor=Actor("ada"))
    yield made
    made.database.close()


def test_a_whole_run_arrives_as_its_process_told_it(kept: Store) -> None:
    run, blob = ids.new_id("run"), kept.blobs.put(b"plot")
    records: list[Record] = [
        start(name="first", parameters={"depth": 6, "rate": 0.1, "names": ["a"]}, tags={"who": "me"}, parent="run_1"),
        Points(NOW + 1, 0, {"loss": 0.5, "accuracy": math.nan}),
        Points(NOW + 2, 0, {"loss": 0.5}),
        Parameters({"late": True}),
        Tags({"who": "you"}),
        Artifact("plots/roc.png", blob, 4),
        Input("frame", source_type="memory", digest="abc", context="training"),
        Remark("note_1", "well done", NOW + 3),
        End("finished", NOW + 60_000_000),
    ]
    assert intake.apply(kept, batch(run, records)) == 9
    found = get_run(kept, run)
    assert (found.project, found.experiment, found.name, found.state) == ("birds", "field/songs", "first", "finished")
    assert found.parameters == {"depth": 6, "rate": 0.1, "names": ["a"], "late": True}
    assert found.tags == {"who": "you", intake.PARENT: "run_1"}
    assert found.seconds == 60
    assert found.artifacts == {"plots/roc.png": blob}
    assert found.metrics["loss"] == 0.5
    assert math.isnan(found.metrics["accuracy"])
    # The same value at the same step, at another moment: both were logged, and both are there.
    assert [point.value for point in runs.metric_history(kept, run, "loss")] == [0.5, 0.5]
    (used,) = datasets.inputs_of(kept, run)
    assert (used.dataset.name, used.tags) == ("frame", {datasets.CONTEXT: "training"})
    assert [(note.text, note.author) for note in notes.of(kept, "birds", run)] == [("well done", "ada")]
    with kept.database.read() as tx:
        (ended,) = journal.entries(tx, "birds", kind="run ended", subject=run)
        assert ended.body["state"] == "finished"
        assert journal.verify(tx, "birds").consistent


@settings(max_examples=25, deadline=None)
@given(
    records=st.lists(
        st.one_of(
            st.builds(
                Points,
                st.integers(NOW, NOW + 3),
                st.integers(0, 2),
                st.dictionaries(st.sampled_from("ab"), st.sampled_from([0.0, 1.0, math.nan]), max_size=2),
            ),
            st.builds(Tags, st.dictionaries(st.sampled_from("xy"), st.sampled_from(["1", "2"]), max_size=2)),
            st.builds(Lost, st.integers(1, 3), st.just("full")),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=12),
)
def test_batches_with_any_borders_in_any_order_apply_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], cuts: list[tuple[int, int]]
) -> None:
    store = memory_store(tmp_path_factory.mktemp("store"))
    try:
        whole: list[Record] = [start(), *records]
        once, often = ids.new_id("run"), ids.new_id("run")
        assert intake.apply(store, batch(once, whole)) == len(whole)
        applied = 0
        for first, length in cuts:
            now = intake.apply(store, batch(often, whole[first : first + length], first))
            assert now == (applied if first > applied else max(applied, min(first + length, len(whole))))
            applied = now
        intake.apply(store, batch(often, whole[applied:], applied))
        assert intake.apply(store, batch(often, whole)) == len(whole)
        left, right = get_run(store, once), get_run(store, often)
        assert repr(left.metrics) == repr(right.metrics)  # NaN is no equal of itself
        assert left.tags == right.tags
        for name in "ab":
            histories = [runs.metric_history(store, run, name) for run in (once, often)]
            assert repr(histories[0]) == repr(histories[1])
    finally:
        store.database.close()


def test_writers_of_one_run_are_counted_apart(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start()]))
    for number in range(3):
        intake.apply(store, batch(run, [Points(NOW, number, {"a": 1.0})], writer=f"part_{number}"))
        intake.apply(store, batch(run, [Points(NOW, number, {"a": 1.0})], writer=f"part_{number}"))
    assert len(runs.metric_history(store, run, "a")) == 3


def test_a_gap_is_asked_for_and_nothing_of_an_unknown_run_is_made(store: Store) -> None:
    run = ids.new_id("run")
    assert intake.apply(store, batch(run, [], 0)) == 0
    assert intake.apply(store, batch(run, [Points(NOW, 0, {"a": 1.0})], 5)) == 0
    assert runs.list_runs(store, "birds") == []


def test_what_cannot_be_kept_is_refused_alone_and_counted(store: Store) -> None:
    run = ids.new_id("run")
    records: list[Record] = [
        start(parameters={"depth": 6}),
        Parameters({"depth": 7, "width": 3}),
        Points(NOW, 0, {"x" * 300: 1.0}),
        Artifact("../up", store.blobs.put(b"x"), 1),
        Artifact("gone.txt", "b3:" + "0" * 64, 1),
        Input("nothing@3", source_type="instar"),
        Points(NOW, 1, {"a": 2.0}),
        End("sleeping", NOW),
        End("failed", NOW + 5, "ValueError: \0 no rows"),
    ]
    assert intake.apply(store, batch(run, records)) == len(records)
    broken = Batch("p", run, MAIN, len(records), [b"\x00", b"\x91\xa6future"])
    assert intake.apply(store, broken) == len(records) + 2
    found = get_run(store, run)
    assert found.parameters == {"depth": 6, "width": 3}
    assert found.metrics == {"a": 2.0}
    assert (found.state, found.error) == ("failed", "ValueError: \\0 no rows")
    assert found.artifacts == {}
    assert found.tags[intake.REFUSED].startswith("8: a record cannot be read")


def test_a_beginning_that_cannot_be_kept_whole_is_kept_without_its_details(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start(parameters={"": 1}, name="n"), Points(NOW, 0, {"a": 1.0})]))
    found = get_run(store, run)
    assert (found.parameters, found.metrics) == ({}, {"a": 1.0})
    assert found.tags[intake.REFUSED].startswith("1: ")


def test_losses_are_on_the_record_and_add_up(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start(), Lost(7, "no space"), Lost(5, "no space left")]))
    assert get_run(store, run).tags[intake.LOST] == "12: no space left"


def test_a_table_version_as_input_is_in_the_lineage(store: Store) -> None:
    frame = pl.DataFrame({"id": [1, 2], "song": ["a", "b"]})
    version = tables.write_version(store, "birds", "songs", "gold", frame, key=["id"])
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start(), Input("songs@1", source_type="instar", context="training")]))
    found = get_run(store, run)
    assert found.inputs == [version.id]
    assert datasets.inputs_of(store, run)[0].dataset.source == version.id
    with store.database.read() as tx:
        assert [(edge.source, edge.relation) for edge in lineage.up(tx, run)] == [(version.id, "was read by")]


def test_a_run_whose_process_died_is_abandoned_and_its_own_end_still_counts(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start()]))
    last = replace(batch(run, [], 1), gone=True, last=True)
    intake.apply(store, last)
    assert (get_run(store, run).state, get_run(store, run).error) == ("abandoned", intake.DIED)
    intake.apply(store, replace(batch(run, [Points(NOW, 0, {"a": 1.0})], 1), gone=True))
    assert get_run(store, run).state == "abandoned"
    intake.apply(store, replace(batch(run, [End("finished", NOW + 1)], 2), gone=True))
    intake.apply(store, replace(last, first=3))
    assert (get_run(store, run).state, get_run(store, run).error) == ("finished", None)


def test_a_run_that_was_only_silent_goes_on(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start()]))
    assert intake.abandon(store, run, "nothing was heard of it")
    assert not intake.abandon(store, run, "again")
    intake.apply(store, batch(run, [Points(NOW, 0, {"a": 1.0})], 1))
    assert (get_run(store, run).state, get_run(store, run).error) == ("running", None)


def test_what_is_journalled_survives_a_power_failure_and_what_is_only_logged_waits_for_nobody(kept: Store) -> None:
    ways: list[tuple[bool, bool, int]] = []

    class Watched:
        """Notes of each write that came through: durable, shared, and entries of the journal."""

        def write(self, work: Any, *, durable: bool = False, shared: bool = False) -> Any:
            done = kept.database.write(work, durable=durable, shared=shared)
            with kept.database.read() as tx:
                ways.append((durable, shared, len(journal.entries(tx, "birds"))))
            return done

        def __getattr__(self, name: str) -> Any:
            return getattr(kept.database, name)

    run = ids.new_id("run")
    intake.apply(kept, batch(run, [start()]))
    assert intake.abandon(kept, run, "nothing was heard of it")
    watched = replace(kept, database=Watched())
    with kept.database.read() as tx:
        before = len(journal.entries(tx, "birds"))
    assert intake.apply(watched, batch(run, [Points(NOW, 0, {"a": 1.0})], 1)) == 2
    assert ways[-1] == (True, False, before + 1)  # it goes on, which is an entry
    assert intake.apply(watched, batch(run, [Points(NOW, 1, {"a": 2.0})], 2)) == 3
    assert ways[-1] == (False, True, before + 1)
    assert [point.value for point in runs.metric_history(kept, run, "a")] == [1.0, 2.0]


def test_a_time_that_no_date_has_is_refused_alone(store: Store) -> None:
    run = ids.new_id("run")
    late: list[Record] = [Points(2**62, 0, {"a": 1.0}), Remark("note_1", "late", 2**62), End("failed", 2**62)]
    assert intake.apply(store, batch(run, [start(), *late, Points(NOW, 0, {"a": 2.0}), End("finished", NOW)])) == 6
    found = get_run(store, run)
    assert (found.state, found.metrics) == ("finished", {"a": 2.0})
    assert found.tags["instar.refused"].startswith("3: ")


def test_a_run_adds_no_files_to_the_model_of_another(store: Store) -> None:
    (one, other), blob = (ids.new_id("run"), ids.new_id("run")), store.blobs.put(b"theirs")
    for run in (one, other):
        intake.apply(store, batch(run, [start()]))
    intake.apply(store, batch(one, [Model("m-1", "m", [("a.txt", blob, 6)])], 1))
    mine = store.blobs.put(b"mine")
    intake.apply(store, batch(other, [Model("m-1", "m", [("a.txt", mine, 4)]), Model("../x", "m", [])], 1))
    assert artifacts.find(store, "m-1", "a.txt").blob == blob
    assert get_run(store, other).tags["instar.refused"].startswith("2: ")


def test_a_run_that_somebody_else_ended_stays_so(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start()]))
    runs.fail(store, run, "stopped from elsewhere")
    intake.apply(store, batch(run, [End("finished", NOW)], 1))
    assert get_run(store, run).error == "stopped from elsewhere"


def test_a_deleted_run_takes_nothing_and_its_records_stay_where_they_are(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start()]))
    runs.delete(store, run)
    late = batch(run, [Points(NOW, 0, {"a": 1.0})], 1)
    with pytest.raises(Conflict, match="deleted"):
        intake.apply(store, late)
    runs.restore(store, run)
    assert intake.apply(store, late) == 2
    assert get_run(store, run).metrics == {"a": 1.0}


def test_what_a_process_left_of_a_run_does_not_bring_it_back_when_it_was_deleted_for_good(store: Store) -> None:
    run = ids.new_id("run")
    begun: list[Record] = [start(), Points(NOW, 0, {"a": 1.0})]
    intake.apply(store, batch(run, begun))
    runs.delete(store, run)
    later = store.clock.wall() + timedelta(days=1)
    (deleted,) = store.database.write(lambda tx: purging.deleted_runs(tx, later))
    assert store.database.write(lambda tx: purging.purge(tx, deleted))
    for more in ([], [*begun, Points(NOW, 1, {"a": 2.0})]):
        with pytest.raises(NotFound, match="deleted for good"):
            intake.apply(store, batch(run, more))
    assert runs.list_runs(store, "birds") == []


def test_who_is_bound_to_a_project_writes_to_no_other_ones_run(store: Store) -> None:
    run = ids.new_id("run")
    intake.apply(store, batch(run, [start()]), bound=True)
    elsewhere = replace(batch(run, [Tags({"mine": "yes"})], first=1), project="fish")
    with pytest.raises(NotFound, match="the project has no such run"):
        intake.apply(store, elsewhere, bound=True)
    begun = replace(
        batch(ids.new_id("run"), [start()]), project="fish"
    )  # the frame names another project than the address
    with pytest.raises(NotFound, match="the project has no such run"):
        intake.apply(store, begun, bound=True)
    assert "mine" not in get_run(store, run).tags
    assert runs.list_runs(store, "fish") == []
    assert intake.apply(store, batch(run, [Tags({"mine": "yes"})], first=1), bound=True) == 2
