"""Who hangs, a worker or the gateway itself, by a clock of the test: a gateway that stood still blames nobody for that time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from instar.core.errors import InstarError
from instar.serve.gateway.worker_group import WorkerGroup
from instar.serve.processes.needs import Hung, Up
from instar.serve.protocol import wire


class Loop:
    """A loop whose time the test sets; what is to be called at once is called at once, and the rest never."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def create_task(self, work: Coroutine[Any, Any, Any]) -> Any:
        work.close()
        return self

    def call_soon(self, what: Callable[..., Any], *arguments: Any) -> Any:
        what(*arguments)

    def call_later(self, seconds: float, what: Callable[..., Any], *arguments: Any) -> Any:
        return self

    def cancel(self) -> None:
        pass


class Transport:
    """What is sent to a worker."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, data: list[bytes]) -> None:
        self.sent += data


class Waiter:
    problems: list[str]

    def __init__(self) -> None:
        self.problems = []

    def failed(self, worker: Any, problem: InstarError) -> None:
        self.problems.append(str(problem))


class Scene:
    """A gateway with one call at one worker process: hangs count from 20 s on, calls are given up after 30."""

    def __init__(self) -> None:
        self.loop, self.told, self.waiter = Loop(), list[Any](), Waiter()
        self.group = WorkerGroup(self.loop, "w", lambda number: Path("nowhere"), self.told.append, 20.0, 30.0)  # type: ignore[arg-type]
        self.group.told(Up("w", (7,)))
        self.line = self.group._lines[7]
        self.line.connection_made(Transport())  # type: ignore[arg-type]
        self.group.plan(wire.Plan(1, "e", 0, None, (), (), {}))  # type: ignore[arg-type]
        self.group.sweep()
        assert self.group.send(1, wire.Ask(b"{}"), self.waiter, 1) is None  # type: ignore[arg-type]

    def passes(self, seconds: float, step: float = 1.0) -> None:
        """Time with a sweep each second; with a `step` as long as itself, the gateway stood still meanwhile."""
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.loop.now += step
            self.group.sweep()

    @property
    def hung(self) -> list[Hung]:
        return [one for one in self.told if isinstance(one, Hung)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_worker_that_says_nothing_is_given_up(scene: Scene) -> None:
    scene.passes(20)
    assert scene.hung == []
    scene.passes(2)
    assert [one.copy for one in scene.hung] == [7]


def test_a_gateway_that_stood_still_blames_no_worker(scene: Scene) -> None:
    scene.passes(5)
    scene.passes(600, step=600)  # stopped for ten minutes
    assert (scene.hung, scene.waiter.problems) == ([], [])
    scene.passes(10)
    assert scene.hung == []
    scene.passes(6)  # with those before it stood still that makes it 21 at least
    assert len(scene.hung) >= 1


def test_on_a_machine_where_each_turn_takes_long_a_hang_takes_longer_to_be_seen(scene: Scene) -> None:
    scene.passes(60, step=10)
    assert scene.hung == []


def test_an_answer_that_lay_unread_ends_the_silence(scene: Scene) -> None:
    scene.passes(15)
    scene.passes(100, step=100)
    scene.line.data_received(wire.encode(wire.PONG, 0, b""))
    scene.passes(18)
    assert scene.hung == []


def test_a_call_is_given_up_after_its_time_without_that_in_which_the_gateway_stood_still(scene: Scene) -> None:
    scene.passes(10)
    scene.passes(300, step=300)
    scene.passes(17)
    assert scene.waiter.problems == []
    scene.passes(3)
    assert "did not answer within 30 s" in scene.waiter.problems[0]
