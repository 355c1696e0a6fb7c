"""A kind of step whose outputs are small JSON files, for tests of the runner; run as a program, it walks a project once."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instar.core import ids
from instar.core.errors import CheckFailed, NotFound
from instar.core.store import Store
from instar.plan import runner
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.pipeline import Input, Step, discover
from instar.plan.place import Adapt, Bench, Place
from instar.plan.project import Project, load_project
from instar.testing import memory_store


class FileKind:
    """Keeps each output as `out/STEP.json`, and all that there ever was under its digest."""

    def __init__(self, store: Store) -> None:
        self.place = store.folder / "out"
        self.place.mkdir(parents=True, exist_ok=True)
        self.calls: list[str] = []

    def digest(self, project: Project, name: str) -> str | None:
        file = self.place / f"{name}.json"
        return ids.digest(file.read_bytes()) if file.exists() else None

    def load(self, project: Project, input: Input, consumer: Step) -> object:
        if self.digest(project, input.name) is None:
            raise NotFound("it has no output", subject=input.name)
        return json.loads((self.place / f"{input.name}.json").read_text())

    def run(
        self,
        project: Project,
        execution: Execution,
        step: Step,
        inputs: Mapping[str, object],
        parameters: Mapping[str, object],
    ) -> object:
        self.calls.append(step.name)
        with (self.place / "calls.txt").open("a") as file:  # in whichever process it is
            file.write(step.name + "\n")
        if step.kind == "source":
            files = inputs["files"]
            assert isinstance(files, list)
            return [file.read_text() for file in files]
        assert step.function is not None
        return step.function(**inputs, **parameters)

    def store(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        if output == "refused":
            raise CheckFailed("the output is refused", subject=step.name)
        return self.put(step.name, output)

    def put(self, name: str, output: object) -> Stored:
        data = json.dumps(output).encode()
        digest = ids.digest(data)
        for file in (self.place / f"{digest[3:]}.json", self.place / f"{name}.json"):
            aside = file.with_suffix(f".{os.getpid()}")
            aside.write_bytes(data)
            os.replace(aside, file)
        return Stored(digest, digest)


class RecallingKind(FileKind):
    """Can go back to an earlier output."""

    def recall(self, project: Project, step: Step, ref: str) -> Stored | None:
        file = self.place / f"{ref[3:]}.json"
        return self.put(step.name, json.loads(file.read_text())) if file.exists() else None


def kinds(kind: FileKind) -> dict[str, FileKind]:
    return dict.fromkeys(("source", "silver", "gold", "model", "baseline"), kind)


def place_of(root: Path, store_parent: Path) -> Place:
    """How a step's own process opens the small project and its store."""
    arguments = {"root": root, "store": store_parent}
    return Place("tests.plan.small_kinds:bench", arguments, ("tests.plan.small_kinds",))


@contextmanager
def bench(arguments: Mapping[str, Any], texts: Mapping[str, str], adapt: Adapt) -> Iterator[Bench]:
    """The opener of `place_of`."""
    store = memory_store(arguments["store"])
    project = load_project(arguments["root"])
    pipeline = adapt(discover(project, texts))
    try:
        yield Bench(store, project, pipeline, kinds(FileKind(store)))
    finally:
        store.database.close()


def main() -> None:
    """`small_kinds.py PROJECT STORE [JOBS]`: one walk; says on the output what happens."""
    root, place = Path(sys.argv[1]), Path(sys.argv[2])
    jobs = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    store = memory_store(place)
    project = load_project(root)
    pipeline = discover(project)
    kind = FileKind(store)

    def tell(event: runner.Event) -> None:
        print(event.state, event.step, time.monotonic(), flush=True)

    manner = runner.Manner(jobs=jobs, place=place_of(root, place))
    runner.execute(store, project, pipeline, kinds(kind), on_event=tell, manner=manner)
    print("ended", flush=True)


if __name__ == "__main__":
    main()
