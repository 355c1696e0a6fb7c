"""One walk of Instar's pipeline in a process of its own: `instar_walk.py instar|"instar tables" STEPS`.

`instar` keeps each result as a small JSON file, as joblib and Hamilton do, so that what a step costs is the planning, the
walking and the record, and not the writing of a table. `instar tables` writes each as a version of a table. Prints seconds,
without the start of Python and the import of libraries, and the value that step 1 has afterwards.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from instar.app import open_app
from instar.core import ids
from instar.data import kind, tables  # noqa: F401
from instar.plan import runner
from instar.plan.kinds import Stored


class ValueKind:
    """Steps whose outputs are JSON files, the current one of each step under its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds = 0.0  # that writing the results took
        folder.mkdir(exist_ok=True)

    def digest(self, project: Any, name: str) -> str | None:
        try:
            return ids.digest((self._folder / name).read_bytes())
        except FileNotFoundError:
            return None

    def digests(self, project: Any, names: Iterable[str]) -> Mapping[str, str]:
        return {name: digest for name in names if (digest := self.digest(project, name)) is not None}

    def load(self, project: Any, input: Any, consumer: Any) -> object:
        return json.loads((self._folder / input.name).read_bytes())

    def run(self, project: Any, execution: Any, step: Any, inputs: Any, parameters: Any) -> object:
        return step.function(**inputs, **parameters)

    def store(self, project: Any, execution: Any, step: Any, output: object) -> Stored:
        began = time.perf_counter()
        data = json.dumps(output).encode()
        aside = self._folder / f"{step.name}.part"
        aside.write_bytes(data)
        os.replace(aside, self._folder / step.name)
        self.seconds += time.perf_counter() - began
        digest = ids.digest(data)
        return Stored(digest, digest)


def main() -> None:
    tool = sys.argv[1]
    if "--prepare" in sys.argv:
        with open_app():
            return
    began = time.perf_counter()
    with open_app() as app:
        values = ValueKind(Path(".instar") / "values")
        kinds: Any = app.kinds() if tool == "instar tables" else {"silver": values}
        walk = runner.execute(app.store, app.project, app.pipeline, kinds)
        seconds = time.perf_counter() - began
        if tool == "instar tables":
            version = tables.latest(app.store, "bench", "step_1")
            assert version is not None
            value = tables.scan(app.store, version).collect()["value"][0]
        else:
            value = json.loads((Path(".instar") / "values" / "step_1").read_bytes())["value"]
    results = values.seconds if tool == "instar" else None
    print(json.dumps({"seconds": seconds, "results": results, "value": value, "ran": len(walk.ran())}))


if __name__ == "__main__":
    main()
