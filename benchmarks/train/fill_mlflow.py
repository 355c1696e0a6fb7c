"""Fill a database of MLflow with the same runs, by its own tables. Run by the clients' Python, before the server is started.

python fill_mlflow.py DATABASE_URL RUNS METRICS PARAMETERS HISTORY
"""

from __future__ import annotations

import json
import sys
import uuid

import shape
from mlflow.entities import RunStatus
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

CHUNK = 1000


def main(url: str, runs: int, metrics: int, parameters: int, history: int) -> None:
    """Fill and print the ids."""
    store = SqlAlchemyStore(url, "mlflow-artifacts:/")
    wanted = shape.Shape(runs, metrics, parameters, history)
    experiment = store.create_experiment("many")
    like = store.create_run(experiment, "bench", shape.START_US // 1000, [], "first")
    store.update_run_info(like.info.run_id, RunStatus.FINISHED, shape.START_US // 1000, None)
    for start in range(0, runs, CHUNK):
        rows, params, points = [], [], []
        for number in range(start, min(start + CHUNK, runs)):
            one, run_id, at = shape.run(number, wanted), uuid.uuid4().hex, shape.START_US // 1000 + number * 1000
            rows.append(
                {
                    "run_uuid": run_id, "name": f"run {number}", "source_type": "UNKNOWN", "source_name": "",
                    "entry_point_name": "", "user_id": "bench", "status": "FINISHED", "start_time": at, "end_time": at,
                    "source_version": "", "lifecycle_stage": "active", "experiment_id": int(experiment),
                    "artifact_uri": f"mlflow-artifacts:/{experiment}/{run_id}/artifacts",
                }
            )  # fmt: skip
            params += [{"key": name, "value": value, "run_uuid": run_id} for name, value in one.parameters.items()]
            points += [
                {"key": name, "value": value, "timestamp": at, "step": 0, "is_nan": False, "run_uuid": run_id}
                for name, value in one.metrics.items()
            ]
        with store.ManagedSessionMaker() as session:
            session.bulk_insert_mappings(SqlRun, rows)
            session.bulk_insert_mappings(SqlParam, params)
            session.bulk_insert_mappings(SqlMetric, points)
            session.bulk_insert_mappings(SqlLatestMetric, points)
    long = store.create_run(store.create_experiment("long"), "bench", shape.START_US // 1000, [], "long").info.run_id
    common = {"key": "loss", "is_nan": False, "run_uuid": long}
    points = [
        {**common, "value": 1.0 / (n + 1), "timestamp": shape.START_US // 1000 + n, "step": n} for n in range(history)
    ]
    if points:
        with store.ManagedSessionMaker() as session:
            session.bulk_insert_mappings(SqlMetric, points)
            session.bulk_insert_mappings(SqlLatestMetric, points[-1:])
    print(json.dumps({"experiment": experiment, "long": long}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
