"""How many processes a worker has, by a clock of the test: more where calls wait, one less when nobody needs it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from instar.serve.processes.children import Process
from instar.serve.processes.needs import Ended, Load, Up
from instar.serve.root import copies, workers
from instar.serve.root.outside import Shim
from instar.serve.root.workers import Limits, Workers
from instar.serve.traffic.routes import Snapshot, read_snapshot
from tests.serve import fakes


class FakeProcess(Process):
    """A process that ends when it is told to, and counts what it was told."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.told: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def signal(self, number: int) -> None:
        self.told.append(number)


class FakeNursery:
    """Begins processes of the test."""

    def __init__(self) -> None:
        self.begun: dict[int, FakeProcess] = {}
        self.shims: dict[int, Shim] = {}

    def expect(self, arguments: Any) -> None:
        pass

    def start(self, number: int, arguments: Any, *, forked: bool) -> FakeProcess:
        self.begun[number] = FakeProcess(1_000_000_000 + number)
        return self.begun[number]

    def born(self) -> list[Any]:
        return []


class Scene:
    """The root's workers, with one version of its own, a clock and two cores."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (workers, copies):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]
        version = fakes.version(folder, 1, native=True)
        fakes.route(folder, [version])
        self.snapshot: Snapshot = read_snapshot(folder)
        self.name = version.worker
        self.said: list[Any] = []
        self.ended: list[int] = []
        self.nursery = FakeNursery()
        self.workers = Workers(
            folder, self.nursery, Limits(1 << 40, cores=2), self.said.append,  # type: ignore[arg-type]
            lambda name, process: self.ended.append(process.pid),
        )  # fmt: skip
        self.workers.take_up(self.snapshot)

    def passes(self, seconds: float, load: Load | None) -> None:
        """Time in which a gateway says each half second how busy the worker is."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            if load is not None:
                self.workers.loaded(1, {self.name: load})
            self.workers.tend()

    def up(self) -> tuple[int, ...]:
        """The processes that gateways were told of last."""
        return next(one.copies for one in reversed(self.said) if isinstance(one, Up) and one.worker == self.name)

    def native(self) -> list[int]:
        return [number for name, process, _ in self.workers.processes() if name == self.name
                for number, one in self.nursery.begun.items() if one is process]  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def begun(scene: Scene) -> int:
    """The worker's first process, which takes calls."""
    assert scene.workers.need(scene.name) is None
    scene.workers.tend()
    (number,) = scene.native()
    scene.workers.ready(scene.name, number)
    return number


def test_a_process_that_is_needed_no_more_is_given_back_in_good_order(scene: Scene) -> None:
    first = begun(scene)
    crowd = Load(flying=20, oldest_ms=500, calls=10)
    scene.passes(1, crowd)
    (second,) = set(scene.native()) - {first}
    assert scene.up() == (first,)  # it takes no calls before it says so
    scene.workers.ready(scene.name, second)
    assert scene.up() == (first, second)
    scene.passes(30, crowd)
    assert scene.native() == [first, second], "two cores bear no more, and both are needed"
    scene.passes(20, Load(flying=1, oldest_ms=0, calls=10))
    assert scene.up() == (first,)  # gateways hang up after its last answer
    leaving = scene.nursery.begun[second]
    assert leaving.told == [signal.SIGTERM]
    scene.passes(20, Load(flying=1, oldest_ms=0, calls=10))
    assert leaving.told == [signal.SIGTERM], "a call may still take its time"
    leaving.code = 0
    scene.passes(1, None)
    assert scene.ended == [leaving.pid]
    assert not [one for one in scene.said if isinstance(one, Ended)], "to leave is not to die: no call is tried again"
    assert (scene.native(), scene.nursery.begun[first].told) == ([first], [])


def test_one_that_does_not_leave_is_killed_after_the_longest_call(scene: Scene) -> None:
    first = begun(scene)
    scene.passes(1, Load(flying=20, oldest_ms=500, calls=10))
    (second,) = set(scene.native()) - {first}
    scene.workers.ready(scene.name, second)
    scene.passes(16, Load(flying=1, oldest_ms=0, calls=10))
    scene.passes(39, Load(flying=1, oldest_ms=0, calls=10))
    assert scene.nursery.begun[second].told == [signal.SIGTERM]
    scene.passes(2, Load(flying=1, oldest_ms=0, calls=10))
    assert signal.SIGKILL in scene.nursery.begun[second].told


def test_the_model_s_process_of_a_worker_that_is_gone_is_ended_and_billed(scene: Scene) -> None:
    number = begun(scene)
    beside = FakeProcess(2_000_000_000)
    scene.nursery.shims[number] = Shim(scene.name, beside)
    scene.passes(1, None)
    scene.workers.alone("another", number)
    assert beside.told == []
    scene.workers.alone(scene.name, number)
    assert beside.told == [signal.SIGKILL]  # its worker hung up on it
    beside.told.clear()
    scene.nursery.begun[number].code = -9
    scene.passes(1, None)
    assert signal.SIGKILL in beside.told
    beside.code = -9
    scene.passes(1, None)
    assert scene.ended == [scene.nursery.begun[number].pid, beside.pid]
    assert scene.nursery.shims == {}
