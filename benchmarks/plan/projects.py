"""The same pipeline written for each tool: N steps, each of which multiplies its number by what a helper in another file says."""

from __future__ import annotations

from pathlib import Path

RATES = (2, 3)  # of the helper, before and after it is edited
HELPER = "RATE = {rate}\n\n\ndef scaled(x):\n    return {{'value': RATE * x}}\n"
CONTRACT = """
[project]
name = "bench"
objective = "Measure what a step costs"
owner = "benchmarks"

[problem.none]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 2.0, false_positive = 1.0 }
split = { decide = "7d", judge = "7d" }
outcome = { due = "1d" }
"""


def write(tool: str, folder: Path, steps: int) -> None:
    """Write the project of a tool."""
    folder.mkdir(parents=True)
    edit_helper(tool, folder, RATES[0])
    WRITERS[tool](folder, steps)


def edit_helper(tool: str, folder: Path, rate: int) -> None:
    """Write the helper anew: every step then has another result."""
    if tool == "dvc":
        (folder / "helper.sh").write_text(f"RATE={rate}\n")
    else:
        (folder / "helper.py").write_text(HELPER.format(rate=rate))


def _instar(folder: Path, steps: int) -> None:
    (folder / "instar.toml").write_text(CONTRACT)
    lines = ["from instar import silver", "from helper import scaled"]
    for n in range(steps):
        lines += ["", "", "@silver()", f"def step_{n}():", f"    return scaled({n})"]
    (folder / "pipeline.py").write_text("\n".join(lines) + "\n")


def _tables(folder: Path, steps: int) -> None:
    (folder / "instar.toml").write_text(CONTRACT)
    lines = ["import polars as pl", "from instar import silver", "from helper import scaled"]
    for n in range(steps):
        lines += ["", "", "@silver()", f"def step_{n}():", f"    return pl.DataFrame([scaled({n})])"]
    (folder / "pipeline.py").write_text("\n".join(lines) + "\n")


def _joblib(folder: Path, steps: int) -> None:
    lines = ["from helper import scaled", "from joblib import Memory", "memory = Memory('cache', verbose=0)"]
    for n in range(steps):
        lines += ["", "", "@memory.cache", f"def step_{n}():", f"    return scaled({n})"]
    (folder / "pipeline.py").write_text("\n".join(lines) + "\n")


def _hamilton(folder: Path, steps: int) -> None:
    lines = ["from helper import scaled"]
    for n in range(steps):
        lines += ["", "", f"def step_{n}() -> dict:", f"    return scaled({n})"]
    (folder / "pipeline.py").write_text("\n".join(lines) + "\n")


def _dvc(folder: Path, steps: int) -> None:
    # The cheapest step there is: a shell that reads the helper. Declared is what a user would declare: the step's own file.
    (folder / "out").mkdir()
    (folder / "step.sh").write_text('. ./helper.sh\necho "{\\"value\\": $((RATE * $1))}" > out/step_$1.json\n')
    stages = "".join(
        f"  step_{n}:\n    cmd: sh step.sh {n}\n    deps: [step.sh]\n    outs: [out/step_{n}.json]\n"
        for n in range(steps)
    )
    (folder / "dvc.yaml").write_text(f"stages:\n{stages}")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")


WRITERS = {"instar": _instar, "instar tables": _tables, "joblib": _joblib, "hamilton": _hamilton, "dvc": _dvc}
