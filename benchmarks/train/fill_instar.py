"""Fill a store of Instar with runs before it is measured: rows as the server itself would have written them, in bulk."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import shape
import sqlalchemy as sa

from instar.app import open_store
from instar.core import ids
from instar.core.store import Store
from instar.train import run_log, runs
from instar.train.tracking_tables import latest_table, metric_table, parameter_table, run_table

CHUNK = 1000  # runs a transaction


def fill(folder: Path, database: str | None, wanted: shape.Shape) -> dict[str, str]:
    """Make a store with an experiment of many runs and a run with a long history; returns their ids."""
    store = open_store(folder, database or f"sqlite:///{folder / 'instar.db'}")
    try:
        first = runs.start(store, "default", experiment="many", capture=False)
        runs.finish(store, first.id)
        for start in range(0, wanted.runs, CHUNK):
            _insert(store, first, wanted, range(start, min(start + CHUNK, wanted.runs)))
        long = runs.start(store, "default", experiment="long", capture=False)
        for start in range(0, wanted.history, CHUNK):
            steps = range(start, min(start + CHUNK, wanted.history))
            run_log.log(store, long.id, points=[("loss", 1.0 / (n + 1), n, shape.START_US + n) for n in steps])
        return {"experiment": first.experiment_id, "long": long.id}
    finally:
        store.database.close()


def _insert(store: Store, like: runs.Run, wanted: shape.Shape, numbers: range) -> None:
    made = [shape.run(number, wanted) for number in numbers]

    def work(tx: sa.Connection) -> None:
        template = dict(tx.execute(sa.select(run_table).where(run_table.c.id == like.id)).mappings().one())
        key: int = tx.execute(sa.select(sa.func.max(run_table.c.key))).scalar_one()
        rows, parameters, metrics = [], [], []
        for one in made:
            key += 1
            started = datetime.fromtimestamp((shape.START_US / 1e6) + one.number, tz=template["started"].tzinfo)
            name = f"run {one.number}"
            rows.append(
                {**template, "key": key, "id": ids.new_id("run"), "name": name, "started": started, "ended": started}
            )
            parameters += [
                {"run": key, "name": name, "value": value, "rest": None, "kind": "text"}
                for name, value in one.parameters.items()
            ]
            metrics += [
                {"run": key, "name": name, "step": 0, "at": started, "value": value, "nan": 0}
                for name, value in one.metrics.items()
            ]
        tx.execute(run_table.insert(), rows)
        if parameters:
            tx.execute(parameter_table.insert(), parameters)
        tx.execute(metric_table.insert(), metrics)
        tx.execute(latest_table.insert(), metrics)
        if tx.dialect.name == "postgresql":
            tx.execute(sa.text("SELECT setval(pg_get_serial_sequence('run', 'key'), (SELECT max(key) FROM run))"))

    store.database.write(work)
