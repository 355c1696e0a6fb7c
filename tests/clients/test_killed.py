"""A server that is killed in the middle of logging: every batch that was answered is there, and none is there in part."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from tests.clients.conftest import project
from tests.journeys.driving import up

BATCH = 1000
NOW = 1_700_000_000_000


@pytest.mark.timeout(240)
def test_a_batch_is_there_whole_or_not_at_all_after_kill_minus_nine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a failed call is a failed call: we do the counting
    folder = project(tmp_path)
    answered: set[int] = set()
    sent = 0
    run = ""
    for _ in range(3):
        with up(folder) as server:
            mlflow.set_tracking_uri(server.url)
            client = MlflowClient()
            run = run or client.create_run("0").info.run_id
            killer = threading.Timer(random.uniform(0.2, 1.0), _kill, (server.process.pid,))
            killer.start()
            while True:
                try:
                    client.log_batch(run, metrics=_batch(sent), params=[Param(f"p{sent}", "1")])
                except MlflowException:
                    sent += 1
                    break
                answered.add(sent)
                sent += 1
            killer.join()
    with up(folder) as server:
        mlflow.set_tracking_uri(server.url)
        client = MlflowClient()
        steps = [point.step for point in client.get_metric_history(run, "loss")]
        params = {int(name[1:]) for name in client.get_run(run).data.params}
        assert len(steps) == len(set(steps))
        whole = {step // (BATCH - 1) for step in steps}
        assert len(steps) == len(whole) * (BATCH - 1)  # one thing of each thousand is the parameter
        assert whole == params
        assert answered <= whole <= set(range(sent))
        for number in sorted(set(range(sent)) - whole | {0}):  # sent again, as a client with retries would
            client.log_batch(run, metrics=_batch(number), params=[Param(f"p{number}", "1")])
        assert len(client.get_metric_history(run, "loss")) == sent * (BATCH - 1)


def _batch(number: int) -> list[Metric]:
    first = number * (BATCH - 1)
    return [Metric("loss", float(step), NOW + step, step) for step in range(first, first + BATCH - 1)]


def _kill(root: int) -> None:
    """The whole tree at once, as a machine that loses power would."""
    family = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family):
        assert time.monotonic() < deadline
        time.sleep(0.01)
