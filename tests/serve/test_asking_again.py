"""Calls that were asked together and failed: what of them is asked again, and what is not, in both kinds of work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instar.core.errors import StepFailed
from instar.core.store import Store
from instar.serve.protocol import wire
from instar.serve.worker.loading import load
from instar.serve.worker.runtime import Runtime
from instar.serve.worker.work import Ended
from tests.serve import fakes, tensor_fakes
from tests.serve.programs import folder, unpacked
from tests.serve.test_runtime import call, plan, replies

HUNG = Ended.of_hung("it did not answer within 1 s, and was ended", subject="model delay")
DIED = Ended("it ended while it was asked", subject="model delay")


class Model:
    """Of columns and of tensors: fails as it is told, and counts how often it is asked."""

    batchable = True

    def __init__(self, fails: Callable[[list[float]], Exception | None]) -> None:
        self._fails = fails
        self.asked: list[int] = []

    def score(self, columns: Any) -> list[float]:
        rows = list(columns["distance"])
        self._fail(rows)
        return [0.5] * len(rows)

    def infer(self, inputs: Any) -> Any:
        rows = inputs["x"][:, 0].tolist()
        self._fail(rows)
        return {"score": np.full(len(rows), 0.5, dtype=np.float32)}

    def _fail(self, rows: list[float]) -> None:
        self.asked.append(len(rows))
        problem = self._fails(rows)
        if problem is not None:
            raise problem


def statuses(place: Path, model: Model, kind: str, *values: float) -> list[tuple[int, bytes]]:
    """Status and body of calls of one row that are worked in one batch."""
    if kind == "columns":
        route = plan(place, [(fakes.version(place, 1), "champion")], [])
        calls = [(job, call(value)) for job, value in enumerate(values)]
    else:
        route = plan(place, [(tensor_fakes.version(place, 1), "champion")], [], tensor_fakes.SIGNATURE)
        calls = [(job, wire.Ask(json.dumps(tensor_fakes.body(value)).encode())) for job, value in enumerate(values)]
    got = replies(Runtime(lambda _: model).answer(route, calls)[0])  # type: ignore[arg-type,return-value]
    return [(got[job].status, got[job].body) for job in range(len(values))]


KINDS = pytest.mark.parametrize("kind", ["columns", "tensors"])


@KINDS
def test_a_batch_at_which_a_process_hung_is_not_asked_again(tmp_path: Path, kind: str) -> None:
    model = Model(lambda rows: HUNG)
    got = statuses(tmp_path, model, kind, 1, 2, 3)
    assert model.asked == [3]
    assert [status for status, _ in got] == [503, 503, 503]
    assert b"version 1 cannot answer now: it did not answer within 1 s" in got[2][1]


@KINDS
def test_the_one_call_that_ends_a_process_fails_alone(tmp_path: Path, kind: str) -> None:
    model = Model(lambda rows: DIED if 13 in rows else None)
    got = statuses(tmp_path, model, kind, 1, 13, 3)
    assert model.asked == [3, 1, 1, 1]
    assert [status for status, _ in got] == [200, 500, 200]


@KINDS
def test_a_process_that_ends_at_every_call_is_not_begun_for_ever(tmp_path: Path, kind: str) -> None:
    model = Model(lambda rows: DIED)
    got = statuses(tmp_path, model, kind, *range(1, 9))
    assert model.asked == [8, 1, 1]
    assert [status for status, _ in got] == [500, 500, 503, 503, 503, 503, 503, 503]
    assert b"again and again" in got[7][1]


@KINDS
def test_one_that_hangs_among_calls_asked_alone_stops_the_rest(tmp_path: Path, kind: str) -> None:
    model = Model(lambda rows: StepFailed("no") if len(rows) > 1 else HUNG if 13 in rows else None)
    got = statuses(tmp_path, model, kind, 1, 13, 3)
    assert model.asked == [3, 1, 1]
    assert [status for status, _ in got] == [200, 503, 503]


def test_a_call_that_was_alone_is_not_asked_twice_of_a_model_that_refused_it(tmp_path: Path) -> None:
    model = Model(lambda rows: StepFailed("no"))
    assert statuses(tmp_path, model, "columns", 1)[0][0] == 500
    assert model.asked == [1]


def test_a_program_that_hangs_is_ended_once_for_a_whole_batch(store: Store, tmp_path: Path) -> None:
    place = unpacked(store, folder(tmp_path / "m", more="answer_seconds = 0.5"))
    model: Any = load(place)
    try:
        first = model._child.pid
        route = plan(place, [(fakes.version(place, 1), "champion")], [])
        hanging = [{**one, "data": ["hangs"]} if one["name"] == "carrier" else one for one in fakes.body()["inputs"]]
        body = json.dumps({"inputs": hanging}).encode()
        calls = [(job, wire.Ask(body)) for job in range(20)]
        runtime = Runtime(lambda _: model)
        asked = Counter(model)
        got = replies(runtime.answer(route, calls)[0])
        assert {one.status for one in got.values()} == {503}
        assert asked.times == 1
        assert replies(runtime.answer(route, [(1, call(1000))])[0])[1].status == 200
        assert model._child.pid != first
    finally:
        model.close()


class Counter:
    """Counts how often a program is asked."""

    def __init__(self, model: Any) -> None:
        self.times = 0
        ask = model._ask

        def counted(*arguments: Any) -> Any:
            self.times += 1
            return ask(*arguments)

        model._ask = counted
