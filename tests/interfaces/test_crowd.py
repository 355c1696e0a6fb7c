"""Many clients log at once, through HTTP: nobody is refused, nobody is told of locks, and every point is there afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx2
import pytest

from instar.serve.root.process import ServerTree

API = "/api/2.0/mlflow/"
CROWD, BATCHES, POINTS = 8, 15, 40


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    return {"INSTAR_DATABASE": request.getfixturevalue("postgres_database")}


def test_eight_threads_log_batches_while_others_call_one_by_one(tmp_path: Path, environment: dict[str, str]) -> None:
    refused: list[str] = []

    def call(client: httpx2.Client, path: str, body: dict[str, object]) -> httpx2.Response:
        reply = client.post(API + path, json=body)
        if reply.status_code != 200:
            refused.append(reply.text)
        return reply

    with ServerTree.start(tmp_path / ".instar", environment=environment) as server:
        with httpx2.Client(base_url=server.url, timeout=120) as client:
            group = call(client, "experiments/create", {"name": "crowd"}).json()["experiment_id"]
            made = [call(client, "runs/create", {"experiment_id": group}).json() for _ in range(CROWD)]
            runs = [one["run"]["info"]["run_id"] for one in made]

        def batches(run: str) -> None:
            with httpx2.Client(base_url=server.url, timeout=120) as client:
                for turn in range(BATCHES):
                    steps = range(turn * POINTS, (turn + 1) * POINTS)
                    points = [{"key": "loss", "value": n / 7, "timestamp": 1000 + n, "step": n} for n in steps]
                    call(client, "runs/log-batch", {"run_id": run, "metrics": points})

        def singles(run: str) -> None:
            with httpx2.Client(base_url=server.url, timeout=120) as client:
                for n in range(BATCHES * 2):
                    point = {"run_id": run, "key": "single", "value": 0.5, "timestamp": 1000 + n, "step": n}
                    call(client, "runs/log-metric", point)
                    call(client, "runs/log-parameter", {"run_id": run, "key": f"p{n}", "value": "v"})

        threads = [threading.Thread(target=batches, args=(run,)) for run in runs]
        threads += [threading.Thread(target=singles, args=(run,)) for run in runs[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused == []
        with httpx2.Client(base_url=server.url, timeout=120) as client:
            for number, run in enumerate(runs):
                found = client.get(API + "metrics/get-history", params={"run_id": run, "metric_key": "loss"}).json()
                assert [one["step"] for one in found["metrics"]] == list(range(BATCHES * POINTS))
                logged = client.get(API + "runs/get", params={"run_id": run}).json()["run"]["data"]
                assert len(logged.get("params", [])) == (BATCHES * 2 if number < 2 else 0)
    assert "locked" not in server.log.read_text()
