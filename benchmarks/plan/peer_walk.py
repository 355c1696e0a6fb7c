"""One walk of a peer's pipeline in a process of its own, in the peers' environment: `peer_walk.py TOOL STEPS [--record]`.

Prints seconds, without the start of Python and the import of the tool, and the value that step 1 has afterwards.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def joblib(steps: int) -> tuple[float, int]:
    import joblib  # noqa: F401

    began = time.perf_counter()
    import pipeline  # type: ignore[import-not-found]

    values = [getattr(pipeline, f"step_{n}")() for n in range(steps)]
    return time.perf_counter() - began, values[1]["value"]


def hamilton(steps: int) -> tuple[float, int]:
    from hamilton import driver

    began = time.perf_counter()
    import pipeline

    built = driver.Builder().with_modules(pipeline).with_cache(path="cache").build()
    values = built.execute([f"step_{n}" for n in range(steps)])
    return time.perf_counter() - began, values["step_1"]["value"]


def dvc(steps: int) -> tuple[float, int]:
    from dvc.repo import Repo

    began = time.perf_counter()
    with Repo(".") as repo:
        repo.reproduce()
    seconds = time.perf_counter() - began
    return seconds, json.loads(Path("out/step_1.json").read_text())["value"]


def record(steps: int) -> None:
    """Have DVC take outputs that are there for its own, so that a no-op can be measured without running a thousand stages."""
    from dvc.repo import Repo

    for n in range(steps):
        Path(f"out/step_{n}.json").write_text(json.dumps({"value": 2 * n}))
    with Repo(".") as repo:
        repo.commit(force=True)


def main() -> None:
    os.environ["DVC_NO_ANALYTICS"] = "1"
    sys.path.insert(0, os.getcwd())
    tool, steps = sys.argv[1], int(sys.argv[2])
    if "--record" in sys.argv:
        record(steps)
        return
    seconds, value = {"joblib": joblib, "hamilton": hamilton, "dvc": dvc}[tool](steps)
    print(json.dumps({"seconds": seconds, "value": value}))


if __name__ == "__main__":
    main()
