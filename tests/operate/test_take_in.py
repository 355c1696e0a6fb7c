"""A server takes in what training processes on its machine left, without anybody's asking."""

from __future__ import annotations

from instar.core.store import Store
from instar.operate import controllers
from instar.train import runs, spool
from tests.train.test_syncing import left


def test_a_look_takes_in_the_spools_of_the_store_but_not_those_for_another_server(store: Store) -> None:
    root = store.folder / spool.FOLDER
    own, foreign = left(root, ended=False), left(root, url="http://127.0.0.1:9")
    controllers.take_in(store, "birds")
    (run,) = runs.list_runs(store, "birds")
    assert (run.id, run.state, run.metrics) == (own, "abandoned", {"a": 1.0})
    assert spool.is_delivered(root / own)
    assert not spool.is_delivered(root / foreign)
    controllers.take_in(store, "birds")
    assert len(runs.metric_history(store, own, "a")) == 3
