"""The registry, logged models and webhooks on both databases, and a store of the first format brought over with its versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from instar.adapters import migrations
from instar.adapters.database_sqlite import SqliteDatabase
from instar.app import open_store
from instar.core.database import Transaction
from instar.core.errors import BadInput, Conflict, NotAllowed, NotFound
from instar.core.identity import Actor
from instar.core.store import Store
from instar.release import delivery, registered_models, registry, registry_search, targets, webhooks
from instar.train import logged_model_search, logged_models, model_links, runs
from instar.train.run_records import Metric
from tests.evaluate.bundles import make_bundle

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'instar.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
    store = replace(open_store(tmp_path / "store", url), actor=Actor("ada"))
    yield store
    store.database.close()


def test_the_registry(store: Store) -> None:
    registered_models.create(store, "p", "delay", tags={"team": "ops"})
    with pytest.raises(Conflict):
        registered_models.create(store, "p", "delay")
    bundle = make_bundle(store)
    for number in (1, 2):
        made = registry.register_logged(store, "p", "delay", bundle=bundle, source="runs:/x/y", tags={"n": str(number)})
        assert made.number == number
    registry.set_alias(store, "p", "delay", "champion", 2, lambda model, alias: registry.FREE)
    found = registry_search.search_versions(
        store, "p", filter="tags.n = '2' AND source LIKE 'runs%'", order_by=["name"]
    )
    assert [one.name for one in found.items] == ["delay@2"]
    page = registry_search.search_versions(store, "p", limit=1)
    rest = registry_search.search_versions(store, "p", limit=1, token=page.token)
    assert {page.items[0].number, rest.items[0].number} == {1, 2}
    assert [one.tags for one in registry_search.search_models(store, "p", filter="tags.team != 'x'").items] == [
        {"team": "ops"}
    ]
    with pytest.raises(NotAllowed):
        registry.delete(store, made, lambda version: "it answers")
    registry.delete(store, made, lambda version: "")
    with pytest.raises(NotFound):
        registry.find(store, "p", "delay@2")
    assert registry.find(store, "p", made.id).deleted_at is not None
    assert registered_models.rename(store, "p", "delay", "late", lambda name: "").last_number == 2
    registered_models.delete(store, "p", "late", lambda name: "")
    registered_models.create(store, "p", "late")
    assert registry.register_logged(store, "p", "late", bundle=bundle, source="x").number == 1


def test_logged_models(store: Store) -> None:
    run = runs.start(store, "p", experiment="e", capture=False).id
    made = [
        logged_models.create(
            store, "p", experiment="exp_1", name=name, run=run, parameters={"depth": depth}, tags={"a": "b"}
        )
        for name, depth in (("first", "1"), ("second", "2"))
    ]
    values = (0.5, float("nan"), float("inf"))
    for model in made:
        points = [
            model_links.ModelMetric(model.id, Metric("auc", value, step, NOW), "test", "d")
            for step, value in enumerate(values)
        ]
        model_links.log_metrics(store, run, points)
        model_links.log_metrics(store, run, points)  # a retried request
    first = made[0].id
    model_links.log_metrics(store, run, [model_links.ModelMetric(first, Metric("auc", 0.7, 3, NOW), "test", "d")])
    with store.database.read() as tx:
        (latest,) = model_links.metrics_of(tx, [first])[first]
        assert (latest.metric.value, latest.metric.step) == (0.7, 3)
    found = logged_model_search.search(store, "p", filter="metrics.auc < 1 OR params.depth = '9'")
    assert [one.name for one in found.items] == ["first"]
    ordered = logged_model_search.search(store, "p", order_by=["metrics.auc DESC"], limit=1)
    assert [one.name for one in ordered.items] == ["second"]  # infinite
    rest = logged_model_search.search(store, "p", order_by=["metrics.auc DESC"], limit=1, token=ordered.token)
    assert [one.name for one in rest.items] == ["first"]
    with pytest.raises(NotFound):
        model_links.link(store, run, model_links.MADE, [(first, 0), ("m-" + "0" * 32, 0)])
    with store.database.read() as tx:
        assert model_links.models_of(tx, [run], model_links.MADE) == {}


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_database_keeps_is_refused_before_it_is_asked(store: Store, text: str) -> None:
    good = logged_models.create(store, "p", experiment="exp_1", name="good").id
    for about in ({"name": text}, {"name": "n", "model_type": text}, {"name": "n", "tags": {"a": text}}):
        with pytest.raises(BadInput):
            logged_models.create(store, "p", experiment="exp_1", **about)  # type: ignore[arg-type]
    for change in (logged_models.set_tags, logged_models.log_parameters):
        for pair in ({"a": text}, {text: "a"}):
            with pytest.raises(BadInput):
                change(store, good, pair)


def test_webhooks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(targets.SETTING, "any")
    hook = webhooks.create(store, "p", "ci", "http://127.0.0.1:9/", ["registered_model.created"])
    registered_models.create(store, "p", "delay")
    assert delivery.deliver_due(store) == 1  # nobody listens: it waits for its next turn
    with store.database.read() as tx:
        row = tx.execute(sa.select(webhooks.delivery_table)).one()
    assert (row.webhook, row.state, row.attempts) == (hook.id, "waiting", 1)
    assert "refused" in row.error


def test_versions_of_the_first_format_come_over(tmp_path: Path) -> None:
    """The models that versions named are there afterwards, and numbers go on."""
    database = SqliteDatabase(tmp_path / "store" / "instar.db")

    def first_format(tx: Transaction) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = tx
        command.upgrade(config, "0001")
        columns = (
            "id, project, model, number, bundle, content, run, recipe, origin, state, stage, registered_by, created_at, "
            "event_at"
        )
        for number in (1, 2):
            tx.exec_driver_sql(
                f"INSERT INTO model_version ({columns}) VALUES ('mver_{number}', 'p', 'delay', {number}, 'b3:{number}', 'b3:c', "
                f"'run_1', 'b3:r', 'recipe', 'approved', '', 'ada', {number}000000, 5)"
            )
        tx.exec_driver_sql("INSERT INTO model_alias VALUES ('p', 'delay', 'stable', 1)")
        tx.exec_driver_sql("DELETE FROM store_format")
        tx.exec_driver_sql("INSERT INTO store_format (number) VALUES (1)")

    database.write(first_format)
    database.close()
    store = open_store(tmp_path / "store", f"sqlite:///{tmp_path / 'store' / 'instar.db'}")
    try:
        model = registered_models.get(store, "p", "delay")
        assert (model.last_number, model.created_by, model.description) == (2, "ada", "")
        found = registry.find(store, "p", "delay@stable")
        assert (found.id, found.state, found.description, found.deleted_at) == ("mver_1", "approved", "", None)
        assert registry.register(store, "p", "delay", bundle=make_bundle(store), origin="recipe").number == 3
    finally:
        store.database.close()
