"""Experiments: their names, places, tags, and what happens to their runs when they are moved, deleted and restored."""

from __future__ import annotations

import pytest

from instar.core import journal, notes
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.train import experiment_search, experiments, logged_models, runs


def test_a_run_makes_its_experiment_and_the_next_one_finds_it(store: Store) -> None:
    first = runs.start(store, "p", experiment="team/delay", capture=False)
    second = runs.start(store, "p", experiment="team/delay", capture=False)
    assert first.experiment_id == second.experiment_id
    found = experiments.by_name(store, "p", "team/delay")
    assert found is not None
    assert found.id == first.experiment_id == experiments.ensure(store, "p", "team/delay").id
    assert experiments.by_name(store, "other", "team/delay") is None


def test_an_active_name_is_taken_once_and_a_deleted_one_is_free(store: Store) -> None:
    first = experiments.create(store, "p", "a", {"owner": "ada"})
    assert first.tags == {"owner": "ada"}
    with pytest.raises(Conflict, match="has that name"):
        experiments.create(store, "p", "a")
    experiments.create(store, "q", "a")
    experiments.delete(store, first.id)
    second = experiments.create(store, "p", "a")
    found = experiments.by_name(store, "p", "a")
    assert found is not None
    assert found.id == second.id
    with pytest.raises(Conflict, match="has that name"):
        experiments.restore(store, first.id)
    experiments.delete(store, second.id)
    last = experiments.by_name(store, "p", "a")
    assert last is not None
    assert (last.id, last.state) == (second.id, "deleted")


def test_deleting_takes_the_runs_along_and_restoring_brings_those_back(store: Store) -> None:
    kept, gone = (runs.start(store, "p", experiment="a", capture=False) for _ in range(2))
    runs.delete(store, gone.id)
    experiments.delete(store, kept.experiment_id)
    assert experiments.delete(store, kept.experiment_id).state == "deleted"  # again: no effect
    assert runs.get_run(store, kept.id).lifecycle == "deleted"
    with pytest.raises(Conflict, match="experiment is deleted"):
        runs.restore(store, kept.id)
    with pytest.raises(Conflict, match="deleted"):
        runs.start(store, "p", experiment=kept.experiment_id, capture=False)
    with pytest.raises(Conflict, match="deleted"):
        runs.log_metrics(store, kept.id, {"m": 1})
    experiments.restore(store, kept.experiment_id)
    assert [runs.get_run(store, run.id).lifecycle for run in (kept, gone)] == ["active", "deleted"]
    runs.restore(store, gone.id)
    assert runs.get_run(store, gone.id).lifecycle == "active"


def test_moving_and_renaming_keep_ids_and_take_runs_along(store: Store) -> None:
    run = runs.start(store, "p", experiment="a", capture=False)
    model = logged_models.create(store, "p", experiment=run.experiment_id, name="m", run=run.id)
    for subject in (run.id, run.experiment_id, model.id, "table birds"):
        notes.add(store, "p", subject, f"of {subject}")
    experiments.create(store, "q", "b")
    for nowhere in ("", "a/b", "x" * 201, "a\0"):
        with pytest.raises(BadInput):
            experiments.move(store, run.experiment_id, nowhere, "a")
    with pytest.raises(Conflict):
        experiments.move(store, run.experiment_id, "q", "b")
    moved = experiments.move(store, run.experiment_id, "q", "team/a")
    assert (moved.id, moved.project, moved.name) == (run.experiment_id, "q", "team/a")
    found = runs.get_run(store, run.id)
    assert (found.project, found.experiment) == ("q", "team/a")
    assert runs.list_runs(store, "p") == []
    assert logged_models.get(store, model.id, project="q").run == run.id
    assert {note.subject for note in notes.latest(store, "q")} == {run.id, run.experiment_id, model.id}
    assert [note.subject for note in notes.latest(store, "p")] == ["table birds"]
    experiments.rename(store, moved.id, "team/c")
    assert [one.id for one in runs.list_runs(store, "q", experiment="team/c")] == [run.id]
    with store.database.read() as tx:
        kinds = [[entry.kind for entry in journal.entries(tx, project)] for project in "pq"]
        assert journal.verify(tx, "q").consistent
    assert kinds == [["experiment moved"], ["experiment created", "experiment moved", "experiment renamed"]]


def test_tags_are_added_changed_and_taken_away(store: Store) -> None:
    found = experiments.create(store, "p", "a")
    experiments.set_tag(store, found.id, "k", "1")
    experiments.set_tag(store, found.id, "k", "2")
    assert experiments.get(store, found.id).tags == {"k": "2"}
    experiments.delete_tag(store, found.id, "k")
    with pytest.raises(NotFound, match="no such tag"):
        experiments.delete_tag(store, found.id, "k")
    experiments.delete(store, found.id)
    with pytest.raises(Conflict, match="deleted"):
        experiments.set_tag(store, found.id, "k", "3")


def test_a_name_may_begin_like_an_id_but_not_be_one(store: Store) -> None:
    run = runs.start(store, "p", experiment="exp_baseline", capture=False)
    assert (run.experiment, run.experiment_id[:4]) == ("exp_baseline", "exp_")
    assert runs.start(store, "p", experiment=run.experiment_id, capture=False).experiment == "exp_baseline"
    with pytest.raises(BadInput):
        experiments.create(store, "p", run.experiment_id)


@pytest.mark.parametrize("name", ["", "  ", "x" * 501, "a\0b", "\ud800"])
def test_names_that_cannot_be_kept_are_refused(store: Store, name: str) -> None:
    with pytest.raises(BadInput):
        experiments.create(store, "p", name)
    with pytest.raises(BadInput):
        runs.start(store, "p", experiment=name, capture=False)


def test_unknown_ones_are_not_found(store: Store) -> None:
    for act in (experiments.get, experiments.delete, experiments.restore):
        with pytest.raises(NotFound):
            act(store, "exp_none")
    with pytest.raises(NotFound):
        runs.start(store, "p", experiment=f"exp_{'0' * 26}", capture=False)


def test_searching_by_name_tag_and_time_in_pages(store: Store) -> None:
    made = [experiments.create(store, "p", f"e{number}", {"half": str(number % 2)}) for number in range(5)]
    experiments.create(store, "q", "e9")
    experiments.delete(store, made[4].id)

    def names(**asked: object) -> list[str]:
        return [one.name for one in experiment_search.search(store, ["p"], **asked).items]  # type: ignore[arg-type]

    assert names() == ["e3", "e2", "e1", "e0"]
    assert names(view="deleted") == ["e4"]
    assert names(view="all", filter="tags.half = '0'", order_by=["name"]) == ["e0", "e2", "e4"]
    assert names(filter="name LIKE 'e%' AND NOT (name IN ('e1', 'e2'))") == ["e3", "e0"]
    assert names(filter="creation_time > '2100-01-01'") == []
    first = experiment_search.search(store, ["p"], limit=3)
    second = experiment_search.search(store, ["p"], limit=3, token=first.token)
    assert [one.name for one in (*first.items, *second.items)] == ["e3", "e2", "e1", "e0"]
    assert second.token is None
    assert first.items[0].tags == {"half": "1"}
    with pytest.raises(BadInput, match="metrics"):
        experiment_search.search(store, ["p"], filter="metrics.a > 1")
    with pytest.raises(BadInput, match="view"):
        experiment_search.search(store, ["p"], view="some")
