"""Fairness by the order of work: whoever floods a shared worker holds up itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.serve.protocol import wire
from instar.serve.worker.runtime import Runtime
from instar.serve.worker.turns import Turns
from instar.serve.worker.worker import TURN_CALLS, Host
from tests.serve import fakes
from tests.serve.test_runtime import plan


def test_a_flood_takes_turns_with_the_others() -> None:
    turns: Turns[str] = Turns(100, 10, 1000)
    for n in range(1000):
        turns.put("flood", f"f{n}", 1)
    assert len(turns.take()) == 100  # alone, a turn is long
    turns.put("calm", "c0", 1)
    turns.put("other", "o0", 1)
    assert [turns.take() for _ in range(3)] == [[f"f{n}" for n in range(100, 110)], ["c0"], ["o0"]]


def test_a_turn_ends_by_bytes_too() -> None:
    turns: Turns[int] = Turns(100, 10, 1000)
    for n in range(5):
        turns.put("a", n, 400)
    assert [turns.take(), turns.take()] == [[0, 1, 2], [3, 4]]
    assert not turns
    assert turns.take() == []


@given(st.lists(st.sampled_from("abc"), max_size=200), st.integers(1, 5))
def test_nothing_is_lost_lines_keep_their_order_and_each_waits_for_one_turn_of_others(
    names: list[str], most: int
) -> None:
    turns: Turns[tuple[str, int]] = Turns(most, most, 10**9)
    for n, name in enumerate(names):
        turns.put(name, (name, n), 1)
    left = {name: names.count(name) for name in set(names)}
    order: list[tuple[str, int]] = []
    waits = dict.fromkeys(left, 0)
    while turns:
        taken = turns.take()
        (name,) = {name for name, _ in taken}
        waits = {other: 0 if other == name else count + 1 for other, count in waits.items()}
        left[name] -= len(taken)
        assert all(waits[other] < len(set(names)) for other, count in left.items() if count)
        order += taken
    for name in set(names):
        assert [n for one, n in order if one == name] == [n for n, one in enumerate(names) if one == name]


class Line:
    """A gateway's connection that keeps the order in which calls are answered."""

    def __init__(self) -> None:
        self.lost = False
        self.answered: list[int] = []
        self.plans: dict[int, wire.Plan] = {}

    def write(self, data: bytes) -> None:
        self.answered += [job for _, job, _ in wire.Splitter().feed(data)]


def test_a_worker_answers_a_lone_call_before_the_rest_of_a_flood(tmp_path: Path) -> None:
    flood = plan(tmp_path, [(fakes.version(tmp_path, 1), "champion")], [])
    calm = wire.Plan(2, "calm", 0, flood.signature, flood.first, (), {})

    async def work() -> list[int]:
        host, line = Host(asyncio.get_running_loop(), Runtime(fakes.load)), Line()
        line.plans = {1: flood, 2: calm}
        ask = wire.Ask(json.dumps(fakes.body(10)).encode())
        for job in range(1000):
            host.put(line, wire.INFER, job, wire.encode_infer(job, 1, ask)[9:])  # type: ignore[arg-type]
        host.put(line, wire.INFER, 5000, wire.encode_infer(5000, 2, ask)[9:])  # type: ignore[arg-type]
        while len(line.answered) < 1001:
            await asyncio.sleep(0)
        return line.answered

    answered = asyncio.run(work())
    assert answered.index(5000) == TURN_CALLS
    assert sorted(answered) == [*range(1000), 5000]


def test_a_fault_of_ours_fails_one_call_and_wedges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raises on one call of a batch, its neighbours are answered, it hears so, and the worker goes on."""
    route = plan(tmp_path, [(fakes.version(tmp_path, 1), "champion")], [(fakes.version(tmp_path, 2), "shadow")])
    runtime = Runtime(fakes.load)
    answer = runtime.answer

    def faulty(plan: wire.Plan, calls: list[tuple[int, wire.Ask]]) -> object:
        if any(job == 7 for job, _ in calls):
            raise TypeError("nobody thought of this")
        return answer(plan, calls)

    monkeypatch.setattr(runtime, "answer", faulty)

    async def work() -> list[tuple[int, int, bytes]]:
        host, line = Host(asyncio.get_running_loop(), runtime), Line()
        line.plans = {1: route}
        heard: list[tuple[int, int, bytes]] = []
        line.write = lambda data: heard.extend(wire.Splitter().feed(data))  # type: ignore[method-assign]
        ask = wire.Ask(json.dumps(fakes.body(10)).encode())
        for job in (6, 7, 8):
            host.put(line, wire.INFER, job, wire.encode_infer(job, 1, ask)[9:])  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        host.put(line, wire.INFER, 9, wire.encode_infer(9, 1, ask)[9:])  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        return heard

    heard = asyncio.run(work())
    statuses = {job: wire.decode_answer(payload).status for kind, job, payload in heard if kind == wire.ANSWER}
    assert statuses == {6: 200, 7: 500, 8: 200, 9: 200}
    assert sorted(job for kind, job, _ in heard if kind == wire.LATER) == [6, 7, 8, 9]
