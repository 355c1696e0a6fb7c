"""Pipelines: what a step costs at first, when nothing changed and after a helper was edited, beside DVC, Hamilton, joblib.

Every tool has the same pipeline: steps that each multiply a number by what a helper in another file says. Each walk is a
process of its own, as after an edit, and is timed from reading the project to its last result, without the start of Python
and the import of the tool. `stale` means that the tool kept the old results although the helper had changed.

The peers live in .venv-bench, which `./run bench plan --build` makes from requirements.txt with uv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import projects  # noqa: E402

PEERS = ("dvc", "hamilton", "joblib")
TOOLS = ("instar", "instar tables", *PEERS)
BENCH = ROOT / ".venv-bench" / "bin" / "python"
PHASES = ("first", "unchanged", "edited")


def main() -> int:
    """Print the tables; fails when Instar keeps a stale result or runs what it need not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of the first table")
    parser.add_argument("--many", type=int, default=1000, help="steps of the pipeline in which nothing changed")
    parser.add_argument("--repeat", type=int, default=3, help="walks in which nothing changed; the quickest counts")
    parser.add_argument("--build", action="store_true", help="make .venv-bench with the peers, and go on")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if options.build:
        build()
    if not options.alone and not BENCH.exists():
        print("The peers are missing: ./run bench plan --build, or measure with --alone", file=sys.stderr)
        return 2
    tools = [tool for tool in TOOLS if not (options.alone and tool in PEERS)]
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as scratch:
        costs = {tool: cost(tool, Path(scratch) / "some", options.steps, options.repeat) for tool in tools}
        noops = {tool: no_op(tool, Path(scratch) / "many", options.many, options.repeat) for tool in tools}
    if options.json:
        print(
            json.dumps({"steps": options.steps, "ms_per_step": costs, "many": options.many, "no_op": noops}, indent=2)
        )
    else:
        print(table(costs, noops, options.steps, options.many))
    own = [costs[tool] for tool in tools if tool not in PEERS]
    return 1 if any(one["stale"] or one["ran"] != [options.steps, 0, options.steps] for one in own) else 0


def build() -> None:
    """Make the peers' environment."""
    uv = str(ROOT / ".venv" / "bin" / "uv")
    subprocess.run([uv, "venv", "--quiet", "--allow-existing", str(BENCH.parents[1])], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", str(BENCH), "-r", str(HERE / "requirements.txt")], check=True
    )


def cost(tool: str, place: Path, steps: int, repeat: int) -> dict[str, Any]:
    """Milliseconds a step in each phase, and whether the edit was seen."""
    folder = place / tool.replace(" ", "-")
    projects.write(tool, folder, steps)
    prepare(tool, folder)
    first = walk(tool, folder, steps)
    unchanged = min((walk(tool, folder, steps) for _ in range(repeat)), key=lambda one: float(one["seconds"]))
    projects.edit_helper(tool, folder, projects.RATES[1])
    edited = walk(tool, folder, steps)
    found = {
        phase: 1000 * one["seconds"] / steps for phase, one in zip(PHASES, (first, unchanged, edited), strict=True)
    }
    assert first["value"] == projects.RATES[0]
    ran = [one.get("ran") for one in (first, unchanged, edited)]
    found["results"] = 1000 * (first.get("results") or 0.0) / steps
    return {**found, "stale": edited["value"] != projects.RATES[1], "ran": ran}


def no_op(tool: str, place: Path, steps: int, repeat: int) -> dict[str, float]:
    """Seconds of a walk in which nothing changed, and of the whole process."""
    folder = place / tool.replace(" ", "-")
    projects.write(tool, folder, steps)
    prepare(tool, folder)
    if tool == "dvc":  # whose first walk would take minutes
        subprocess.run(command(tool, steps, "--record"), cwd=folder, check=True, stdout=subprocess.DEVNULL)
    else:
        walk(tool, folder, steps)
    return min((walk(tool, folder, steps) for _ in range(repeat)), key=lambda one: float(one["seconds"]))


def prepare(tool: str, folder: Path) -> None:
    """Make the store, as `dvc init` makes its own: what is measured is a project that is in use."""
    if tool not in PEERS:
        subprocess.run(command(tool, 0, "--prepare"), cwd=folder, check=True)


def walk(tool: str, folder: Path, steps: int) -> dict[str, Any]:
    """One walk in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run(command(tool, steps), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process": time.perf_counter() - began}


def command(tool: str, steps: int, *more: str) -> list[str]:
    """How the walk of a tool is started."""
    python, file = (BENCH, "peer_walk.py") if tool in PEERS else (Path(sys.executable), "instar_walk.py")
    return [str(python), str(HERE / file), tool, str(steps), *more]


def table(costs: dict[str, Any], noops: dict[str, Any], steps: int, many: int) -> str:
    """The results for people; ratios are to Instar with results of the same kind."""
    lines = [f"{f'{steps} steps, ms a step':24}{'first run':>18}{'nothing changed':>18}{'helper edited':>18}"]
    for tool, found in costs.items():
        cells = [f"{found[phase]:.2f} ({found[phase] / costs['instar'][phase]:.1f}x)" for phase in PHASES]
        if found["stale"]:
            cells[2] = "stale result"
        lines.append(f"{tool:24}" + "".join(f"{cell:>18}" for cell in cells))
    lines.append(f"of instar's first run, writing the results' own files: {costs['instar']['results']:.2f} ms a step")
    lines += ["", f"{f'{many} steps, no-op':24}{'walk, s':>18}{'whole process, s':>18}"]
    for tool, found in noops.items():
        ratio = found["seconds"] / noops["instar"]["seconds"]
        seconds = f"{found['seconds']:.2f} ({ratio:.1f}x)"
        lines.append(f"{tool:24}{seconds:>18}{found['process']:>18.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
