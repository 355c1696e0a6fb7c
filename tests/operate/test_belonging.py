"""A reader of one project is told nothing of another's records, though all ids lie in one store."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.operate.belonging import _TABLES, require_in
from instar.serve.traffic import routing
from instar.train import runs


class Log:
    """A prediction log with one call of an endpoint."""

    def find(self, prediction_id: str) -> dict[str, Any]:
        return {"endpoint": "delay", "policy": 1}

    def read(self, *_: object, **__: object) -> Any:
        raise AssertionError("nothing is read")


def test_a_run_is_its_projects_by_its_id_and_by_the_beginning_of_it(store: Store) -> None:
    run = runs.start(store, "flights", experiment="delay", capture=False)
    for name in (run.id, run.id[:12], "run_"):
        require_in(store, Log(), "flights", name)
        with pytest.raises(NotFound, match="no such record in this project"):
            require_in(store, Log(), "fraud", name)
    require_in(store, Log(), "fraud", "run_nothing")  # whoever looks it up says that there is none
    require_in(store, Log(), "fraud", "table@3")


def test_a_prediction_is_its_endpoints_projects(store: Store) -> None:
    revision = routing.set_policy(store, "flights", "delay", champion=1, bundles={1: "b3:x"}, cause="test")
    for name in ("call_01M7YEETH9YQA8RD0000000002/0", revision.id):
        require_in(store, Log(), "flights", name)
        with pytest.raises(NotFound, match="in this project"):
            require_in(store, Log(), "fraud", name)


def test_every_kind_of_record_that_a_trace_shows_can_be_asked(store: Store) -> None:
    from instar.operate.trace_records import _READERS

    assert {*_READERS} == {*_TABLES, "b3"}
    with store.database.read() as tx:
        for table in _TABLES.values():
            tx.execute(sa.select(table.c.id, table.c.project).limit(1))
