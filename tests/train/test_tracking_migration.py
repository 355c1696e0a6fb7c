"""A store of the first format comes over with its runs, metrics, parameters, tags and artifacts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import sqlalchemy as sa

from instar.adapters import migrations
from instar.app import open_database, open_store
from instar.core.database import Database, Transaction
from instar.train import experiments, histories, run_search, runs
from instar.train.artifacts import all_artifacts

FIRST = Path(migrations.__file__).parent / "versions" / "0001_first.py"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'instar.db'}"
    fresh: str = request.getfixturevalue("postgres_database")
    return fresh


@pytest.fixture
def old(url: str) -> str:
    """A database as the first format had it, with two runs."""
    database = open_database(url)
    database.write(_first_format, durable=True)
    database.close()
    return url


def _first_format(tx: Transaction) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FIRST.parent.parent))
    config.attributes["connection"] = tx
    command.upgrade(config, "0001")
    tx.execute(sa.text("INSERT INTO store_format VALUES (1)"))
    run = (
        "INSERT INTO run (id, project, experiment, step, execution, parameters, tags, state, error, inputs, code, environment,"
        " cause, actor, process, event_at, started, ended) VALUES (:id, :project, :experiment, 'trees', NULL, :parameters,"
        " :tags, 'finished', NULL, '[\"tver_1\"]', NULL, NULL, 'user', 'ada', 1, 5, :started, 9)"
    )
    about = {"project": "p", "tags": '{"kind":"model"}'}
    parameters = '{"depth":3,"rate":0.1,"name":"x","on":true,"none":null,"list":[1],"long":"' + "y" * 400 + '"}'
    tx.execute(sa.text(run), {**about, "id": "run_A", "experiment": "delay", "parameters": parameters, "started": 7})
    tx.execute(sa.text(run), {**about, "id": "run_B", "experiment": "delay", "parameters": "{}", "started": 8})
    tx.execute(
        sa.text(run), {**about, "id": "run_C", "project": "q", "experiment": "delay", "parameters": "{}", "started": 6}
    )
    metric = "INSERT INTO run_metric (run, name, step, at, value) VALUES ('run_A', 'cost', :step, :at, :value)"
    for step, at, value in ((0, 1, 0.5), (2, 1, None), (1, 9, 0.25), (2, 0, math.inf)):
        tx.execute(sa.text(metric), {"step": step, "at": at, "value": value})
    tx.execute(sa.text("INSERT INTO run_artifact VALUES ('run_A', 'plots/roc.png', 'b3:1', 7)"))


def test_all_of_an_old_store_is_there(old: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", old)
    found = runs.get_run(store, "run_A")
    assert found.parameters == {
        "depth": 3, "rate": 0.1, "name": "x", "on": True, "none": None, "list": [1], "long": "y" * 400,
    }  # fmt: skip
    assert type(found.parameters["on"]) is bool
    assert (found.experiment, found.tags, found.inputs, found.lifecycle) == (
        "delay",
        {"kind": "model"},
        ["tver_1"],
        "active",
    )
    assert (found.started.microsecond, found.ended and found.ended.microsecond) == (7, 9)
    assert found.artifacts == {"plots/roc.png": "b3:1"}
    assert [entry.size for entry in all_artifacts(store, "run_A")] == [7]
    assert [metric.step for metric in histories.metric_history(store, "run_A", "cost")] == [0, 1, 2, 2]
    assert math.isnan(found.metrics["cost"])
    group = experiments.get(store, found.experiment_id)
    assert (group.project, group.name, group.created.microsecond) == ("p", "delay", 7)
    other = runs.get_run(store, "run_C")
    assert (other.project, other.experiment) == ("q", "delay")
    assert other.experiment_id != found.experiment_id
    page = run_search.search(
        store, experiments=[found.experiment_id], filter="params.depth = '3'", order_by=["metrics.cost"]
    )
    assert [run.id for run in page.items] == ["run_A"]
    more = runs.start(store, "p", experiment="delay", capture=False)
    assert more.experiment_id == found.experiment_id
    assert more.key > found.key
    store.database.close()


def test_nothing_of_the_old_tables_is_left(old: str) -> None:
    database: Database = open_database(old)
    migrations.prepare(database)
    with database.read() as tx:
        tables = sa.inspect(tx).get_table_names()
    assert not [name for name in tables if name.startswith("old_") or name == "run_artifact"]
    database.close()
