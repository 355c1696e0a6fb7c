"""A small project whose steps run in processes of their own, for the tests of walks."""

from __future__ import annotations

from instar.core.store import Store
from instar.plan import executions, output, runner
from instar.plan.runner import Event, Manner
from tests.plan.small_kinds import FileKind, kinds, place_of

DIAMOND = """
import os, time
from instar import gold, model, silver, source
from helpers import double, gate

raw = source("raw")

@silver()
def left(raw):
    gate("left")
    return [double(x) for x in raw]

@silver()
def right(raw):
    gate("right")
    return [x + 1 for x in raw]

@silver()
def apart(raw):
    return len(raw)

@gold(key="x")
def joined(left, right):
    return left + right

@model("back")
def best(joined, rate: float = 0.5):
    return {"best": max(joined) * rate}
"""
# Each of two steps waits until the other has begun: they come to an end only if they run at once.
MEETING = """
import os, time
def double(x):
    return 2 * x
def gate(name):
    place = os.environ.get("MEETING")
    if place:
        open(os.path.join(place, name), "w").close()
        while len(os.listdir(place)) < 2:
            time.sleep(0.01)
"""


class World:
    """A project whose steps run in processes."""

    def __init__(self, folder, store: Store) -> None:
        self.folder, self.store, self.kind = folder, store, FileKind(store)
        folder.write({"pipeline.py": DIAMOND, "helpers.py": MEETING})
        self.kind.put("raw", [1, 2, 3])
        self.events: list[Event] = []

    def walk(self, jobs: int = 4, *, own_place: bool = True, parameters=None, targets=None, **manner) -> runner.Walk:
        place = place_of(self.folder.root, self.store.folder.parent) if own_place else None
        how = Manner(jobs=jobs, place=place, **manner)
        self.events.clear()
        return runner.execute(
            self.store, self.folder.project(), self.folder.pipeline(), kinds(self.kind), targets, parameters,
            manner=how, on_event=self.events.append,
        )  # fmt: skip

    def all(self, step: str) -> list[executions.Execution]:
        with self.store.database.read() as tx:
            return executions.listed(tx, "small", step=step)[::-1]

    def last(self, step: str) -> executions.Execution:
        return self.all(step)[-1]

    def digest(self, step: str) -> str | None:
        return self.kind.digest(self.folder.project(), step)

    def log(self, step: str) -> str:
        return output.read(self.store, self.last(step).id, self.last(step).log)

    def called(self) -> list[str]:
        return (self.kind.place / "calls.txt").read_text().split()

    def told(self, state: str) -> list[str]:
        return [event.step for event in self.events if event.state == state]


def edit(world: World, old: str, new: str) -> None:
    world.folder.edit("pipeline.py", old, new)
