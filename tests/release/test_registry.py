"""Versions have numbers that never change hands, and names that follow the rules."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from instar.core import journal, lineage
from instar.core.errors import BadInput, Conflict, NotAllowed, NotFound
from instar.core.identity import Actor, Permission
from instar.core.store import Store
from instar.release import approval, registry
from tests.evaluate.bundles import make_bundle
from tests.release.conftest import Judge


def register(store: Store, *, model: str = "delay", noise: float = 0.0, **changes: object) -> registry.ModelVersion:
    given: dict[str, object] = {"bundle": make_bundle(store, noise=noise), "origin": "recipe", **changes}
    return registry.register(store, "flights", model, **given)  # type: ignore[arg-type]


def test_versions_are_numbered_within_their_model(store: Store) -> None:
    names = [register(store, noise=noise).name for noise in (0.0, 0.1, 0.2)]
    assert [*names, register(store, model="other").name] == ["delay@1", "delay@2", "delay@3", "other@1"]
    assert [one.name for one in registry.versions(store, "flights")] == ["delay@1", "delay@2", "delay@3", "other@1"]
    assert [one.number for one in registry.versions(store, "flights", "delay")] == [1, 2, 3]
    assert registry.versions(store, "elsewhere") == []


def test_a_bundle_is_registered_once(store: Store, judge: Judge) -> None:
    first = register(store)
    found = judge()
    assert found.bundle == first.bundle
    again = register(store, evaluation=found.id)
    assert (again.id, again.number, again.evaluation) == (first.id, 1, found.id)
    assert registry.find(store, "flights", "delay@1") == again
    assert registry.of_bundle(store, "flights", "delay", first.bundle) == again


def test_an_approved_version_keeps_its_evidence(store: Store, judge: Judge) -> None:
    found = judge()
    version = register(store, evaluation=found.id)
    approval.decide(store, version, found, "automatic")
    with pytest.raises(Conflict, match="eval_other"):
        register(store, evaluation="eval_other")


def test_many_writers_get_different_numbers(store: Store) -> None:
    bundles = [make_bundle(store, noise=i / 10) for i in range(8)]
    found: list[int] = []

    def work(bundle: str) -> None:
        found.append(registry.register(store, "flights", "delay", bundle=bundle, origin="recipe").number)

    threads = [threading.Thread(target=work, args=(bundle,)) for bundle in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 9))


def test_where_a_version_comes_from_is_on_the_record(store: Store, judge: Judge) -> None:
    found = judge()
    first = register(store, evaluation=found.id)
    second = register(store, noise=0.1, origin="refit", refit_of=first.id, cause="actn_1")
    with store.database.read() as tx:
        above = {(edge.source, edge.relation, edge.target) for edge in lineage.up(tx, second.id)}
        entries = journal.entries(tx, "flights", kind="model version")
        assert journal.verify(tx, "flights").consistent
    assert above >= {
        (first.id, "was fitted again as", second.id),
        (second.bundle, "was registered as", second.id),
        (found.id, "is the evidence on", first.id),
    }
    assert [(entry.subject, entry.body["cause"]) for entry in entries] == [(first.id, "user"), (second.id, "actn_1")]


def test_references(store: Store) -> None:
    first, second = register(store), register(store, noise=0.1)
    registry.set_alias(store, "flights", "delay", "stable", 1)

    def derived(model: str, name: str) -> int | None:
        return {("delay", "champion"): 2}.get((model, name))

    for ref, version in [("delay@1", first), ("delay", second), ("delay@stable", first), (second.id, second)]:
        assert registry.find(store, "flights", ref) == version
    assert registry.find(store, "flights", "delay@champion", derived) == second
    for ref in ("delay@3", "delay@0", "delay@nobody", "other", "mver_none", "delay@-1", "delay@²"):
        with pytest.raises(NotFound):
            registry.find(store, "flights", ref)
    with pytest.raises(NotFound):
        registry.find(store, "flights", "delay@champion")
    with pytest.raises(NotFound):
        registry.find(store, "flights", "delay@challenger", derived)


def test_aliases_move_and_go(store: Store) -> None:
    register(store)
    register(store, noise=0.1)
    registry.set_alias(store, "flights", "delay", "stable", 1)
    registry.set_alias(store, "flights", "delay", "stable", 2)
    registry.set_alias(store, "flights", "delay", "stable", 2)
    assert registry.aliases(store, "flights", "delay") == {"stable": 2}
    with store.database.read() as tx:
        moves = [(e.body["before"], e.body["number"]) for e in journal.entries(tx, "flights", kind="model alias")]
    assert moves == [(None, 1), (1, 2)]
    registry.set_alias(store, "flights", "delay", "stable", None)
    assert registry.aliases(store, "flights", "delay") == {}


def test_an_alias_that_points_nowhere_leaves_the_old_one(store: Store) -> None:
    register(store)
    registry.set_alias(store, "flights", "delay", "stable", 1)
    with pytest.raises(NotFound):
        registry.set_alias(store, "flights", "delay", "stable", 9)
    assert registry.aliases(store, "flights", "delay") == {"stable": 1}


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_what_follows_from_the_policy_cannot_be_set(store: Store, alias: str) -> None:
    register(store)
    with pytest.raises(NotAllowed, match="instar promote delay@1"):
        registry.set_alias(store, "flights", "delay", alias, 1)


@pytest.mark.parametrize("alias", ["", "7", "v3", "Latest", "a@b", "a b", "mver_/", "mver_1", "x" * 101])
def test_names_that_could_be_taken_for_something_else_are_refused(store: Store, alias: str) -> None:
    register(store)
    with pytest.raises(BadInput):
        registry.set_alias(store, "flights", "delay", alias, 1)


def test_states_and_stages(store: Store) -> None:
    version = register(store)
    assert registry.set_state(store, version, "rejected", "patience").state == "rejected"
    assert registry.set_stage(store, version, "Staging").stage == "Staging"
    kept = registry.find(store, "flights", "delay@1")
    assert (kept.state, kept.stage) == ("rejected", "Staging")
    with pytest.raises(NotAllowed, match="instar approve"):
        registry.set_state(store, version, "approved", "because")


def test_an_unknown_bundle_is_not_registered(store: Store) -> None:
    with pytest.raises(NotFound):
        register(store, bundle="b3:" + "0" * 64)


def test_who_may_not_release_registers_nothing(store: Store) -> None:
    reader = replace(store, actor=Actor("eve", permissions=frozenset({Permission.READ})))
    with pytest.raises(NotAllowed, match="eve"):
        register(reader)
    assert registry.versions(store, "flights") == []
