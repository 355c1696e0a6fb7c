"""Data sets as inputs of runs: one by name and digest within a project, with what each use of it was for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.app import open_store
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.testing import memory_store
from instar.train import datasets, runs
from instar.train.datasets import CONTEXT, Dataset, Summary, dataset

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made = memory_store(tmp_path)
    else:
        made = open_store(tmp_path, request.getfixturevalue("postgres_database"))
    yield made
    made.database.close()


def a_run(store: Store, project: str = "birds", experiment: str = "songs") -> str:
    return runs.start(store, project, experiment=experiment, capture=False).id


def songs(digest: str = "d1", **more: str) -> Dataset:
    return dataset("birds", "songs", digest, "http", "http://example.org/songs", **more)


@given(st.tuples(TEXT, TEXT, TEXT), st.tuples(TEXT, TEXT, TEXT))
def test_an_id_is_made_of_project_name_and_digest_alone(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    first, second = dataset(*one, "http", "here"), dataset(*other, "s3", "there", schema="{}")
    assert (first.id == second.id) == (one == other)
    assert first.id.startswith("data_")
    assert len(first.id) == len("data_") + 26


@pytest.mark.parametrize(
    ("name", "digest"), [("", "d"), ("n", ""), ("n" * 501, "d"), ("n", "d" * 251), ("n\0", "d"), ("n", "d\0")]
)
def test_a_data_set_that_cannot_be_named_is_refused(name: str, digest: str) -> None:
    with pytest.raises(BadInput):
        dataset("birds", name, digest, "http", "here")


@MANY
@given(
    uses=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("12"), st.dictionaries(st.sampled_from("xyz"), TEXT))
    )
)
def test_each_data_set_is_an_input_once_with_the_tags_of_all_its_uses(
    store: Store, uses: list[tuple[str, str, dict[str, str]]]
) -> None:
    run, wanted = a_run(store), dict[tuple[str, str], dict[str, str]]()
    for name, digest, tags in uses:
        datasets.log_inputs(store, run, [(dataset("birds", name, digest, "http", "here"), tags)])
        wanted.setdefault((name, digest), {}).update(tags)
    found = datasets.inputs_of(store, run)
    assert [(one.dataset.name, one.dataset.digest) for one in found] == sorted(wanted)
    assert {(one.dataset.name, one.dataset.digest): one.tags for one in found} == wanted


def test_the_first_description_stays_and_another_project_has_its_own(kept: Store) -> None:
    one, other, foreign = a_run(kept), a_run(kept), a_run(kept, "trains")
    datasets.log_inputs(kept, one, [(songs(schema="{}"), {CONTEXT: "training"})])
    datasets.log_inputs(kept, other, [(songs(schema="[]"), {}), (songs("d2"), {CONTEXT: "eval"})])
    datasets.log_inputs(kept, foreign, [(dataset("trains", "songs", "d1", "http", "elsewhere"), {})])
    assert [found.dataset.schema for found in datasets.inputs_of(kept, other)] == ["{}", None]
    assert [found.dataset.source for found in datasets.inputs_of(kept, foreign)] == ["elsewhere"]
    with kept.database.read() as tx:
        assert datasets.inputs_by_run(tx, []) == {}


def test_a_summary_has_each_name_digest_and_context_once_and_only_of_the_experiments_asked_for(kept: Store) -> None:
    first, second, other = a_run(kept), a_run(kept), a_run(kept, experiment="calls")
    for run in (first, second):
        datasets.log_inputs(kept, run, [(songs(), {CONTEXT: "training"})])
    datasets.log_inputs(kept, second, [(songs("d2"), {})])
    datasets.log_inputs(kept, other, [(songs(), {CONTEXT: "eval"})])
    group = runs.get_run(kept, first).experiment_id
    assert datasets.search_datasets(kept, [group]) == [
        Summary(group, "songs", "d1", "training"),
        Summary(group, "songs", "d2", None),
    ]
    assert datasets.search_datasets(kept, []) == []


def test_inputs_that_cannot_be_kept_change_nothing(kept: Store) -> None:
    run = a_run(kept)
    for tags in ({"": "x"}, {"k\0": "x"}, {"k": "v\0"}):
        with pytest.raises(BadInput):
            datasets.log_inputs(kept, run, [(songs(), {}), (songs("d2"), tags)])
    with pytest.raises(NotFound):
        datasets.log_inputs(kept, "run_NONE", [(songs(), {})])
    datasets.log_inputs(kept, run, [])
    assert datasets.inputs_of(kept, run) == []
    runs.delete(kept, run)
    with pytest.raises(Conflict):
        datasets.log_inputs(kept, run, [(songs(), {})])
